//! The live connections as a viewer reads them, again and again, beside a running server.
//!
//! Reads only, through the view `live`, a page by id at a time: every statement is a transaction of its own, and between two
//! reads nothing is held. On a file of `SQLite` not even a connection is, since a reader that stays keeps the write-ahead log
//! from being emptied.

use crate::Work;
use crate::location::Kind;
use crate::remote::limited;
use crate::{Location, StoreError, read};
use nufw_proto::Timestamp;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ColumnIndex, Connection as _, Decode, Row};
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Rows of one statement.
const PAGE: u32 = 2_000;

/// What is read of the view, in the order of [`Columns`]; `@` marks a time, `#` an address.
const COLUMNS: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, #ip_saddr, \
     #ip_daddr, sport, dport, icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, @start_timestamp, \
     packets_in, packets_out, bytes_in, bytes_out, #reply_saddr, #reply_daddr, reply_sport, reply_dport, gateway, ct_id, \
     ct_mark, ct_zone, acl, phys_in, phys_out";

/// A row in state OPEN or ESTABLISHED, as the view `live` shows it; one that passed unasked has no user. A number that cannot be what its column
/// says, as after a change by hand, is as unknown as NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the columns")]
pub struct LiveConnection {
    pub id: i64,
    pub state: u8,
    /// When the gateway received its first packet (`oob_time_sec`, `oob_time_usec`).
    pub received: Timestamp,
    pub oob_prefix: Option<String>,
    pub oob_mark: Option<u32>,
    pub oob_in: Option<String>,
    pub oob_out: Option<String>,
    pub ip_protocol: u8,
    pub ip_saddr: String,
    pub ip_daddr: String,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    pub icmp_type: Option<u8>,
    pub icmp_code: Option<u8>,
    pub icmp_id: Option<u16>,
    pub user_id: Option<u64>,
    pub username: Option<String>,
    pub client_os: Option<String>,
    pub client_app: Option<String>,
    /// When the server answered.
    pub start_timestamp: Option<Timestamp>,
    pub packets_in: Option<u64>,
    pub packets_out: Option<u64>,
    pub bytes_in: Option<u64>,
    pub bytes_out: Option<u64>,
    pub reply_saddr: Option<String>,
    pub reply_daddr: Option<String>,
    pub reply_sport: Option<u16>,
    pub reply_dport: Option<u16>,
    pub gateway: String,
    pub ct_id: Option<u32>,
    pub ct_mark: Option<u32>,
    pub ct_zone: Option<u16>,
    pub acl: Option<String>,
    pub phys_in: Option<String>,
    pub phys_out: Option<String>,
}

/// What one read came to: the connections with the largest ids first.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// The connections.
    pub connections: Vec<LiveConnection>,
    /// Whether there are more than were asked for.
    pub cut: bool,
}

/// The live connections of a log.
pub struct Live {
    location: Location,
    program: String,
    connection: Option<Connection>,
}

enum Connection {
    Postgres(Box<PgConnection>),
    MySql(Box<MySqlConnection>),
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("log", &self.location)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Rows that are read at once at most, since all are held in memory.
    pub const MAX_ROWS: u32 = 100_000;

    /// Of this log; nothing is opened before the first read. `program` is the name that a `PostgreSQL` server shows.
    pub fn new(location: Location, program: &str) -> Self {
        Self {
            location,
            program: program.to_owned(),
            connection: None,
        }
    }

    /// Reads at most `limit` connections. After an error the next read connects anew.
    pub fn read(&mut self, limit: u32) -> Work<'_, Result<Picture, StoreError>> {
        Box::pin(async move {
            let limit = limit.clamp(1, Self::MAX_ROWS);
            let log = self.location.name();
            match &self.location.kind {
                Kind::Sqlite(path) => read_file(path, limit).await,
                Kind::Postgres(_) | Kind::MySql(_) => {
                    // Gone until it has served: an error, or a caller that gives up, leaves nothing in doubt behind.
                    let connection = match self.connection.take() {
                        Some(connection) => connection,
                        None => self.connect(&log).await?,
                    };
                    let (picture, connection) = limited(
                        &log,
                        self.location.transaction_timeout,
                        connection.read(&log, limit),
                    )
                    .await?;
                    self.connection = Some(connection);
                    Ok(picture)
                }
            }
        })
    }

    async fn connect(&self, log: &Path) -> Result<Connection, StoreError> {
        let connect = async {
            match &self.location.kind {
                Kind::Postgres(options) => {
                    let options = options.as_ref().clone().application_name(&self.program);
                    let connection = read::connect_postgres(&options, log).await?;
                    Ok(Some(Connection::Postgres(Box::new(connection))))
                }
                Kind::MySql(options) => {
                    let connection = read::connect_mysql(options, log).await?;
                    Ok(Some(Connection::MySql(Box::new(connection))))
                }
                Kind::Sqlite(_) => Ok(None),
            }
        };
        let connected = limited(log, self.location.connect_timeout, connect).await?;
        connected.ok_or_else(|| StoreError::Missing(log.to_path_buf()))
    }
}

impl Connection {
    async fn read(mut self, log: &Path, limit: u32) -> Result<(Picture, Self), StoreError> {
        let mut pages = Pages::new(limit);
        while let Some((before, rows)) = pages.next() {
            let page: Result<Vec<_>, sqlx::Error> = match &mut self {
                Self::Postgres(connection) => {
                    let text = statement(&read::for_postgres(COLUMNS), "$1", "$2");
                    let query = sqlx::query(AssertSqlSafe(text)).bind(before).bind(rows);
                    let rows = query.fetch_all(&mut **connection).await;
                    rows.and_then(|rows| rows.iter().map(decode).collect())
                }
                Self::MySql(connection) => {
                    let text = statement(&read::for_mysql(COLUMNS), "?", "?");
                    let query = sqlx::query(AssertSqlSafe(text)).bind(before).bind(rows);
                    let rows = query.fetch_all(&mut **connection).await;
                    rows.and_then(|rows| rows.iter().map(decode).collect())
                }
            };
            pages.add(page.map_err(|source| StoreError::from_server(log, source))?);
        }
        Ok((pages.done(), self))
    }
}

async fn read_file(path: &Path, limit: u32) -> Result<Picture, StoreError> {
    let error = |source| StoreError::from_sqlx(path, source);
    let mut connection = read::open_file(path).await?;
    let mut pages = Pages::new(limit);
    while let Some((before, rows)) = pages.next() {
        let text = statement(&COLUMNS.replace(['@', '#'], ""), "?1", "?2");
        let query = sqlx::query(AssertSqlSafe(text)).bind(before).bind(rows);
        let rows = query.fetch_all(&mut connection).await.map_err(error)?;
        let page: Result<Vec<_>, _> = rows.iter().map(decode).collect();
        pages.add(page.map_err(error)?);
    }
    connection.close().await.map_err(error)?;
    Ok(pages.done())
}

fn statement(columns: &str, before: &str, rows: &str) -> String {
    format!("SELECT {columns} FROM live AS c WHERE id < {before} ORDER BY id DESC LIMIT {rows}")
}

/// Where a read is: from the largest id down, one row more than is wanted, which tells whether there are more.
struct Pages {
    found: Vec<LiveConnection>,
    wanted: usize,
    before: i64,
    ended: bool,
}

impl Pages {
    fn new(limit: u32) -> Self {
        Self {
            found: Vec::new(),
            wanted: usize::try_from(limit).unwrap_or(usize::MAX),
            before: i64::MAX,
            ended: false,
        }
    }

    /// The id that the next page is below of, and its rows.
    fn next(&self) -> Option<(i64, i64)> {
        let missing = (self.wanted + 1).saturating_sub(self.found.len());
        let rows = i64::try_from(missing).unwrap_or(i64::MAX).min(i64::from(PAGE));
        (!self.ended && rows > 0).then_some((self.before, rows))
    }

    fn add(&mut self, page: Vec<LiveConnection>) {
        let asked = self.next().map_or(0, |(_, rows)| rows);
        self.ended = i64::try_from(page.len()).is_ok_and(|read| read < asked);
        if let Some(last) = page.last() {
            self.before = last.id;
        }
        self.found.extend(page);
    }

    fn done(mut self) -> Picture {
        let cut = self.found.len() > self.wanted;
        self.found.truncate(self.wanted);
        Picture {
            connections: self.found,
            cut,
        }
    }
}

/// The values of a row one after the other.
struct Columns<'a, R: Row> {
    row: &'a R,
    next: usize,
}

impl<R: Row> Columns<'_, R>
where
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database>,
    for<'r> String: Decode<'r, R::Database>,
{
    fn place(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn int(&mut self) -> Result<Option<i64>, sqlx::Error> {
        let place = self.place();
        self.row.try_get_unchecked(place)
    }

    fn number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, sqlx::Error> {
        Ok(self.int()?.and_then(|value| T::try_from(value).ok()))
    }

    fn text(&mut self) -> Result<Option<String>, sqlx::Error> {
        let place = self.place();
        self.row.try_get_unchecked(place)
    }

    fn time(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        let parsed = self
            .text()?
            .and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
        Ok(parsed.and_then(|time| {
            let micros = time.unix_timestamp_nanos().div_euclid(1000);
            i64::try_from(micros).ok().map(Timestamp::from_micros)
        }))
    }
}

fn decode<R: Row>(row: &R) -> Result<LiveConnection, sqlx::Error>
where
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database>,
    for<'r> String: Decode<'r, R::Database>,
{
    let mut columns = Columns { row, next: 0 };
    Ok(LiveConnection {
        id: columns.int()?.unwrap_or_default(),
        state: columns.number()?.unwrap_or_default(),
        received: {
            let (seconds, micros) = (columns.int()?, columns.int()?);
            let seconds = seconds.unwrap_or_default().saturating_mul(1_000_000);
            Timestamp::from_micros(seconds.saturating_add(micros.unwrap_or_default()))
        },
        oob_prefix: columns.text()?,
        oob_mark: columns.number()?,
        oob_in: columns.text()?,
        oob_out: columns.text()?,
        ip_protocol: columns.number()?.unwrap_or_default(),
        ip_saddr: columns.text()?.unwrap_or_default(),
        ip_daddr: columns.text()?.unwrap_or_default(),
        sport: columns.number()?,
        dport: columns.number()?,
        icmp_type: columns.number()?,
        icmp_code: columns.number()?,
        icmp_id: columns.number()?,
        user_id: columns.number()?,
        username: columns.text()?,
        client_os: columns.text()?,
        client_app: columns.text()?,
        start_timestamp: columns.time()?,
        packets_in: columns.number()?,
        packets_out: columns.number()?,
        bytes_in: columns.number()?,
        bytes_out: columns.number()?,
        reply_saddr: columns.text()?,
        reply_daddr: columns.text()?,
        reply_sport: columns.number()?,
        reply_dport: columns.number()?,
        gateway: columns.text()?.unwrap_or_default(),
        ct_id: columns.number()?,
        ct_mark: columns.number()?,
        ct_zone: columns.number()?,
        acl: columns.text()?,
        phys_in: columns.text()?,
        phys_out: columns.text()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;
    use sqlx::SqliteConnection;

    #[tokio::test]
    async fn a_page_is_read_by_the_index_of_live_rows() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        schema::bring_up_to_date(&mut connection, Path::new("memory"))
            .await
            .unwrap();
        let text = statement(&COLUMNS.replace(['@', '#'], ""), "?1", "?2");
        let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")));
        let plan: Vec<String> = explained
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get("detail"))
            .collect();
        assert!(
            plan.len() == 1 && plan[0].contains("conntrack_ulog USING INDEX conntrack_live"),
            "{plan:?}"
        );
    }
}
