//! Looks at everything that the configuration names.
//!
//! Uses the very functions that the server starts with, so that the two cannot disagree.

use super::{Level, Report};
use crate::config::{Backend, OnLoss, Override, ServerConfig};
use crate::policy::{Against, Policy, word};
use crate::unlogged;
use crate::users::Users;
use nufw_common::clock;
use nufw_common::config::HexOrInt;
use nufw_common::tls;
use rustix::fs::{Access, access};
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

/// A certificate that ends within so many seconds is warned of.
const SOON: i64 = 30 * 86_400;

/// Checks the configuration in `path` and what it names.
pub(super) fn gather(path: &Path, overrides: &[Override]) -> Report {
    let mut report = Report::default();
    let config = match ServerConfig::load(path, overrides) {
        Ok(config) => config,
        Err(errors) => {
            for line in errors.lines() {
                report.add(Level::Error, "configuration", line);
            }
            return report;
        }
    };
    configuration(&config, &mut report);
    certificates(&config, &mut report);
    if let Some(users) = users(&config, &mut report) {
        policy(&config, &users, &mut report);
    }
    database(&config, &mut report);
    spool(&config, &mut report);
    report
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

fn configuration(config: &ServerConfig, report: &mut Report) {
    let mut ok = |subject, text| report.add(Level::Ok, subject, text);
    let (path, number) = (config.path.display(), config.server_number);
    let mask = HexOrInt(config.mark_mask.0);
    ok(
        "configuration",
        format!("{path}: server number {number}, mark mask {mask}"),
    );
    let (listen, names) = (list(&config.gateways.listen), list(&config.gateways.names));
    ok("gateways", format!("listen on {listen}; known: {names}"));
    let listen = list(&config.clients.listen);
    let mechanisms = list(config.clients.mechanisms.iter().map(|m| m.name()));
    ok("clients", format!("listen on {listen}; log in by {mechanisms}"));
}

fn certificates(config: &ServerConfig, report: &mut Report) {
    let before = report.count(Level::Error);
    for tls in [config.tls.for_gateways(), config.tls.for_clients()] {
        // Both ports use the same files: one of two equal errors is enough.
        if let Err(error) = tls::server_config(&tls)
            && report.count(Level::Error) == before
        {
            report.add(Level::Error, "certificates", error.to_string());
        }
    }
    if report.count(Level::Error) > before {
        return;
    }
    for (subject, path) in [
        ("certificate", &config.tls.certificate),
        ("authority", &config.tls.ca),
    ] {
        validity(subject, path, report);
    }
    match &config.tls.crl {
        Some(crl) => revocation_list(crl, report),
        None => report.add(
            Level::Warning,
            "revocation",
            "tls.crl is not set: a stolen certificate works until it expires",
        ),
    }
}

fn validity(subject: &'static str, path: &Path, report: &mut Report) {
    let now = clock::wall().micros().div_euclid(1_000_000);
    let described = tls::load_certs(subject, path).and_then(|certificates| {
        certificates
            .iter()
            .map(|certificate| tls::describe(subject, path, certificate))
            .collect::<Result<Vec<_>, _>>()
    });
    match described {
        Ok(certificates) => {
            for info in certificates {
                let soon = info.not_after - now < SOON;
                let level = if soon { Level::Warning } else { Level::Ok };
                let text = format!("{}: {} until {}", path.display(), info.subject, info.validity.1);
                report.add(level, subject, text);
            }
        }
        Err(error) => report.add(Level::Error, subject, error.to_string()),
    }
}

fn revocation_list(path: &Path, report: &mut Report) {
    let now = clock::wall().micros().div_euclid(1_000_000);
    let lists = match tls::load_crls(path) {
        Ok(lists) => lists,
        Err(error) => return report.add(Level::Error, "revocation", error.to_string()),
    };
    for der in &lists {
        let list = match CertificateRevocationList::from_der(der) {
            Ok((_, list)) => list,
            Err(error) => {
                let text = format!("revocation list {}: {error}", path.display());
                report.add(Level::Error, "revocation", text);
                continue;
            }
        };
        let count = list.iter_revoked_certificates().count();
        let due = list.next_update().filter(|due| due.timestamp() < now);
        let level = if due.is_some() { Level::Warning } else { Level::Ok };
        let due = due.map_or_else(String::new, |due| format!("; a newer list was due on {due}"));
        let text = format!("{}: {count} certificates revoked{due}", path.display());
        report.add(level, "revocation", text);
    }
}

fn users(config: &ServerConfig, report: &mut Report) -> Option<Users> {
    let path = &config.users;
    let users = match Users::load_with(path, config.user_mask(), &config.directories.names) {
        Ok(users) => users,
        Err(errors) => {
            for line in errors.lines() {
                report.add(Level::Error, "users", line.as_str());
            }
            return None;
        }
    };
    let passwords = users.iter().filter(|user| user.has_password()).count();
    let text = format!(
        "{}: {} users, {passwords} with a password; groups: {}",
        path.display(),
        users.len(),
        list(users.groups())
    );
    let level = if users.is_empty() && config.directories.all_known() {
        Level::Warning
    } else {
        Level::Ok
    };
    report.add(level, "users", text);
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.mode());
    if passwords > 0 && mode & 0o007 != 0 {
        let path = path.display();
        let text =
            format!("{path}: everybody on this host may read the password hashes; run: chmod o= {path}");
        report.add(Level::Warning, "users", text);
    }
    weak(&users, report);
    back_ends(config, &users, report);
    Some(users)
}

/// Hashes that whoever reads the file can guess too fast. They are not made better here: only the user knows the password.
fn weak(users: &Users, report: &mut Report) {
    let weak = users.weak();
    if weak.is_empty() {
        return;
    }
    let text = format!(
        "{} with weak hashes of other systems: {}; give them new passwords by nuauth-server hash-password",
        super::plural(weak.len(), "user"),
        list(weak.iter().map(|(name, kind)| format!("{name} {kind}")))
    );
    report.add(Level::Warning, "users", text);
}

/// Who is asked, and what is odd about it.
fn back_ends(config: &ServerConfig, users: &Users, report: &mut Report) {
    let directories = &config.directories;
    let order = |order: &[Backend]| list(order.iter().map(|backend| backend.name()));
    let text = format!(
        "asked for passwords: {}; for ids: {}; for groups: {}",
        order(&directories.password),
        order(&directories.identity),
        order(&directories.groups)
    );
    report.add(Level::Ok, "back-ends", text);
    if let Err(error) = directories.settings() {
        report.add(Level::Error, "back-ends", format!("{error:#}"));
    }
    if let Some(ldap) = directories
        .ldap
        .as_ref()
        .filter(|_| directories.uses(Backend::Ldap))
    {
        let settings = &ldap.settings;
        if settings.url.starts_with("ldap://") && !settings.start_tls {
            let text = "users.ldap.start-tls is false: passwords of users go to the LDAP server in the clear";
            report.add(Level::Warning, "back-ends", text);
        }
    }
    if let Some(kerberos) = &directories.kerberos {
        let keytab = &kerberos.settings.keytab;
        match std::fs::File::open(keytab) {
            Ok(_) => {
                let text = format!(
                    "{} can be read; realms {}",
                    keytab.display(),
                    kerberos.realms.join(", ")
                );
                report.add(Level::Ok, "kerberos", text);
            }
            Err(error) => {
                let text = format!("cannot read the keytab {}: {error}", keytab.display());
                report.add(Level::Error, "kerberos", text);
            }
        }
    }
    let by_scram = config
        .clients
        .mechanisms
        .iter()
        .any(|mechanism| mechanism.is_scram());
    let without = users
        .iter()
        .filter(|user| user.has_password() && user.scram().is_none())
        .count();
    if by_scram && (without > 0 || directories.password != [Backend::File]) {
        let text = "clients.mechanisms has SCRAM-SHA-256, which clients prefer: whoever has no scram in the users file must say \
                    --mechanism PLAIN";
        report.add(Level::Warning, "back-ends", text);
    }
}

fn policy(config: &ServerConfig, users: &Users, report: &mut Report) {
    let path = config.policy.display();
    let known = Against {
        users,
        all_known: config.directories.all_known(),
        marks: &config.marks,
    };
    match Policy::load(&config.policy, &known) {
        Ok(read) => {
            report.add(
                Level::Ok,
                "access lists",
                format!(
                    "{path}: {} rules, {}, then drop; version {}",
                    read.policy.rules().len(),
                    read.policy.order().word(),
                    read.policy.version_text()
                ),
            );
            for rule in read.policy.rules() {
                let ruling = rule.ruling();
                let decision = word(ruling.decision);
                let log = ruling
                    .log
                    .word()
                    .map_or_else(String::new, |log| format!("; log {log}"));
                let text = format!("{}: {decision} {rule}{log}", ruling.rule);
                report.add(Level::Ok, "rule", text);
            }
            for note in read.notes {
                report.add(Level::Warning, "access lists", note);
            }
            for sentence in unlogged::warnings(config.engine.levels, &read.policy) {
                report.add(Level::Warning, "log", sentence);
            }
        }
        Err(errors) => {
            for line in errors.lines() {
                report.add(Level::Error, "access lists", line.as_str());
            }
        }
    }
}

fn database(config: &ServerConfig, report: &mut Report) {
    let database = &config.log.database;
    let Some(file) = database.file() else {
        server(config, report);
        return;
    };
    if let Some(text) = unwritable(file) {
        report.add(Level::Error, "database", text);
        return;
    }
    report.add(
        Level::Ok,
        "database",
        format!("{database}: {}", promise(config, "on disk")),
    );
}

/// What is logged, and what a packet waits for.
fn promise(config: &ServerConfig, durable: &str) -> String {
    let limits = &config.engine;
    let levels = limits.levels;
    if !levels.connections {
        return format!("logged: {levels}");
    }
    let when = if limits.log_sync { "after" } else { "before" };
    format!(
        "logged: {levels}; packets are accepted {when} their row is {durable} unless their rule says otherwise"
    )
}

/// A database server must let us in and have the schema of this version; nothing is locked, a server may be running.
fn server(config: &ServerConfig, report: &mut Report) {
    let database = &config.log.database;
    let looked = match crate::db::runtime() {
        Ok(runtime) => runtime
            .block_on(nulog::Reader::open(database))
            .map_err(|e| e.to_string()),
        Err(failure) => Err(failure.error.to_string()),
    };
    if let Err(text) = looked {
        report.add(Level::Error, "database", text);
        return;
    }
    report.add(
        Level::Ok,
        "database",
        format!("{database}: {}", promise(config, "committed")),
    );
}

/// The spool is made when it is first needed: its directory must be there before.
fn spool(config: &ServerConfig, report: &mut Report) {
    let path = &config.log.spool.path;
    if config.log.on_loss == OnLoss::Drop {
        let text = "not used: packets are dropped while the log database is away (log.on-database-loss)";
        report.add(Level::Ok, "spool", text);
        return;
    }
    if let Some(text) = unwritable(path) {
        let log = config.log.database.file();
        // One of two equal errors is enough.
        if log.and_then(unwritable).as_ref() != Some(&text) {
            report.add(Level::Error, "spool", text);
        }
        return;
    }
    let text = format!(
        "{}: rows go there while the log database is away, up to {} MiB",
        path.display(),
        config.log.spool.limit >> 20
    );
    report.add(Level::Ok, "spool", text);
}

/// What keeps the server from writing a database file; its directory must be writable too, for the journal.
fn unwritable(file: &Path) -> Option<String> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        Some(format!("directory {} does not exist", dir.display()))
    } else if let Err(e) = access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        Some(format!("directory {} is not writable: {e}", dir.display()))
    } else if file.exists() {
        access(file, Access::READ_OK | Access::WRITE_OK)
            .err()
            .map(|e| format!("{} is not writable: {e}", file.display()))
    } else {
        None
    }
}
