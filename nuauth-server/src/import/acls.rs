//! `acls.nufw`: named sections of conditions and a decision, in the order of their priority.
//!
//! Syntax here; what a section becomes is `rules`' business.

use super::report::{Fate, Place, Report};
use std::path::Path;

/// One section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Acl {
    pub(super) name: String,
    pub(super) line: usize,
    /// 0 drop, 1 accept, 3 reject; accept unless it says so.
    pub(super) decision: u8,
    pub(super) uids: Vec<String>,
    pub(super) gids: Vec<String>,
    pub(super) proto: u8,
    pub(super) types: Vec<u8>,
    pub(super) source: Vec<String>,
    pub(super) destination: Vec<String>,
    pub(super) source_ports: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) apps: Vec<String>,
    pub(super) systems: Vec<String>,
    pub(super) period: Option<String>,
    pub(super) in_devs: Vec<String>,
    pub(super) out_devs: Vec<String>,
    pub(super) phys_in: Vec<String>,
    pub(super) phys_out: Vec<String>,
    pub(super) log_prefix: Option<String>,
    pub(super) flags: u32,
    pub(super) quality: u8,
    /// Something of it could not be read: it must not decide as if it had not been there.
    pub(super) broken: bool,
}

/// Reads the sections; a line that cannot be read is said, and breaks its section.
pub(super) fn read(path: &Path, text: &str, report: &mut Report) -> Vec<Acl> {
    let mut acls: Vec<Acl> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let place = Place::new(path, index + 1);
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            acls.push(Acl {
                name: name.trim().to_owned(),
                line: index + 1,
                decision: 1,
                proto: 6,
                ..Acl::default()
            });
            continue;
        }
        let Some(acl) = acls.last_mut() else {
            report.say(
                &place,
                "line",
                Fate::Look,
                "left out: it stands before the first [name]",
            );
            continue;
        };
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if let Err(expected) = acl.take(&key.trim().to_ascii_lowercase(), value.trim()) {
            let text = format!("found {line:?}, expected {expected}");
            report.say(&place, format!("[{}]", acl.name), Fate::Look, text);
            acl.broken = true;
        }
    }
    acls
}

impl Acl {
    fn take(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let list = || {
            value
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
        };
        match key {
            "decision" => {
                self.decision = match value {
                    "0" => 0,
                    "1" => 1,
                    "3" => 3,
                    _ => return Err("decision=0, 1 or 3"),
                }
            }
            "uid" => self.uids.extend(list()),
            "gid" => self.gids.extend(list()),
            "proto" => self.proto = value.parse().map_err(|_| "the number of a protocol")?,
            "type" => {
                for item in list() {
                    self.types
                        .push(item.parse().map_err(|_| "numbers of ICMP types")?);
                }
            }
            "srcip" => self.source.extend(list()),
            "dstip" => self.destination.extend(list()),
            "srcport" => self.source_ports.extend(list()),
            "dstport" => self.ports.extend(list()),
            // A path may hold a comma.
            "app" => self.apps.push(value.to_owned()),
            "os" => self.systems.push(value.to_owned()),
            "period" => self.period = Some(value.to_owned()),
            "indev" => self.in_devs.extend(list()),
            "outdev" => self.out_devs.extend(list()),
            "physindev" => self.phys_in.extend(list()),
            "physoutdev" => self.phys_out.extend(list()),
            "log_prefix" => self.log_prefix = Some(value.to_owned()),
            "flags" => self.flags = value.parse().map_err(|_| "a number")?,
            "authquality" => self.quality = value.parse().map_err(|_| "a number from 0 to 5")?,
            _ => return Err("a key of acls.nufw"),
        }
        Ok(())
    }
}
