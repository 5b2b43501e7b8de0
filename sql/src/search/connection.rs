//! One connection that reads, whatever the database: its settings, and rows as it gives them.
//!
//! After a statement that was given up it is not used again.

use super::clause::{Clause, Dialect, Parameter};
use super::{Order, Row, VIEWS, columns};
use crate::location::Kind;
use crate::mysql::bytes;
use crate::postgres::types::Inet;
use crate::read::{from_mysql, from_postgres, from_sqlite, objects, open_file};
use crate::remote::limited;
use crate::{Location, StoreError, schema};
use serde_json::{Map, Value};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is left to the database server to end a statement by itself, before we give up its connection.
const GRACE: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    inner: Inner,
    log: PathBuf,
    patience: Duration,
}

enum Inner {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
    MySql(Box<MySqlConnection>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// Binds parameters to a query, each kind as the database takes it.
macro_rules! bind {
    ($query:expr, $clause:expr, $address:ident => $as:expr) => {{
        let mut query = $query;
        for parameter in $clause.parameters() {
            query = match parameter {
                Parameter::Int(value) => query.bind(*value),
                Parameter::Text(text) => query.bind(text.as_str()),
                Parameter::Addr($address) => query.bind($as),
            };
        }
        query
    }};
}

impl Connection {
    pub(super) async fn open(location: &Location, patience: Duration) -> Result<Self, StoreError> {
        let log = location.name();
        let unreachable = |source| StoreError::from_connect(&log, source);
        let inner = match &location.kind {
            Kind::Sqlite(path) => Inner::Sqlite(Box::new(open_file(path).await?)),
            Kind::Postgres(options) => {
                let settings = format!(
                    "SET default_transaction_read_only = on; SET timezone = 'UTC'; SET statement_timeout = {}; \
                     SET plan_cache_mode = force_custom_plan; SET jit = off; SET tcp_keepalives_idle = 10; \
                     SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3",
                    patience.as_millis().max(1)
                );
                let open = Box::pin(async {
                    let options = options.as_ref().clone().application_name("nulog");
                    let mut connection = options.connect().await.map_err(unreachable)?;
                    let set = sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection);
                    set.await.map_err(unreachable)?;
                    schema::expect_current(&mut connection, &log).await?;
                    Ok(connection)
                });
                Inner::Postgres(Box::new(limited(&log, location.connect_timeout, open).await?))
            }
            Kind::MySql(options) => {
                // The comment is MariaDB's alone, by its form.
                let settings = format!(
                    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; \
                     SET SESSION autocommit = 1 /*M! , max_statement_time = {} */",
                    patience.as_secs_f64()
                );
                let open = Box::pin(async {
                    let mut connection = options.connect().await.map_err(unreachable)?;
                    let set = sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection);
                    set.await.map_err(unreachable)?;
                    schema::expect_current(&mut connection, &log).await?;
                    Ok(connection)
                });
                Inner::MySql(Box::new(limited(&log, location.connect_timeout, open).await?))
            }
        };
        Ok(Self { inner, log, patience })
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.inner {
            Inner::Sqlite(_) => Dialect::Sqlite,
            Inner::Postgres(_) => Dialect::Postgres,
            Inner::MySql(_) => Dialect::MySql,
        }
    }

    /// Whether the order of addresses is one that statements know.
    pub(super) fn compares_addresses(&self) -> bool {
        self.dialect() != Dialect::Sqlite
    }

    /// The first and the last second of which there are rows.
    pub(super) async fn extent(&mut self) -> Result<Option<(i64, i64)>, StoreError> {
        let mut extent: Option<(i64, i64)> = None;
        let dialect = self.dialect();
        for view in VIEWS {
            let text = format!("SELECT min(oob_time_sec) AS a FROM {view} AS c");
            let first = self.objects(text, &Clause::new(dialect)).await?;
            let text = format!("SELECT max(oob_time_sec) AS a FROM {view} AS c");
            let last = self.objects(text, &Clause::new(dialect)).await?;
            let number = |found: &[Map<String, Value>]| found.first()?.get("a")?.as_i64();
            if let (Some(first), Some(last)) = (number(&first), number(&last)) {
                let (earliest, latest) = extent.unwrap_or((first, last));
                extent = Some((earliest.min(first), latest.max(last)));
            }
        }
        Ok(extent)
    }

    /// The first rows of a view, in the order of time.
    pub(super) async fn rows(
        &mut self,
        view: &str,
        clause: &Clause,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let found = self
            .objects(statement(view, clause, order, limit), clause)
            .await?;
        found
            .into_iter()
            .map(|values| {
                Row::new(values).ok_or_else(|| StoreError::Corrupt {
                    path: self.log.clone(),
                    message: format!("a row of {view} has no time or no id"),
                })
            })
            .collect()
    }

    pub(super) async fn objects(
        &mut self,
        text: String,
        clause: &Clause,
    ) -> Result<Vec<Map<String, Value>>, StoreError> {
        let log = self.log.clone();
        let text = AssertSqlSafe(text);
        match &mut self.inner {
            Inner::Sqlite(connection) => {
                let query = bind!(sqlx::query(text), clause, address => address.to_string());
                let rows = query.fetch_all(&mut **connection).await;
                objects(rows, from_sqlite).map_err(|source| StoreError::from_sqlx(&log, source))
            }
            Inner::Postgres(connection) => {
                let query = bind!(sqlx::query(text), clause, address => Inet(*address));
                let rows = query.fetch_all(&mut **connection);
                let rows = limited(&log, self.patience + GRACE, async { Ok(rows.await) }).await?;
                objects(rows, from_postgres).map_err(|source| error(&log, source, self.patience))
            }
            Inner::MySql(connection) => {
                let query = bind!(sqlx::query(text), clause, address => bytes(*address));
                let rows = query.fetch_all(&mut **connection);
                let rows = limited(&log, self.patience + GRACE, async { Ok(rows.await) }).await?;
                objects(rows, from_mysql).map_err(|source| error(&log, source, self.patience))
            }
        }
    }
}

/// What a server says; that a statement took too long is no fault of the connection.
fn error(log: &Path, source: sqlx::Error, limit: Duration) -> StoreError {
    let code = source
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    // PostgreSQL's query_canceled, MariaDB's query interrupted.
    if matches!(code.as_deref(), Some("57014" | "70100")) {
        return StoreError::TimedOut {
            log: log.to_path_buf(),
            limit,
        };
    }
    StoreError::from_server(log, source)
}

pub(super) fn statement(view: &str, clause: &Clause, order: Order, limit: usize) -> String {
    let columns = columns::list(clause.dialect());
    let conditions = clause.conditions();
    let order = match order {
        Order::NewestFirst => "c.oob_time_sec DESC, c.oob_time_usec DESC, c.id DESC",
        Order::OldestFirst => "c.oob_time_sec, c.oob_time_usec, c.id",
    };
    format!("SELECT {columns} FROM {view} AS c{conditions} ORDER BY {order} LIMIT {limit}")
}
