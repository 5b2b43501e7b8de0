//! `nutcpc status` and `nutcpc logout`: asks the user's nutcpc that runs, over its socket.
//!
//! Believes nobody but a process of the same user, and waits no longer than an answer may take.

use crate::args::Asks;
use crate::state::{View, Word};
use crate::status::{ANSWER_PATIENCE, MAX_ANSWER, Reply, Request, check_instance, directory, socket};
use anyhow::{Context as _, anyhow};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer than the answerer waits, so that its word for it arrives.
const PATIENCE: Duration = ANSWER_PATIENCE.saturating_add(Duration::from_secs(2));

/// Asks, prints the answer, and tells by the exit code what it was.
pub(crate) fn run(asks: Asks) -> Result<(), Failure> {
    match asks {
        Asks::Status { instance, json } => status(instance.as_deref(), json),
        Asks::Logout { server, instance } => logout(server, instance.as_deref()),
    }
}

fn status(instance: Option<&str>, json: bool) -> Result<(), Failure> {
    let servers = match ask(&Request::Status, instance)? {
        Reply::Servers(servers) => servers,
        other => return Err(instead(other)),
    };
    let text = if json {
        serde_json::json!({"servers": servers}).to_string() + "\n"
    } else {
        table(&servers)
    };
    print(&text)?;
    let missing = servers
        .iter()
        .filter(|server| server.state != Word::LoggedIn)
        .count();
    match missing {
        0 => Ok(()),
        missing => {
            let of = servers.len();
            Err(Failure::new(
                Exit::TempFail,
                anyhow!("not logged in at {missing} of {of} servers"),
            ))
        }
    }
}

fn logout(server: Option<String>, instance: Option<&str>) -> Result<(), Failure> {
    match ask(&Request::Logout { server }, instance)? {
        Reply::LoggedOut(servers) => {
            let lines: Vec<String> = servers
                .iter()
                .map(|server| format!("logged out at {server}\n"))
                .collect();
            print(&lines.concat())
        }
        Reply::Error(error) => Err(Failure::new(Exit::Usage, anyhow!(error))),
        other @ Reply::Servers(_) => Err(instead(other)),
    }
}

fn ask(request: &Request, instance: Option<&str>) -> Result<Reply, Failure> {
    check_instance(instance)?;
    let directory = directory()
        .context("XDG_RUNTIME_DIR does not say where your nutcpc could be asked")
        .or_exit(Exit::Unavailable)?;
    let path = socket(&directory, instance);
    let stream = UnixStream::connect(&path)
        .with_context(|| format!("no nutcpc of yours runs: {}", path.display()))
        .or_exit(Exit::Unavailable)?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).or_exit(Exit::OsErr)?;
    if peer.uid != rustix::process::geteuid() {
        let error = anyhow!("{} is answered by another user's process", path.display());
        return Err(Failure::new(Exit::NoPerm, error));
    }
    converse(stream, request)
        .with_context(|| format!("your nutcpc does not answer on {}", path.display()))
        .or_exit(Exit::Unavailable)
}

fn converse(mut stream: UnixStream, request: &Request) -> anyhow::Result<Reply> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
    anyhow::ensure!(!line.is_empty(), "it hung up");
    Ok(serde_json::from_str(&line)?)
}

fn instead(reply: Reply) -> Failure {
    let error = match reply {
        Reply::Error(error) => anyhow!(error),
        _ => anyhow!("your nutcpc answers something else than it was asked"),
    };
    Failure::new(Exit::Unavailable, error)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print")
        .or_exit(Exit::IoErr)
}

/// A line for each server, under a heading.
fn table(servers: &[View]) -> String {
    let mut rows = vec![["SERVER", "STATE", "FOR", "USER", "ADDRESSES"].map(str::to_owned)];
    for view in servers {
        let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let addresses = view.addresses.join(" ");
        rows.push([
            view.server.clone(),
            view.state.shown().to_owned(),
            seconds(view.for_ms),
            or_dash(view.user.as_deref()),
            or_dash(Some(addresses.as_str()).filter(|text| !text.is_empty())),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 4] = std::array::from_fn(width);
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(&row[4]);
        text.push('\n');
        let Some(view) = i.checked_sub(1).map(|i| &servers[i]) else {
            continue;
        };
        if let Some(reason) = &view.reason {
            let retry = view
                .retry_in_ms
                .map(|ms| format!("; trying again in {}", seconds(ms)));
            let _ = writeln!(text, "  {reason}{}", retry.unwrap_or_default());
        }
        if view.refused > 0 {
            let _ = writeln!(text, "  {} of your connections were refused", view.refused);
        }
    }
    text
}

/// The two largest units are enough for a person.
fn seconds(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_each_server_and_why_it_has_no_session() {
        let view = |server: &str, state| View {
            server: server.to_owned(),
            state,
            for_ms: 125_000,
            user: Some("alice".to_owned()),
            peer: None,
            addresses: Vec::new(),
            reason: None,
            retry_in_ms: None,
            refused: 0,
        };
        let one = View {
            addresses: vec!["10.0.0.5".to_owned(), "fd00::5".to_owned()],
            refused: 3,
            ..view("fw1.example:4129", Word::LoggedIn)
        };
        let other = View {
            reason: Some("connection lost".to_owned()),
            retry_in_ms: Some(4000),
            user: None,
            ..view("fw2:4129", Word::Waiting)
        };
        assert_eq!(
            table(&[one, other]),
            "SERVER            STATE      FOR    USER   ADDRESSES\n\
             fw1.example:4129  logged in  2m 5s  alice  10.0.0.5 fd00::5\n  3 of your connections were refused\n\
             fw2:4129          waiting    2m 5s  -      -\n  connection lost; trying again in 4s\n"
        );
    }

    #[test]
    fn times_read_as_a_person_says_them() {
        let shown = [0, 59_999, 61_000, 3_700_000, 100_000_000].map(seconds);
        assert_eq!(shown, ["0s", "59s", "1m 1s", "1h 1m", "1d 3h"]);
    }
}
