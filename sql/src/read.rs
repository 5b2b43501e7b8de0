//! Reads the log beside a running server: rows as JSON for people and programs, the same whatever the database.
//!
//! Nothing is written: a file is opened read-only, and on a server every transaction is. Transactions are single short
//! statements.

use crate::Work;
use crate::change::State;
use crate::location::Kind;
use crate::remote::limited;
use crate::{Location, StoreError, schema};
use nufw_proto::ConnId;
use serde_json::{Map, Value};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Row as _, TypeInfo as _, ValueRef as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement may take on a database server.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(1);

/// The columns of the view `connections`, in its order.
const CONNECTIONS: &str = "id, state, @oob_time, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, \
     ip_protocol, #ip_saddr, #ip_daddr, sport, dport, tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code, \
     icmp_id, user_id, username, client_os, client_app, @start_timestamp, @end_timestamp, duration, packets_in, \
     packets_out, bytes_in, bytes_out, #reply_saddr, #reply_daddr, reply_sport, reply_dport, reply_icmp_type, \
     reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, \
     policy, auth";
/// Those of `gaps`.
const GAPS: &str = "id, gateway, @from_timestamp, @to_timestamp, cause, count";
/// Those of `sessions`.
const SESSIONS: &str = "id, user_id, username, #ip_saddr, os_sysname, os_release, os_version, @start_time, @end_time, \
     duration, end_reason";

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
    connection: Connection,
    log: PathBuf,
}

enum Connection {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
    MySql(Box<MySqlConnection>),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Rows that are read at once, since all are held in memory.
    pub const MAX_ROWS: u32 = 100_000;

    /// Opens the log for reading; it must exist and have the schema of this version.
    pub fn open(location: &Location) -> Work<'_, Result<Self, StoreError>> {
        Box::pin(async move {
            let log = location.name();
            let connection = match &location.kind {
                Kind::Sqlite(path) => Connection::Sqlite(Box::new(open_file(path).await?)),
                Kind::Postgres(options) => {
                    let open = connect_postgres(options, &log);
                    Connection::Postgres(Box::new(limited(&log, location.connect_timeout, open).await?))
                }
                Kind::MySql(options) => {
                    let open = connect_mysql(options, &log);
                    Connection::MySql(Box::new(limited(&log, location.connect_timeout, open).await?))
                }
            };
            Ok(Self { connection, log })
        })
    }

    /// Rows of the view `connections`, oldest id first, one object a row: keys are the column names; ids are strings,
    /// times RFC 3339 text, and everything else as the database has it.
    pub fn rows_json<'a>(
        &'a mut self,
        filter: &'a RowFilter,
    ) -> Work<'a, Result<Vec<Map<String, Value>>, StoreError>> {
        Box::pin(async move {
            let after = filter.after.map_or(0, ConnId::get);
            let state = filter.state.map(|state| state as i16);
            let user = filter.username.as_deref();
            let source = filter.source.map(|addr| addr.to_string());
            let limit = i64::from(filter.limit.unwrap_or(Self::MAX_ROWS).min(Self::MAX_ROWS));
            match &mut self.connection {
                Connection::Sqlite(connection) => {
                    let query = sqlx::query(
                        "SELECT * FROM connections WHERE id > ?1 AND (?2 IS NULL OR state = ?2) \
                     AND (?3 IS NULL OR username = ?3) AND (?4 IS NULL OR ip_saddr = ?4) ORDER BY id LIMIT ?5",
                    );
                    let query = query.bind(after).bind(state).bind(user).bind(source).bind(limit);
                    let rows = query.fetch_all(&mut **connection).await;
                    self.objects(rows, StoreError::from_sqlx, from_sqlite)
                }
                Connection::Postgres(connection) => {
                    let text = format!(
                        "SELECT {} FROM connections AS c WHERE id > $1 AND ($2::int2 IS NULL OR state = $2) \
                     AND ($3::text IS NULL OR username = $3) AND ($4::text IS NULL OR ip_saddr = $4::inet) \
                     ORDER BY id LIMIT $5",
                        for_postgres(CONNECTIONS)
                    );
                    let query = sqlx::query(AssertSqlSafe(text));
                    let query = query.bind(after).bind(state).bind(user).bind(source).bind(limit);
                    let rows = within(&self.log, query.fetch_all(&mut **connection)).await?;
                    self.objects(rows, StoreError::from_server, from_postgres)
                }
                Connection::MySql(connection) => {
                    let text = format!(
                        "SELECT {} FROM connections AS c WHERE id > ? AND (? IS NULL OR state = ?) \
                     AND (? IS NULL OR username = ?) AND (? IS NULL OR ip_saddr = ?) ORDER BY id LIMIT ?",
                        for_mysql(CONNECTIONS)
                    );
                    let query = sqlx::query(AssertSqlSafe(text)).bind(after);
                    let query = query.bind(state).bind(state).bind(user).bind(user);
                    let query = query.bind(source.clone()).bind(source).bind(limit);
                    let rows = within(&self.log, query.fetch_all(&mut **connection)).await?;
                    self.objects(rows, StoreError::from_server, from_mysql)
                }
            }
        })
    }

    /// Rows of `log_gap`, times RFC 3339.
    pub fn gaps_json(&mut self) -> Work<'_, Result<Vec<Map<String, Value>>, StoreError>> {
        Box::pin(async move { self.all(GAPS, "gaps", "from_timestamp, id").await })
    }

    /// Rows of `users`, the client sessions, times RFC 3339.
    pub fn sessions_json(&mut self) -> Work<'_, Result<Vec<Map<String, Value>>, StoreError>> {
        Box::pin(async move { self.all(SESSIONS, "sessions", "id").await })
    }

    async fn all(
        &mut self,
        columns: &str,
        view: &str,
        order: &str,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        let columns = match &self.connection {
            Connection::Sqlite(_) => "*".to_owned(),
            Connection::Postgres(_) => for_postgres(columns),
            Connection::MySql(_) => for_mysql(columns),
        };
        let order: Vec<_> = order.split(", ").map(|column| format!("c.{column}")).collect();
        let text = format!(
            "SELECT {columns} FROM {view} AS c ORDER BY {} LIMIT {}",
            order.join(", "),
            Self::MAX_ROWS
        );
        let text = AssertSqlSafe(text);
        match &mut self.connection {
            Connection::Sqlite(connection) => {
                let rows = sqlx::query(text).fetch_all(&mut **connection).await;
                self.objects(rows, StoreError::from_sqlx, from_sqlite)
            }
            Connection::Postgres(connection) => {
                let rows = within(&self.log, sqlx::query(text).fetch_all(&mut **connection)).await?;
                self.objects(rows, StoreError::from_server, from_postgres)
            }
            Connection::MySql(connection) => {
                let rows = within(&self.log, sqlx::query(text).fetch_all(&mut **connection)).await?;
                self.objects(rows, StoreError::from_server, from_mysql)
            }
        }
    }

    /// Ends the connection; dropping it does the same without waiting.
    pub fn close(self) -> Work<'static, Result<(), StoreError>> {
        Box::pin(async move {
            match self.connection {
                Connection::Sqlite(connection) => connection
                    .close()
                    .await
                    .map_err(|source| StoreError::from_sqlx(&self.log, source)),
                Connection::Postgres(connection) => within(&self.log, connection.close())
                    .await?
                    .map_err(|source| StoreError::from_server(&self.log, source)),
                Connection::MySql(connection) => within(&self.log, connection.close())
                    .await?
                    .map_err(|source| StoreError::from_server(&self.log, source)),
            }
        })
    }

    fn objects<R: sqlx::Row>(
        &self,
        rows: Result<Vec<R>, sqlx::Error>,
        error: fn(&Path, sqlx::Error) -> StoreError,
        value: fn(&R, usize, &str) -> Result<Value, sqlx::Error>,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        objects(rows, value).map_err(|source| error(&self.log, source))
    }
}

/// One object a row, its keys the names of the columns.
pub(crate) fn objects<R: sqlx::Row>(
    rows: Result<Vec<R>, sqlx::Error>,
    value: fn(&R, usize, &str) -> Result<Value, sqlx::Error>,
) -> Result<Vec<Map<String, Value>>, sqlx::Error> {
    let object = |row: &R| {
        let columns = row.columns().iter();
        let values = columns.map(|column| {
            let value = value(row, column.ordinal(), column.name())?;
            Ok((column.name().to_owned(), value))
        });
        values.collect()
    };
    rows?.iter().map(object).collect()
}

/// A connection on which every transaction is read-only.
pub(crate) async fn connect_postgres(
    options: &PgConnectOptions,
    log: &Path,
) -> Result<PgConnection, StoreError> {
    let connected = options.connect().await;
    let mut connection = connected.map_err(|source| StoreError::from_connect(log, source))?;
    let limit = STATEMENT_TIMEOUT.as_millis();
    let settings = format!(
        "SET default_transaction_read_only = on; SET timezone = 'UTC'; SET statement_timeout = {limit}"
    );
    sqlx::raw_sql(AssertSqlSafe(settings))
        .execute(&mut connection)
        .await
        .map_err(|source| StoreError::from_server(log, source))?;
    schema::expect_current(&mut connection, log).await?;
    Ok(connection)
}

/// The same on MySQL.
pub(crate) async fn connect_mysql(
    options: &MySqlConnectOptions,
    log: &Path,
) -> Result<MySqlConnection, StoreError> {
    let connected = options.connect().await;
    let mut connection = connected.map_err(|source| StoreError::from_connect(log, source))?;
    sqlx::raw_sql("SET SESSION TRANSACTION READ ONLY")
        .execute(&mut connection)
        .await
        .map_err(|source| StoreError::from_server(log, source))?;
    schema::expect_current(&mut connection, log).await?;
    Ok(connection)
}

/// Opens a file to read from it alone.
pub(crate) async fn open_file(path: &Path) -> Result<SqliteConnection, StoreError> {
    if let Err(error) = std::fs::File::open(path) {
        return Err(match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::Missing(path.to_path_buf()),
            _ => StoreError::from_io(path, &error),
        });
    }
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(crate::store::BUSY_TIMEOUT)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|source| StoreError::from_sqlx(path, source))?;
    schema::expect_current(&mut connection, path).await?;
    Ok(connection)
}

/// Bounds a statement on a server.
async fn within<T>(log: &Path, query: impl Future<Output = T>) -> Result<T, StoreError> {
    limited(log, STATEMENT_TIMEOUT, async { Ok(query.await) }).await
}

/// The columns as `PostgreSQL` gives them: `@` marks a time, `#` an address; both become text.
pub(crate) fn for_postgres(columns: &str) -> String {
    spell(columns, |name, kind| match kind {
        '@' => format!("to_char(c.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}"),
        _ => format!("host(c.{name}) AS {name}"),
    })
}

/// The columns as MySQL gives them.
pub(crate) fn for_mysql(columns: &str) -> String {
    spell(columns, |name, kind| match kind {
        '@' => format!("date_format(c.{name}, '%Y-%m-%dT%H:%i:%s.%fZ') AS {name}"),
        _ => format!("c.{name}"),
    })
}

fn spell(columns: &str, special: impl Fn(&str, char) -> String) -> String {
    let spelled = columns.split(", ").map(|column| {
        let mut rest = column.chars();
        match rest.next() {
            Some(kind @ ('@' | '#')) => special(rest.as_str(), kind),
            _ => format!("c.{column}"),
        }
    });
    spelled.collect::<Vec<_>>().join(", ")
}

/// Columns whose numbers are names of something, so that no reader rounds them.
fn is_id(column: &str) -> bool {
    column == "id" || column.ends_with("_id") && column != "icmp_id" && column != "reply_icmp_id"
}

fn number(value: i64, column: &str) -> Value {
    if is_id(column) {
        Value::from(value.to_string())
    } else {
        Value::from(value)
    }
}

pub(crate) fn from_sqlite(row: &SqliteRow, index: usize, name: &str) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().name() {
        "INTEGER" => number(row.try_get_unchecked(index)?, name),
        "REAL" => Value::from(row.try_get_unchecked::<f64, _>(index)?),
        // Whatever was put into a file by hand, it can be shown.
        _ => {
            let text = row.try_get_unchecked::<&[u8], _>(index)?;
            Value::from(String::from_utf8_lossy(text))
        }
    })
}

pub(crate) fn from_postgres(row: &PgRow, index: usize, name: &str) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().name() {
        "INT2" => number(row.try_get::<i16, _>(index)?.into(), name),
        "INT4" => number(row.try_get::<i32, _>(index)?.into(), name),
        "INT8" => number(row.try_get(index)?, name),
        "FLOAT8" => Value::from(row.try_get::<f64, _>(index)?),
        _ => Value::from(row.try_get::<String, _>(index)?),
    })
}

pub(crate) fn from_mysql(row: &MySqlRow, index: usize, name: &str) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    Ok(match raw.type_info().name() {
        "TINYINT" | "SMALLINT" | "INT" | "BIGINT" => number(row.try_get_unchecked(index)?, name),
        "DOUBLE" => Value::from(row.try_get_unchecked::<f64, _>(index)?),
        _ => Value::from(row.try_get_unchecked::<String, _>(index)?),
    })
}
