//! Loads and removes the rules: all of them or none, and nothing of anybody else's.
//!
//! Each table is replaced in one commit of the kernel. Every commit is tried first, and if one fails all the same, those of
//! before are undone.

use super::iptables::{self, Chain, Family, Jump, OURS, Place, TABLES, Wanted};
use super::{Lines, RulesOptions, nft};
use serde::Deserialize;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// By which commands rules are loaded and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// iptables where it is installed, else nft.
    #[default]
    Auto,
    /// iptables and ip6tables.
    Iptables,
    /// nft.
    Nft,
}

/// Why rules could not be loaded or removed. The host has the rules of before.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither family of commands is installed.
    #[error("neither iptables-restore nor nft can be run: install one of them")]
    NoCommand,
    /// A command cannot be started.
    #[error("{command} cannot be run: {source}; install it, or choose another rules.backend")]
    Command {
        /// Which.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command did not do what it was asked.
    #[error("{command} refuses the rules, and those of before are still loaded: {said}")]
    Refused {
        /// Which.
        command: String,
        /// What it said.
        said: String,
    },
    /// A command refused, and so did the one that should have undone what others had done.
    #[error(
        "{first}; what was loaded before it could not be undone either: {second}; look at the rules at once"
    )]
    NotUndone {
        /// What failed.
        first: Box<LoadError>,
        /// What failed after it.
        second: Box<LoadError>,
    },
    /// A setting of conntrack cannot be made.
    #[error("{key} cannot be set to {value}: {source}; root can, with nf_conntrack loaded")]
    Setting {
        /// Its name.
        key: &'static str,
        /// What it should be.
        value: &'static str,
        /// Why.
        source: io::Error,
    },
}

const SAVES: &str = "-save";
const RESTORES: &str = "-restore";
/// How long another program that changes rules is waited for, seconds.
const LOCK_PATIENCE: &str = "5";

impl Backend {
    /// The one that is meant, or found.
    fn resolve(self) -> Result<Self, LoadError> {
        let runs = |command: &str| {
            Command::new(command)
                .arg("--version")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok()
        };
        match self {
            Self::Auto if runs("iptables-restore") => Ok(Self::Iptables),
            Self::Auto if runs("nft") => Ok(Self::Nft),
            Self::Auto => Err(LoadError::NoCommand),
            named => Ok(named),
        }
    }
}

/// Loads the rules in place of those that are loaded. What another backend had of ours goes.
pub fn apply(backend: Backend, options: &RulesOptions) -> Result<(), LoadError> {
    let backend = backend.resolve()?;
    // First of all: a rule with an event mask that is made while nf_conntrack_events is 2 masks nothing.
    settings(options)?;
    match backend {
        Backend::Nft => {
            load_nft(&nft::install(options))?;
            remove_iptables_if_there()
        }
        Backend::Iptables | Backend::Auto => {
            let wanted: Vec<_> = families()
                .map(|family| (family, iptables::wanted(options, family)))
                .collect();
            load_iptables(&wanted, &TABLES)?;
            remove_nft_if_there()
        }
    }
}

/// Removes the rules, whatever loaded them.
pub fn remove(backend: Backend) -> Result<(), LoadError> {
    match backend.resolve()? {
        Backend::Nft => {
            load_nft(&nft::remove())?;
            remove_iptables_if_there()
        }
        Backend::Iptables | Backend::Auto => {
            remove_iptables()?;
            remove_nft_if_there()
        }
    }
}

fn remove_iptables() -> Result<(), LoadError> {
    let nothing: Vec<_> = families().map(|family| (family, Wanted::default())).collect();
    // What is queued ends before what refuses.
    load_iptables(&nothing, &["mangle", "filter", "raw"])
}

fn remove_iptables_if_there() -> Result<(), LoadError> {
    let is_there = families().any(|family| saved(family).is_ok_and(|text| !ours(&text).chains.is_empty()));
    if is_there { remove_iptables() } else { Ok(()) }
}

fn remove_nft_if_there() -> Result<(), LoadError> {
    match run("nft", &["list", "tables"], "") {
        Ok(tables) if tables.lines().any(|line| line == "table inet nufw") => load_nft(&nft::remove()),
        _ => Ok(()),
    }
}

fn load_nft(text: &str) -> Result<(), LoadError> {
    run("nft", &["-f", "-"], text).map(drop)
}

/// The families that this kernel has.
fn families() -> impl Iterator<Item = Family> {
    let v6 = fs::exists("/proc/net/if_inet6").unwrap_or(true);
    [Family::V4, Family::V6]
        .into_iter()
        .filter(move |family| v6 || *family == Family::V4)
}

fn settings(options: &RulesOptions) -> Result<(), LoadError> {
    // Where it is built in, or loaded, this says nothing new.
    let _ = Command::new("modprobe")
        .args(["-q", "nf_conntrack"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    for (key, value, _) in options.settings() {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        if fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
            continue;
        }
        fs::write(&path, value).map_err(|source| LoadError::Setting { key, value, source })?;
    }
    Ok(())
}

fn load_iptables(wanted: &[(Family, Wanted)], tables: &[&str]) -> Result<(), LoadError> {
    let mut plans = Vec::new();
    for (family, wanted) in wanted {
        let before = saved(*family)?;
        let text = plan(&ours(&before), wanted, tables);
        restore(*family, &["--test"], &text)?;
        plans.push((*family, before, text));
    }
    for (family, _, text) in &plans {
        if let Err(first) = restore(*family, &[], text) {
            return Err(undo(&plans, first));
        }
    }
    Ok(())
}

fn undo(plans: &[(Family, String, String)], first: LoadError) -> LoadError {
    for (family, before, _) in plans {
        let undone = saved(*family).and_then(|present| {
            let text = plan(&ours(&present), &ours(before), &TABLES);
            restore(*family, &[], &text)
        });
        if let Err(second) = undone {
            return LoadError::NotUndone {
                first: Box::new(first),
                second: Box::new(second),
            };
        }
    }
    first
}

fn saved(family: Family) -> Result<String, LoadError> {
    run(&format!("{}{SAVES}", family.command()), &[], "")
}

fn restore(family: Family, more: &[&str], text: &str) -> Result<(), LoadError> {
    if text.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["--noflush", "-w", LOCK_PATIENCE];
    arguments.extend(more);
    run(&format!("{}{RESTORES}", family.command()), &arguments, text).map(drop)
}

fn run(command: &str, arguments: &[&str], input: &str) -> Result<String, LoadError> {
    let failed = |source| LoadError::Command {
        command: command.to_owned(),
        source,
    };
    let mut child = Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(LoadError::Refused {
        command: command.to_owned(),
        said: said.join("; "),
    })
}

/// What is ours in the output of `iptables-save`: chains with their rules, and the jumps to them with their places.
pub(super) fn ours(saved: &str) -> Wanted {
    let mut found = Wanted::default();
    let mut table = "";
    let mut numbers: Vec<(&str, usize)> = Vec::new();
    let is_ours = |table: &str, name: &str| OURS.contains(&(table, name));
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            numbers.clear();
        } else if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split_ascii_whitespace().next().unwrap_or_default();
            if is_ours(table, name) {
                found.chains.push(Chain {
                    table: table.to_owned(),
                    name: name.to_owned(),
                    rules: Vec::new(),
                });
            }
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let number = if let Some((_, number)) = numbers.iter_mut().find(|(of, _)| *of == chain) {
                *number += 1;
                *number
            } else {
                numbers.push((chain, 1));
                1
            };
            if is_ours(table, chain) {
                let of = |other: &&mut Chain| other.table == table && other.name == chain;
                if let Some(chain) = found.chains.iter_mut().find(of) {
                    chain.rules.push(rule.to_owned());
                }
                continue;
            }
            let mut words = rule
                .split_ascii_whitespace()
                .skip_while(|word| !matches!(*word, "-j" | "-g"));
            let to = words.nth(1).unwrap_or_default();
            if is_ours(table, to) {
                found.jumps.push(Jump {
                    table: table.to_owned(),
                    from: chain.to_owned(),
                    to: to.to_owned(),
                    rule: rule.to_owned(),
                    place: Place::At(number),
                });
            }
        }
    }
    found
}

/// What `iptables-restore --noflush` makes of `present` what `wanted` is. Jumps that are there stay where they are, with
/// the conditions that they have.
pub(super) fn plan(present: &Wanted, wanted: &Wanted, tables: &[&str]) -> String {
    let mut text = Lines::default();
    for table in tables {
        let mut lines = Lines::default();
        let chains = || wanted.chains.iter().filter(|chain| chain.table == *table);
        let same = |a: &Jump, b: &Jump| (&a.table, &a.from, &a.to) == (&b.table, &b.from, &b.to);
        for chain in chains() {
            lines.line(format!(":{} - [0:0]", chain.name));
        }
        for jump in present.jumps.iter().filter(|jump| jump.table == *table) {
            if !wanted.jumps.iter().any(|other| same(jump, other)) {
                lines.line(format!("-D {} {}", jump.from, jump.rule));
            }
        }
        for chain in chains() {
            for rule in &chain.rules {
                lines.line(format!("-A {} {rule}", chain.name));
            }
        }
        for jump in wanted.jumps.iter().filter(|jump| jump.table == *table) {
            if present.jumps.iter().any(|other| same(jump, other)) {
                continue;
            }
            let (from, rule) = (&jump.from, &jump.rule);
            lines.line(match jump.place {
                Place::First => format!("-I {from} 1 {rule}"),
                Place::Last => format!("-A {from} {rule}"),
                Place::At(number) => format!("-I {from} {number} {rule}"),
            });
        }
        for chain in present.chains.iter().filter(|chain| chain.table == *table) {
            if !chains().any(|other| other.name == chain.name) {
                lines.line(format!("-F {}", chain.name));
                lines.line(format!("-X {}", chain.name));
            }
        }
        if !lines.0.is_empty() {
            text.line(format!("*{table}"));
            text.0.push_str(&lines.0);
            text.line("COMMIT");
        }
    }
    text.0
}
