//! Reads the log: what the server needs at its start, and rows as JSON for people and programs.
//!
//! [`Reader`] opens the file read-only and may run beside the server; its transactions are single short statements.

use crate::change::{ActiveRow, Binding, State, Translated};
use crate::columns::Direction;
use crate::{Location, Store, StoreError, schema, statements};
use nufw_proto::{BootId, ConnId, EventSeq, Mark, Timestamp};
use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Column as _, ConnectOptions as _, Connection as _, Row as _, TypeInfo as _, ValueRef as _};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Store {
    /// Every row in state OPEN or ESTABLISHED, of all gateways, in the order of their ids.
    pub async fn active_rows(&mut self) -> Result<Vec<ActiveRow>, StoreError> {
        self.clean_up().await;
        let rows = sqlx::query(statements::ACTIVE).fetch_all(&mut self.writer).await;
        let rows = rows.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let mut gateways = HashMap::new();
        rows.iter()
            .map(|row| active_row(row, &mut gateways).map_err(|error| error.at(&self.path)))
            .collect()
    }

    /// Up to where each gateway's events are in the log: its last boot, and the last event of it.
    pub async fn acknowledged(&mut self) -> Result<HashMap<Arc<str>, (BootId, EventSeq)>, StoreError> {
        self.clean_up().await;
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT name, boot, acknowledged FROM gateways WHERE boot IS NOT NULL AND acknowledged IS NOT NULL",
        )
        .fetch_all(&mut self.writer)
        .await
        .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        rows.into_iter()
            .map(
                |(name, boot, acknowledged)| match (boot.parse(), u64::try_from(acknowledged)) {
                    (Ok(boot), Ok(seq)) => Ok((Arc::from(name), (BootId(boot), EventSeq(seq)))),
                    _ => Err(StoreError::Corrupt {
                        path: self.path.clone(),
                        message: format!("the acknowledged events of gateway {name} are not numbers"),
                    }),
                },
            )
            .collect()
    }
}

/// A row that the database gave, but that cannot be one of ours.
enum RowError {
    Sql(sqlx::Error),
    Value { id: i64, what: &'static str },
}

impl From<sqlx::Error> for RowError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl RowError {
    fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Sql(source) => StoreError::from_sqlx(path, source),
            Self::Value { id, what } => StoreError::Corrupt {
                path: path.to_path_buf(),
                message: format!("row {id} of conntrack_ulog has an impossible {what}"),
            },
        }
    }
}

fn active_row(row: &SqliteRow, gateways: &mut HashMap<String, Arc<str>>) -> Result<ActiveRow, RowError> {
    let raw_id: i64 = row.try_get("id")?;
    let bad = |what| RowError::Value { id: raw_id, what };
    let id = u64::try_from(raw_id)
        .ok()
        .and_then(|id| ConnId::try_from(id).ok())
        .ok_or(bad("id"))?;
    let gateway: &str = row.try_get("gateway")?;
    let gateway = if let Some(known) = gateways.get(gateway) {
        Arc::clone(known)
    } else {
        let new: Arc<str> = Arc::from(gateway);
        gateways.insert(gateway.to_owned(), Arc::clone(&new));
        new
    };
    let seconds: i64 = row.try_get("oob_time_sec")?;
    let micros: i64 = row.try_get("oob_time_usec")?;
    let number = |column: &'static str| -> Result<Option<i64>, RowError> { Ok(row.try_get(column)?) };
    let mark = |column: &'static str| -> Result<Option<Mark>, RowError> {
        number(column)?
            .map(|mark| u32::try_from(mark).map(Mark).map_err(|_| bad(column)))
            .transpose()
    };
    let protocol: i64 = row.try_get("ip_protocol")?;
    let original = Direction {
        protocol,
        src: row.try_get("ip_saddr")?,
        dst: row.try_get("ip_daddr")?,
        sport: number("sport")?,
        dport: number("dport")?,
        icmp: [number("icmp_type")?, number("icmp_code")?, number("icmp_id")?],
    };
    let reply_source: &str = row
        .try_get::<Option<&str>, _>("reply_saddr")?
        .ok_or(bad("reply_saddr"))?;
    let reply_sport = number("reply_sport")?;
    let translated = match number("ct_id")? {
        Some(ct_id) => {
            let reply = Direction {
                protocol,
                src: reply_source,
                dst: row
                    .try_get::<Option<&str>, _>("reply_daddr")?
                    .ok_or(bad("reply_daddr"))?,
                sport: reply_sport,
                dport: number("reply_dport")?,
                icmp: [
                    number("reply_icmp_type")?,
                    number("reply_icmp_code")?,
                    number("reply_icmp_id")?,
                ],
            };
            Translated::Bound(Binding {
                ct_id: u32::try_from(ct_id).map_err(|_| bad("ct_id"))?,
                ct_mark: mark("ct_mark")?.ok_or(bad("ct_mark"))?,
                original: original.tuple().map_err(bad)?,
                reply: reply.tuple().map_err(bad)?,
            })
        }
        None => Translated::Shown(
            Direction {
                dst: reply_source,
                dport: reply_sport,
                ..original
            }
            .tuple()
            .map_err(bad)?,
        ),
    };
    Ok(ActiveRow {
        id,
        gateway,
        state: match row.try_get::<i64, _>("state")? {
            2 => State::Established,
            _ => State::Open,
        },
        received: Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)),
        zone: number("ct_zone")?
            .and_then(|zone| u16::try_from(zone).ok())
            .ok_or(bad("ct_zone"))?,
        original: original.tuple().map_err(bad)?,
        translated,
        mark: mark("oob_mark")?.ok_or(bad("oob_mark"))?,
        user_id: number("user_id")?
            .map(|id| u64::try_from(id).map_err(|_| bad("user_id")))
            .transpose()?,
    })
}

/// Which rows of the view `connections` to read: those that fit everything that is given.
#[derive(Debug, Clone, Default)]
pub struct RowFilter {
    /// Only rows with a larger id, for reading on.
    pub after: Option<ConnId>,
    /// Only rows in this state.
    pub state: Option<State>,
    /// Only rows of this user.
    pub username: Option<String>,
    /// Only rows with this original source address.
    pub source: Option<nufw_proto::Addr>,
    /// At most this many rows; [`Reader::MAX_ROWS`] without it.
    pub limit: Option<u32>,
}

/// The log, read beside a running server.
pub struct Reader {
    connection: SqliteConnection,
    path: PathBuf,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Rows that are read at once, since all are held in memory.
    pub const MAX_ROWS: u32 = 100_000;

    /// Opens the log read-only; it must exist and have the schema of this version.
    pub async fn open(location: &Location) -> Result<Self, StoreError> {
        let path = location.path().to_path_buf();
        if let Err(error) = std::fs::File::open(&path) {
            return Err(match error.kind() {
                std::io::ErrorKind::NotFound => StoreError::Missing(path),
                _ => StoreError::from_io(&path, &error),
            });
        }
        let mut connection = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .busy_timeout(crate::store::BUSY_TIMEOUT)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|source| StoreError::from_sqlx(&path, source))?;
        schema::expect_current(&mut connection, &path).await?;
        Ok(Self { connection, path })
    }

    /// Rows of the view `connections`, oldest id first, one object a row: keys are the column names; ids are strings,
    /// times RFC 3339 text, and everything else as the database has it.
    pub async fn rows_json(&mut self, filter: &RowFilter) -> Result<Vec<Map<String, Value>>, StoreError> {
        let query = sqlx::query(
            "SELECT * FROM connections WHERE id > ?1 AND (?2 IS NULL OR state = ?2) \
             AND (?3 IS NULL OR username = ?3) AND (?4 IS NULL OR ip_saddr = ?4) ORDER BY id LIMIT ?5",
        )
        .bind(filter.after.map_or(0, ConnId::get))
        .bind(filter.state.map(|state| state as i32))
        .bind(filter.username.as_deref())
        .bind(filter.source.map(|addr| addr.to_string()))
        .bind(filter.limit.unwrap_or(Self::MAX_ROWS).min(Self::MAX_ROWS));
        self.objects(query).await
    }

    /// Rows of `log_gap`, times RFC 3339.
    pub async fn gaps_json(&mut self) -> Result<Vec<Map<String, Value>>, StoreError> {
        let query =
            sqlx::query("SELECT * FROM gaps ORDER BY from_timestamp, id LIMIT ?1").bind(Self::MAX_ROWS);
        self.objects(query).await
    }

    /// Rows of `users`, the client sessions, times RFC 3339.
    pub async fn sessions_json(&mut self) -> Result<Vec<Map<String, Value>>, StoreError> {
        let query = sqlx::query("SELECT * FROM sessions ORDER BY id LIMIT ?1").bind(Self::MAX_ROWS);
        self.objects(query).await
    }

    /// Ends the connection; dropping it does the same without waiting.
    pub async fn close(self) -> Result<(), StoreError> {
        self.connection
            .close()
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    async fn objects(
        &mut self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        let rows = query.fetch_all(&mut self.connection).await;
        rows.and_then(|rows| rows.iter().map(object).collect())
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }
}

/// Columns whose numbers are names of something, so that no reader rounds them.
fn is_id(column: &str) -> bool {
    column == "id" || column.ends_with("_id") && column != "icmp_id" && column != "reply_icmp_id"
}

fn object(row: &SqliteRow) -> Result<Map<String, Value>, sqlx::Error> {
    let mut object = Map::new();
    for column in row.columns() {
        let (name, index) = (column.name(), column.ordinal());
        let raw = row.try_get_raw(index)?;
        let value = if raw.is_null() {
            Value::Null
        } else {
            match raw.type_info().name() {
                "INTEGER" if is_id(name) => Value::from(row.try_get::<i64, _>(index)?.to_string()),
                "INTEGER" => Value::from(row.try_get_unchecked::<i64, _>(index)?),
                "REAL" => Value::from(row.try_get_unchecked::<f64, _>(index)?),
                _ => Value::from(row.try_get_unchecked::<String, _>(index)?),
            }
        };
        object.insert(name.to_owned(), value);
    }
    Ok(object)
}
