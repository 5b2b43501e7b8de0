//! `users.nufw`: a user a line, `name:password:uid:gid[,gid…]`.
//!
//! Hashes are carried over as they are; a clear password is hashed, since ours are never stored clear.

use super::report::{Fate, Place, Report};
use super::write::{comment, string, strings};
use crate::hash_password;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

/// Prefixes of hashes that the users file takes as they are.
const HASHES: [&str; 5] = ["{SSHA}", "{SHA}", "{SHA1}", "{SMD5}", "{MD5}"];

/// `users.toml` of these lines.
pub(super) fn convert(path: &Path, text: &str, report: &mut Report) -> String {
    let mut out = comment(&format!("From {}.", path.display()));
    let mut names = HashSet::new();
    let mut ids = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = Place::new(path, index + 1);
        let fields: Vec<&str> = line.split(':').collect();
        let [name, password, uid, gids] = fields[..] else {
            report.say(
                &place,
                "user",
                Fate::Look,
                "left out: it is not name:password:uid:gid[,gid]",
            );
            continue;
        };
        let Some(uid) = uid.trim().parse::<u64>().ok().filter(|uid| *uid > 0) else {
            report.say(&place, name, Fate::Look, "left out: its uid is no number above 0");
            continue;
        };
        if !names.insert(name.to_owned()) {
            report.say(
                &place,
                name,
                Fate::Look,
                "left out: the name stands above already",
            );
            continue;
        }
        if let Some(other) = ids.insert(uid, name.to_owned()) {
            let text = format!("left out: uid {uid} is that of {other}, and every user has its own here");
            report.say(&place, name, Fate::Look, text);
            ids.insert(uid, other);
            continue;
        }
        let groups: Vec<&str> = gids
            .split(',')
            .map(str::trim)
            .filter(|gid| !gid.is_empty())
            .collect();
        let _ = write!(out, "\n[[user]]\nname = {}\nid = {uid}\n", string(name));
        if groups.is_empty() {
            report.say(
                &place,
                name,
                Fate::Changed,
                "NuFW refused users without a group; here it may log in",
            );
        } else {
            let _ = writeln!(out, "groups = {}", strings(&groups));
        }
        out.push_str(&secret(&place, name, password, report));
    }
    out
}

fn secret(place: &Place, name: &str, password: &str, report: &mut Report) -> String {
    if matches!(password, "*" | "!" | "") {
        report.say(place, name, Fate::Taken, "cannot log in by password");
        return String::new();
    }
    let upper = password.to_ascii_uppercase();
    if let Some(prefix) = HASHES.into_iter().find(|prefix| upper.starts_with(prefix)) {
        let prefix = if prefix == "{SHA1}" { "{SHA}" } else { prefix };
        let digest = password.split_once('}').map_or("", |(_, digest)| digest);
        let text = format!(
            "its {prefix} hash is taken over, but weak: let the user choose a password again (hash-password)"
        );
        report.say(place, name, Fate::Changed, text);
        return format!("password = {}\n", string(&format!("{prefix}{digest}")));
    }
    match hash_password::hash(password.as_bytes()) {
        Ok(hash) => {
            let text = "its password stood there clear; it is stored as an argon2id hash";
            report.say(place, name, Fate::Changed, text);
            format!("password = {}\n", string(&hash))
        }
        Err(failure) => {
            let text = format!("has no password here: {:#}", failure.error);
            report.say(place, name, Fate::Look, text);
            String::new()
        }
    }
}
