//! `[log]`: where it is, what is written to it, and what waits for it.
//!
//! The place is parsed; whether a database is there is found out later.

use super::super::Log;
use super::super::levels::{RawLevels, RawOverload};
use super::Check;
use crate::engine::{self, Levels, OnOverload};
use nufw_common::config::{ByteSize, HumanDuration};
use nulog::{Location, StoreError};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) database: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) connect_timeout: Option<HumanDuration>,
    pub(super) transaction_timeout: Option<HumanDuration>,
    pub(super) sync: Option<bool>,
    pub(super) on_database_loss: Option<String>,
    pub(super) spool: Option<PathBuf>,
    pub(super) spool_limit: Option<ByteSize>,
    pub(super) stall_after: Option<HumanDuration>,
    pub(super) levels: Option<RawLevels>,
    pub(super) commit_timeout: Option<HumanDuration>,
    pub(super) on_overload: Option<RawOverload>,
    pub(super) adopt: Option<bool>,
}

impl Check<'_> {
    pub(super) fn log(&mut self, raw: &RawLog) -> Option<Log> {
        let text = raw.database.as_deref().unwrap_or("sqlite:/var/lib/nufw/nulog.db");
        let location = Location::parse(text).and_then(|location| match location.file() {
            Some(file) if file.is_relative() => {
                Location::parse(&format!("sqlite:{}", self.path(file).display()))
            }
            _ => Ok(location),
        });
        let database = match location {
            Ok(location) => location,
            Err(error) => {
                // It may hold a password.
                let shown = match error {
                    StoreError::Location(shown) => shown,
                    _ => String::new(),
                };
                self.reject(
                    "log.database",
                    format_args!("string \"{shown}\""),
                    "a place such as \"sqlite:/var/lib/nufw/nulog.db\", \"postgres://user@host/database\" or \
                     \"mysql://user@host/database\"",
                );
                return None;
            }
        };
        let connect = self.duration(
            "log.connect-timeout",
            raw.connect_timeout,
            nulog::CONNECT_TIMEOUT,
            1..=60,
        );
        let transaction = self.duration(
            "log.transaction-timeout",
            raw.transaction_timeout,
            nulog::TRANSACTION_TIMEOUT,
            1..=60,
        );
        let mut database = database.with_timeouts(connect, transaction);
        if let Some(file) = &raw.password_file {
            let file = self.path(file);
            match database.with_password_file(&file) {
                Ok(with_password) => database = with_password,
                Err(error) => {
                    self.reject(
                        "log.password-file",
                        format_args!("{}: {error}", file.display()),
                        "a file whose first line is the password of the database account",
                    );
                    return None;
                }
            }
        }
        let (on_loss, spool) = self.spool(raw, database.file());
        Some(Log {
            database,
            password_file: raw.password_file.as_ref().map(|file| self.path(file)),
            on_loss,
            spool,
        })
    }

    pub(super) fn log_limits(&mut self, raw: &RawLog, defaults: &engine::Limits) -> engine::Limits {
        let levels = raw.levels.as_ref().map_or(Levels::ALL, |raw| {
            raw.check(|key, found, expected| self.reject(key, found, expected))
        });
        engine::Limits {
            log_sync: raw.sync.unwrap_or(true),
            levels,
            commit_timeout: self.duration(
                "log.commit-timeout",
                raw.commit_timeout,
                defaults.commit_timeout,
                1..=60,
            ),
            on_overload: raw.on_overload.map_or(defaults.on_overload, OnOverload::from),
            adopt: raw.adopt.unwrap_or(defaults.adopt),
            ..*defaults
        }
    }
}
