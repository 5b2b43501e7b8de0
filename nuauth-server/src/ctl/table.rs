//! Lists as tables for people: a heading, a line an item, columns as wide as they must be.
//!
//! What comes from clients was freed of control characters on the wire.

use nufw_common::control::admin::{ConnectionInfo, GatewayInfo, PendingInfo, PolicyInfo, SessionInfo};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;

fn table<const N: usize>(out: &mut dyn Write, heading: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let heading = heading.map(str::to_owned);
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            let cells = rows.iter().chain([&heading]);
            cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
        })
        .collect();
    for row in [&heading].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn or_dash(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), Clone::clone)
}

/// Seconds as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The time without its fraction.
fn whole(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

pub(super) fn sessions(list: &[SessionInfo], out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<_> = list
        .iter()
        .map(|session| {
            let addresses: Vec<_> = session.addresses.iter().map(IpAddr::to_string).collect();
            [
                session.session.clone(),
                session.username.clone(),
                session.user_id.clone(),
                session.quality.clone(),
                whole(&session.since),
                span(session.idle),
                addresses.join(" "),
            ]
        })
        .collect();
    table(
        out,
        ["SESSION", "USER", "ID", "BY", "SINCE", "IDLE", "ADDRESSES"],
        &rows,
    )
}

pub(super) fn gateways(list: &[GatewayInfo], out: &mut dyn Write) -> io::Result<()> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = list
        .iter()
        .map(|gateway| {
            [
                gateway.gateway.clone(),
                yes(gateway.connected),
                yes(gateway.relays_events),
            ]
        })
        .collect();
    table(out, ["GATEWAY", "CONNECTED", "EVENTS"], &rows)
}

pub(super) fn pending(list: &[PendingInfo], out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<_> = list
        .iter()
        .map(|pending| {
            [
                pending.gateway.clone(),
                pending.protocol.clone(),
                pending.source.clone(),
                pending.destination.clone(),
                pending.state.clone(),
                pending.packets.to_string(),
                pending.unanswered.to_string(),
                format!("{} ms", pending.left_ms),
            ]
        })
        .collect();
    let heading = [
        "GATEWAY",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "STATE",
        "PACKETS",
        "UNANSWERED",
        "LEFT",
    ];
    table(out, heading, &rows)
}

pub(super) fn connections(list: &[ConnectionInfo], out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<_> = list
        .iter()
        .map(|connection| {
            [
                connection.id.clone(),
                or_dash(connection.username.as_ref().or(connection.user_id.as_ref())),
                connection.gateway.clone(),
                connection.protocol.clone(),
                connection.source.clone(),
                connection.destination.clone(),
                connection.state.clone(),
                whole(&connection.since),
                or_dash(connection.program.as_ref()),
            ]
        })
        .collect();
    let heading = [
        "ID",
        "USER",
        "GATEWAY",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "STATE",
        "SINCE",
        "PROGRAM",
    ];
    table(out, heading, &rows)
}

pub(super) fn policy(policy: &PolicyInfo, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "file     {}", policy.file)?;
    writeln!(out, "version  {}", policy.version)?;
    writeln!(out, "read     {}", whole(&policy.read))?;
    writeln!(out, "reloads  {}", policy.reloads)?;
    if policy.last_failed {
        writeln!(
            out,
            "the last reload failed: what is on disk is not what is in force"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let session = SessionInfo {
            session: "12".to_owned(),
            username: "älice".to_owned(),
            user_id: "1001".to_owned(),
            quality: "password".to_owned(),
            addresses: vec!["10.0.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            since: "2026-11-30T08:00:00.123456Z".to_owned(),
            idle: 7300,
            os: String::new(),
        };
        let mut out = Vec::new();
        sessions(&[session], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "SESSION  USER   ID    BY        SINCE                 IDLE  ADDRESSES\n\
             12       älice  1001  password  2026-11-30T08:00:00Z  2h    10.0.0.7 2001:db8::7\n"
        );
    }
}
