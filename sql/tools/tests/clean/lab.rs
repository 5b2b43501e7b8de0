//! A log of each kind, and the cleaner's program on it with the cleaner's account.

use crate::support::{self, Kind};
use nulog::{Location, Reader, RowFilter, Store};
use serde_json::{Map, Value};
use sqlx::{Connection as _, Executor as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub(crate) struct Lab {
    /// As the administrator.
    url: String,
    /// As the cleaner.
    cleaner: String,
    pub(crate) kind: Option<Kind>,
    directory: TempDir,
}

impl Lab {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/nulog.db", directory.path().display());
        Self {
            cleaner: url.clone(),
            url,
            kind: None,
            directory,
        }
    }

    /// A log on a server with its schema and accounts; `None`, loudly, where none can run.
    pub(crate) async fn on(kind: Kind, test: &str) -> Option<Self> {
        let server = match support::shared(kind) {
            Ok(server) => server,
            Err(reason) => {
                support::skip(test, kind, reason);
                return None;
            }
        };
        let database = server.database().await;
        let url = server.url(&database);
        nulog::migrate(&Location::parse(&url).unwrap()).await.unwrap();
        let account = format!("cleaner_of_{database}");
        let (file, make) = match kind {
            Kind::Postgres => (
                "postgres.sql",
                format!("CREATE ROLE {account} LOGIN IN ROLE nufw_cleaner"),
            ),
            Kind::MariaDb => (
                "mysql.sql",
                format!(
                    "CREATE USER {account}@localhost; GRANT nufw_cleaner TO {account}@localhost; \
                     SET DEFAULT ROLE nufw_cleaner FOR {account}@localhost"
                ),
            ),
        };
        let grants = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grants").join(file);
        let grants = std::fs::read_to_string(grants).unwrap();
        support::execute(kind, &url, &grants).await.unwrap();
        support::execute(kind, &url, &make).await.unwrap();
        Some(Self {
            cleaner: server.url_through(&database, &account, server.directory()),
            url,
            kind: Some(kind),
            directory: tempfile::tempdir().unwrap(),
        })
    }

    pub(crate) fn location(&self) -> Location {
        Location::parse(&self.url).unwrap()
    }

    pub(crate) fn cleaner_location(&self) -> Location {
        Location::parse(&self.cleaner).unwrap()
    }

    pub(crate) fn cleaner_url(&self) -> &str {
        &self.cleaner
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.location(), 1).await.unwrap()
    }

    /// The program, on this log.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clean-conntrack"));
        command
            .env("NULOG_CLEAN_WATCH", "0s")
            // These are the test's own; the program would take them for settings.
            .env_remove("NULOG_KILLS")
            .env_remove("NULOG_SEED")
            .args(["--json", "--database", &self.cleaner])
            .arg("--server-socket")
            .arg(self.directory.path().join("no.sock"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn clean(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it to a good end; its report.
    pub(crate) fn cleaned(&self, arguments: &[&str]) -> Value {
        let output = self.clean(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        report(&output)
    }

    /// Every row, live or archived.
    pub(crate) async fn rows(&self) -> Vec<Map<String, Value>> {
        let mut reader = Reader::open(&self.location()).await.unwrap();
        let rows = reader.rows_json(&RowFilter::default()).await.unwrap();
        reader.close().await.unwrap();
        rows
    }

    /// A number that a statement gives.
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        let text = sqlx::AssertSqlSafe(statement.to_owned());
        match self.kind {
            None => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
            }
            Some(Kind::Postgres) => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
            }
            Some(Kind::MariaDb) => {
                let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// Rows in the live table, and in the archive.
    pub(crate) async fn counts(&self) -> (i64, i64) {
        (
            self.number("SELECT count(*) FROM conntrack_ulog").await,
            self.number("SELECT count(*) FROM ulog").await,
        )
    }

    /// Runs statements behind everybody's back.
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
}

pub(crate) fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
