//! Who is behind a live connection, asked from either end of it: one look at the view `sso`.
//!
//! Reads only, through connections that cannot write. When to look again, and for how long, is the caller's business.

use crate::{Location, StoreError, schema};
use nufw_proto::{ConnId, Timestamp, Tuple};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Row as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One statement, a line of the union for each way a row can bear on the answer; of each the newest row. The source's
/// address and port, the destination's, and the protocol are ?1 to ?5; ?6 is the newest row that may still make us wait.
///
/// 0: the original direction, as the client's host and a proxy on the gateway see it.
/// 1: the reply direction, source not translated.
/// 2: the reply direction, source translated.
/// 3: from the same source to the same service, reply side not known yet.
/// 4: from anybody to the same service, reply side not known yet.
///
/// The plus signs keep the planner from another index than the one meant.
const LOOK: &str = "\
    SELECT 0, * FROM (SELECT id, state, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE ip_saddr = ?1 AND sport = ?2 AND ip_daddr = ?3 AND dport = ?4 AND ip_protocol = ?5 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 1, * FROM (SELECT id, state, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE ip_saddr = ?1 AND sport = ?2 AND reply_daddr = ?1 AND reply_dport = ?2 \
      AND reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 2, * FROM (SELECT id, state, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE reply_daddr = ?1 AND reply_dport = ?2 AND (reply_daddr <> ip_saddr OR reply_dport <> sport) \
      AND reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 3, * FROM (SELECT id, state, oob_time_sec, oob_time_usec, NULL, NULL, gateway FROM sso \
      WHERE ip_saddr = ?1 AND sport = ?2 AND state = 1 AND ct_id IS NULL \
      AND +reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 AND +id <= ?6 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 4, * FROM (SELECT id, state, oob_time_sec, oob_time_usec, NULL, NULL, gateway FROM sso \
      WHERE state = 1 AND ct_id IS NULL \
      AND reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 AND id <= ?6 \
      ORDER BY id DESC LIMIT 1)";

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
}

#[derive(Debug, Clone)]
struct Sqlite {
    pool: SqlitePool,
    path: PathBuf,
    /// Device and inode: a log that was replaced must not be answered from.
    identity: (u64, u64),
}

impl Lookup {
    /// Opens the log read-only; it must exist and have the schema of this version.
    pub async fn open(location: &Location, options: LookupOptions) -> Result<Self, StoreError> {
        Ok(Self {
            backend: Backend::Sqlite(Sqlite::open(location, options).await?),
        })
    }

    /// Looks once for the connection with this tuple, in either direction. A transport without ports finds nothing.
    ///
    /// `newest` bounds which rows can cast doubt: a row that came after the question was asked is not what it was about.
    pub async fn look(&self, tuple: &Tuple, newest: Option<ConnId>) -> Result<Look, StoreError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.look(tuple, newest).await,
        }
    }

    /// Ends the connections, when those that are used are free.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.pool.close().await,
        }
    }
}

impl Sqlite {
    async fn open(location: &Location, options: LookupOptions) -> Result<Self, StoreError> {
        let path = location
            .file()
            .ok_or_else(|| StoreError::Location(location.to_string()))?
            .to_path_buf();
        let file = std::fs::File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::Missing(path.clone()),
            _ => StoreError::from_io(&path, &error),
        })?;
        let metadata = file
            .metadata()
            .map_err(|error| StoreError::from_io(&path, &error))?;
        let connect = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .pragma("query_only", "ON")
            .busy_timeout(crate::store::BUSY_TIMEOUT)
            .disable_statement_logging();
        let error = |source| StoreError::from_sqlx(&path, source);
        let pool = SqlitePoolOptions::new()
            .max_connections(options.connections)
            .min_connections(options.connections)
            .acquire_timeout(options.patience)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(connect)
            .await
            .map_err(error)?;
        let mut connection = pool.acquire().await.map_err(error)?;
        schema::expect_current(&mut *connection, &path).await?;
        drop(connection);
        Ok(Self {
            pool,
            path,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    async fn look(&self, tuple: &Tuple, newest: Option<ConnId>) -> Result<Look, StoreError> {
        self.expect_file()?;
        let Some(ports) = tuple.transport().ports() else {
            return Ok(Look {
                row: None,
                doubt: None,
            });
        };
        let rows = sqlx::query(LOOK)
            .bind(tuple.src().to_string())
            .bind(i64::from(ports.src))
            .bind(tuple.dst().to_string())
            .bind(i64::from(ports.dst))
            .bind(i64::from(tuple.protocol()))
            .bind(newest.map_or(i64::MAX, ConnId::get))
            .fetch_all(&self.pool)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let found: Result<Vec<Found>, sqlx::Error> = rows.iter().map(Found::read).collect();
        let found = found.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        judge(&found).map_err(|message| StoreError::Corrupt {
            path: self.path.clone(),
            message,
        })
    }

    fn expect_file(&self) -> Result<(), StoreError> {
        let found = std::fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            Ok(())
        } else {
            Err(StoreError::Missing(self.path.clone()))
        }
    }
}

/// One row of [`LOOK`], as any back-end gives it.
struct Found {
    way: i64,
    id: i64,
    received: i64,
    user_id: Option<i64>,
    username: Option<String>,
    gateway: String,
}

impl Found {
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let (seconds, micros): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        Ok(Self {
            way: row.try_get(0)?,
            id: row.try_get(1)?,
            received: seconds.saturating_mul(1_000_000).saturating_add(micros),
            user_id: row.try_get(5)?,
            username: row.try_get(6)?,
            gateway: row.try_get(7)?,
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
    use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

    #[tokio::test]
    async fn every_way_of_a_look_is_served_by_its_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        schema::bring_up_to_date(&mut connection, std::path::Path::new("memory"))
            .await
            .unwrap();
        let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {LOOK}")));
        let plan: Vec<String> = explained
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get("detail"))
            .filter(|detail: &String| detail.contains("conntrack_ulog"))
            .collect();
        let expected = [
            "INDEX sso_source (ip_saddr=? AND <expr>=?)",
            "INDEX sso_source (ip_saddr=? AND <expr>=?)",
            "INDEX sso_translated (reply_daddr=? AND reply_dport=?)",
            "INDEX sso_source (ip_saddr=? AND <expr>=?)",
            "INDEX sso_unbound (reply_saddr=? AND reply_sport=? AND ip_protocol=? AND rowid<?)",
        ];
        assert_eq!(plan.len(), expected.len(), "{plan:#?}");
        for (found, expected) in plan.iter().zip(expected) {
            assert!(found.contains(expected), "{plan:#?}");
        }
    }

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
