//! The picture for scripts and for output that is no terminal: once, whole, without a control character.
//!
//! In JSON states, protocols, ports and counters are numbers, ids strings, times RFC 3339 with microseconds.

use crate::model::{Lines, Model};
use crate::row::Row;
use crate::text::{fit, grouped, rfc3339, right, width};
use crate::view::{cells, group_cells, title_of};
use nufw_proto::Timestamp;
use serde_json::{Value, json};
use std::io::{self, Write};

const CONNECTIONS: [&str; 9] = [
    "USER",
    "PROGRAM",
    "PROTO",
    "SOURCE",
    "DESTINATION",
    "STATE",
    "AGE",
    "IN",
    "OUT",
];
/// The first of them has a number in it.
const CONNECTION_NUMBERS: usize = 6;
const GROUPS: [&str; 4] = ["", "CONNECTIONS", "IN", "OUT"];
const GROUP_NUMBERS: usize = 1;

/// Prints a table, as wide as its widest values.
pub(crate) fn table(out: &mut dyn Write, model: &Model, now: Timestamp) -> io::Result<()> {
    match &model.lines {
        Lines::Connections(places) => {
            let rows = places.iter().filter_map(|&place| model.rows.get(place));
            // One read has no rates.
            let lines: Vec<Vec<String>> = rows.map(|row| cells(row, now)[..9].to_vec()).collect();
            columns(out, &CONNECTIONS, CONNECTION_NUMBERS, &lines)?;
        }
        Lines::Groups(groups) => {
            let mut titles = GROUPS;
            if let Some(by) = model.group {
                titles[0] = title_of(by);
            }
            let lines: Vec<Vec<String>> = groups
                .iter()
                .map(|group| group_cells(group, now)[..4].to_vec())
                .collect();
            columns(out, &titles, GROUP_NUMBERS, &lines)?;
        }
    }
    if model.cut {
        let rows = grouped(model.rows.len());
        writeln!(
            out,
            "There are more: only the newest {rows} connections were read (--limit)."
        )?;
    }
    out.flush()
}

fn columns(out: &mut dyn Write, titles: &[&str], numbers: usize, lines: &[Vec<String>]) -> io::Result<()> {
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(place, title)| {
            let cells = lines.iter().filter_map(|line| line.get(place));
            cells
                .map(|cell| width(cell))
                .chain([width(title)])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    for line in std::iter::once(&titles).chain(lines) {
        let cells = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(place, (cell, &width))| {
                if place >= numbers {
                    right(cell, width)
                } else {
                    fit(cell, width)
                }
            });
        let text = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Prints one object: what was read, when, whether it was cut, and the connections or groups.
pub(crate) fn json(out: &mut dyn Write, model: &Model, log: &str) -> io::Result<()> {
    let mut object = json!({
        "database": log,
        "read_at": model.read.map(rfc3339),
        "cut": model.cut,
    });
    let (name, list): (_, Vec<Value>) = match &model.lines {
        Lines::Connections(places) => {
            let rows = places.iter().filter_map(|&place| model.rows.get(place));
            ("connections", rows.map(connection).collect())
        }
        Lines::Groups(groups) => {
            let by = model.group.map_or("key", crate::order::GroupBy::name);
            let objects = groups.iter().map(|group| {
                json!({
                    by: group.key,
                    "connections": group.connections,
                    "established": group.established,
                    "bytes_in": group.bytes_in,
                    "bytes_out": group.bytes_out,
                    "oldest": rfc3339(group.oldest),
                })
            });
            ("groups", objects.collect())
        }
    };
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), Value::from(list));
    }
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)?;
    out.flush()
}

/// The columns of the view `live`, by their names.
fn connection(row: &Row) -> Value {
    let log = &row.log;
    json!({
        "id": log.id.to_string(),
        "state": log.state,
        "oob_time": rfc3339(log.received),
        "oob_prefix": log.oob_prefix,
        "oob_mark": log.oob_mark,
        "oob_in": log.oob_in,
        "oob_out": log.oob_out,
        "ip_protocol": log.ip_protocol,
        "ip_saddr": log.ip_saddr,
        "ip_daddr": log.ip_daddr,
        "sport": log.sport,
        "dport": log.dport,
        "icmp_type": log.icmp_type,
        "icmp_code": log.icmp_code,
        "icmp_id": log.icmp_id,
        "user_id": log.user_id.map(|id| id.to_string()),
        "username": log.username,
        "client_os": log.client_os,
        "client_app": log.client_app,
        "start_timestamp": log.start_timestamp.map(rfc3339),
        "packets_in": log.packets_in,
        "packets_out": log.packets_out,
        "bytes_in": log.bytes_in,
        "bytes_out": log.bytes_out,
        "reply_saddr": log.reply_saddr,
        "reply_daddr": log.reply_daddr,
        "reply_sport": log.reply_sport,
        "reply_dport": log.reply_dport,
        "gateway": log.gateway,
        "ct_id": log.ct_id.map(|id| id.to_string()),
        "ct_mark": log.ct_mark,
        "ct_zone": log.ct_zone,
        "acl": log.acl,
        "phys_in": log.phys_in,
        "phys_out": log.phys_out,
    })
}
