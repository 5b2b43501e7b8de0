//! Who is behind a live connection, asked from either end of it: one look at the view `sso`.
//!
//! Reads only, through connections that cannot write. When to look again, and for how long, is the caller's business.

mod mysql;
mod postgres;
mod sqlite;

use crate::Work;
use crate::columns::oob_time;
use crate::location::Kind;
use crate::{Location, StoreError};
#[cfg(test)]
pub(crate) use mysql::LOOK as LOOK_MYSQL;
use mysql::MySql;
use nufw_proto::{Addr, ConnId, Ports, Timestamp, Tuple};
use postgres::Postgres;
#[cfg(test)]
pub(crate) use postgres::{LOOK as LOOK_POSTGRES, SETTINGS as SETTINGS_POSTGRES};
use sqlite::Sqlite;
use sqlx::Row;
use std::sync::Arc;
use std::time::Duration;

/// The direction of a row that a look-up matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// As the client sees it.
    Original,
    /// As the service behind the gateway sees it.
    Reply,
}

/// The newest live row of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRow {
    /// The row's id.
    pub id: ConnId,
    /// The user's number, if the row has a user.
    pub user_id: Option<u64>,
    /// The user's name, if the row has a user.
    pub username: Option<Arc<str>>,
    /// The gateway it passes.
    pub gateway: Arc<str>,
    /// How it was found.
    pub side: Side,
}

/// A row that may be the connection that was asked about: it goes to the same service, is newer than what was found, and
/// the reply side of it is not in the log yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unbound {
    /// The row's id.
    pub id: ConnId,
    /// When the gateway received its first packet.
    pub received: Timestamp,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The newest live row that matches.
    pub row: Option<LiveRow>,
    /// What makes that answer doubtful, for as long as it may still get its reply side.
    pub doubt: Option<Unbound>,
}

/// Which rows can cast doubt on an answer.
#[derive(Debug, Clone, Copy)]
pub struct Doubting {
    /// None that is newer than this: what came after the question is not what it was about.
    pub newest: Option<ConnId>,
    /// None that the gateway received before this: it had the time to get its reply side.
    pub since: Timestamp,
}

/// How a [`Lookup`] connects.
#[derive(Debug, Clone, Copy)]
pub struct LookupOptions {
    /// Connections to the database, each for one look at a time.
    pub connections: u32,
    /// How long a look waits for a free connection.
    pub patience: Duration,
}

/// The log as look-ups read it. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Lookup {
    backend: Backend,
}

#[derive(Debug, Clone)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
    MySql(MySql),
}

/// The same call on whichever back-end it is.
macro_rules! each {
    ($backend:expr, $lookup:ident => $call:expr) => {
        match $backend {
            Backend::Sqlite($lookup) => $call,
            Backend::Postgres($lookup) => $call,
            Backend::MySql($lookup) => $call,
        }
    };
}

impl Lookup {
    /// Opens the log read-only; it must exist and have the schema of this version.
    pub fn open(location: &Location, options: LookupOptions) -> Work<'_, Result<Self, StoreError>> {
        Box::pin(async move {
            let backend = match &location.kind {
                Kind::Sqlite(path) => Backend::Sqlite(Sqlite::open(path, options).await?),
                Kind::Postgres(connect) => {
                    Backend::Postgres(Postgres::open(connect.as_ref(), location, options).await?)
                }
                Kind::MySql(connect) => {
                    Backend::MySql(MySql::open(connect.as_ref(), location, options).await?)
                }
            };
            Ok(Self { backend })
        })
    }

    /// Looks once for the connection with this tuple, in either direction. A transport without ports finds nothing.
    pub fn look<'a>(&'a self, tuple: &'a Tuple, doubting: Doubting) -> Work<'a, Result<Look, StoreError>> {
        Box::pin(async move {
            let Some(Ports { src, dst }) = tuple.transport().ports() else {
                return Ok(Look {
                    row: None,
                    doubt: None,
                });
            };
            let question = Question {
                src: tuple.src(),
                sport: src.into(),
                dst: tuple.dst(),
                dport: dst.into(),
                protocol: tuple.protocol().into(),
                newest: doubting.newest.map_or(i64::MAX, ConnId::get),
                since: oob_time(doubting.since),
            };
            let (found, log) = each!(&self.backend, lookup => (lookup.look(&question).await?, lookup.log()));
            judge(&found).map_err(|message| StoreError::Corrupt {
                path: log.to_path_buf(),
                message,
            })
        })
    }

    /// Ends the connections, when those that are used are free.
    pub fn close(&self) -> Work<'_, ()> {
        Box::pin(async move {
            each!(&self.backend, lookup => lookup.close().await);
        })
    }
}

/// A question as the statements take it.
struct Question {
    src: Addr,
    sport: i32,
    dst: Addr,
    dport: i32,
    protocol: i16,
    newest: i64,
    /// Seconds and microseconds.
    since: (i64, i64),
}

/// One row that bears on the answer, as any back-end gives it, by the way that it bears on it:
///
/// 0: the original direction, as the client's host and a proxy on the gateway see it.
/// 1: the reply direction, source not translated.
/// 2: the reply direction, source translated.
/// 3: from the same source to the same service, reply side not known yet.
/// 4: from anybody to the same service, reply side not known yet.
struct Found {
    way: i64,
    id: i64,
    received: i64,
    user_id: Option<i64>,
    username: Option<String>,
    gateway: String,
}

impl Found {
    /// Reads `way, id, oob_time_sec, oob_time_usec, user_id, username, gateway`.
    fn read<R: Row>(row: &R) -> Result<Self, sqlx::Error>
    where
        usize: sqlx::ColumnIndex<R>,
        for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    {
        let (seconds, micros): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Self {
            way: row.try_get(0)?,
            id: row.try_get(1)?,
            received: seconds.saturating_mul(1_000_000).saturating_add(micros),
            user_id: row.try_get(4)?,
            username: row.try_get(5)?,
            gateway: row.try_get(6)?,
        })
    }

    fn id(&self) -> Result<ConnId, String> {
        u64::try_from(self.id)
            .ok()
            .and_then(|id| ConnId::try_from(id).ok())
            .ok_or_else(|| format!("row {} of conntrack_ulog has an impossible id", self.id))
    }
}

/// The newest match, and what stands against it. The reply side of a translated connection may have been taken over by any
/// newer connection to the same service; a source that is not translated, by its own newer connections alone.
fn judge(found: &[Found]) -> Result<Look, String> {
    let newest = found
        .iter()
        .filter(|found| found.way <= 2)
        .max_by_key(|found| (found.id, std::cmp::Reverse(found.way)));
    let doubting = match newest {
        Some(Found { way: 0 | 1, .. }) => 3,
        _ => 4,
    };
    let doubt = found
        .iter()
        .find(|found| found.way == doubting && newest.is_none_or(|newest| newest.id < found.id))
        .map(|found| {
            Ok::<_, String>(Unbound {
                id: found.id()?,
                received: Timestamp::from_micros(found.received),
            })
        })
        .transpose()?;
    let row = newest.map(|found| {
        let impossible = |what| format!("row {} of conntrack_ulog has an impossible {what}", found.id);
        Ok::<_, String>(LiveRow {
            id: found.id()?,
            user_id: found
                .user_id
                .map(|id| u64::try_from(id).map_err(|_| impossible("user_id")))
                .transpose()?,
            username: found.username.as_deref().map(Arc::from),
            gateway: Arc::from(found.gateway.as_str()),
            side: if found.way == 0 {
                Side::Original
            } else {
                Side::Reply
            },
        })
    });
    Ok(Look {
        row: row.transpose()?,
        doubt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(way: i64, id: i64) -> Found {
        Found {
            way,
            id,
            received: 7,
            user_id: Some(1),
            username: Some("alice".to_owned()),
            gateway: "gw1".to_owned(),
        }
    }

    fn outcome(found: &[Found]) -> (Option<i64>, Option<i64>) {
        let look = judge(found).unwrap();
        (
            look.row.map(|row| row.id.get()),
            look.doubt.map(|doubt| doubt.id.get()),
        )
    }

    #[test]
    fn the_newest_match_is_the_only_answer() {
        assert_eq!(outcome(&[found(0, 5), found(1, 9), found(2, 7)]), (Some(9), None));
        assert_eq!(outcome(&[]), (None, None));
        // A connection without translation matches both ways.
        let plain = judge(&[found(0, 5), found(1, 5)]).unwrap();
        assert_eq!(plain.row.unwrap().side, Side::Original);
    }

    #[test]
    fn a_newer_connection_without_its_reply_side_casts_doubt_where_it_can_have_taken_the_place() {
        assert_eq!(outcome(&[found(2, 5), found(4, 9)]), (Some(5), Some(9)));
        assert_eq!(outcome(&[found(2, 5), found(4, 4)]), (Some(5), None));
        // An untranslated source belongs to one host: others' connections do not bear on it.
        assert_eq!(outcome(&[found(0, 5), found(4, 9)]), (Some(5), None));
        assert_eq!(
            outcome(&[found(1, 5), found(3, 9), found(4, 9)]),
            (Some(5), Some(9))
        );
        assert_eq!(outcome(&[found(4, 9)]), (None, Some(9)));
    }
}
