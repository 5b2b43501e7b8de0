//! A log of each kind for one test, and what tests do with it.

use crate::make::{addr, id};
use crate::support::{self, Kind, Server};
use nulog::{Location, Reader, RowFilter, Store};
use serde_json::{Map, Value};
use sqlx::{Connection as _, Executor as _};
use std::path::Path;
use tempfile::TempDir;

/// Columns of both tables of connections, as the archive is filled.
pub(crate) const COLUMNS: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, \
     ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, \
     username, client_os, client_app, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, \
     reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, \
     ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth";

/// Where the log of one test is.
pub(crate) struct Lab {
    url: String,
    /// The kind of server, where it is on one.
    pub(crate) kind: Option<Kind>,
    directory: TempDir,
}

impl Lab {
    /// A log in a file.
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite:{}/nulog.db", directory.path().display()),
            kind: None,
            directory,
        }
    }

    /// A log on a server, with its schema; `None`, loudly, where none can run.
    pub(crate) async fn on(kind: Kind, test: &str) -> Option<Self> {
        let lab = Self::empty(kind, test).await?;
        nulog::migrate(&lab.location()).await.unwrap();
        Some(lab)
    }

    /// A database without a schema.
    pub(crate) async fn empty(kind: Kind, test: &str) -> Option<Self> {
        match support::shared(kind) {
            Ok(server) => Some(Self::at(server, kind).await),
            Err(reason) => {
                support::skip(test, kind, reason);
                None
            }
        }
    }

    /// A database without a schema on this server.
    pub(crate) async fn at(server: &Server, kind: Kind) -> Self {
        Self {
            url: server.url(&server.database().await),
            kind: Some(kind),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// A directory for whatever the test needs.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn location(&self) -> Location {
        Location::parse(&self.url).unwrap()
    }

    /// Opens it as server 1.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.location(), 1).await.unwrap()
    }

    /// All rows as JSON, read beside the open store.
    pub(crate) async fn rows(&self) -> Vec<Map<String, Value>> {
        self.rows_where(&RowFilter::default()).await
    }

    pub(crate) async fn rows_where(&self, filter: &RowFilter) -> Vec<Map<String, Value>> {
        let mut reader = self.reader().await;
        let rows = reader.rows_json(filter).await.unwrap();
        reader.close().await.unwrap();
        rows
    }

    pub(crate) async fn reader(&self) -> Reader {
        Reader::open(&self.location()).await.unwrap()
    }

    /// Runs statements behind the store's back.
    pub(crate) async fn execute(&self, statements: &str) {
        if let Some(kind) = self.kind {
            support::execute(kind, &self.url, statements).await.unwrap();
            return;
        }
        let mut other = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
        let text = sqlx::AssertSqlSafe(statements.to_owned());
        other.execute(sqlx::raw_sql(text)).await.unwrap();
        other.close().await.unwrap();
    }

    /// Moves every row to the archive.
    pub(crate) async fn archive(&self) {
        let statements = format!(
            "BEGIN; INSERT INTO ulog ({COLUMNS}) SELECT {COLUMNS} FROM conntrack_ulog; DELETE FROM conntrack_ulog; COMMIT"
        );
        self.execute(&statements).await;
    }
}

/// Rows after the one of this sequence number.
pub(crate) fn after(sequence: u64) -> RowFilter {
    RowFilter {
        after: Some(id(sequence)),
        ..RowFilter::default()
    }
}

/// Rows from this source.
pub(crate) fn from(source: &str) -> RowFilter {
    RowFilter {
        source: Some(addr(source)),
        ..RowFilter::default()
    }
}
