//! Where logs are made anew for every run: a directory on the disk, and two private database servers.
//!
//! The servers are those of the tests of `nulog`, as durable as their packages make them.

use super::support::{self, Durability, Server};
use anyhow::{Context, Result, anyhow};
use nulog::Location;
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Postgres, Self::MariaDb, Self::Sqlite];

    fn server(self) -> Option<support::Kind> {
        match self {
            Self::Postgres => Some(support::Kind::Postgres),
            Self::MariaDb => Some(support::Kind::MariaDb),
            Self::Sqlite => None,
        }
    }
}

/// Databases of one kind.
pub(super) struct Place {
    pub(super) kind: Kind,
    server: Option<Server>,
    dir: PathBuf,
}

/// One database; that of SQLite is a file.
pub(super) struct Database {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) url: String,
    /// Directory of the server.
    pub(super) server: PathBuf,
}

impl Place {
    pub(super) fn new(kind: Kind, dir: &Path) -> Result<Self> {
        let server = kind.server().map(|kind| Server::start(kind, Durability::Machine));
        Ok(Self {
            kind,
            server: server.transpose().map_err(|error| anyhow!(error))?,
            dir: dir.to_owned(),
        })
    }

    /// An empty database; of SQLite, the name of a file that is not there.
    pub(super) async fn empty(&self) -> Result<Database> {
        let Some(server) = &self.server else {
            let dir = tempfile::Builder::new()
                .prefix("sqlite-")
                .tempdir_in(&self.dir)?
                .keep();
            let name = dir.join("log.db").display().to_string();
            return Ok(Database {
                kind: self.kind,
                url: format!("sqlite:{name}"),
                name,
                server: dir,
            });
        };
        let name = server.database().await;
        Ok(Database {
            kind: self.kind,
            url: server.url(&name),
            name,
            server: server.directory().to_owned(),
        })
    }

    /// A database with the schema of the log.
    pub(super) async fn log(&self) -> Result<(Database, Location)> {
        let database = self.empty().await?;
        let location = Location::parse(&database.url)?;
        nulog::migrate(&location).await?;
        Ok((database, location))
    }
}

impl Database {
    /// A number from the database.
    pub(super) async fn number(&self, query: &str) -> Result<u64> {
        let text = sqlx::AssertSqlSafe(query.to_owned());
        let found: i64 = match self.kind {
            Kind::Postgres => {
                let options: sqlx::postgres::PgConnectOptions = self.url.parse()?;
                let mut connection = options.connect().await?;
                sqlx::query_scalar(text).fetch_one(&mut connection).await?
            }
            Kind::MariaDb => {
                let options: sqlx::mysql::MySqlConnectOptions = self.url.parse()?;
                let mut connection = options.connect().await?;
                sqlx::query_scalar(text).fetch_one(&mut connection).await?
            }
            Kind::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
                sqlx::query_scalar(text).fetch_one(&mut connection).await?
            }
        };
        u64::try_from(found).context("a negative count")
    }

    /// Runs a statement.
    pub(super) async fn execute(&self, statement: &str) -> Result<()> {
        let text = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()));
        match self.kind {
            Kind::Postgres => {
                let options: sqlx::postgres::PgConnectOptions = self.url.parse()?;
                text.execute(&mut options.connect().await?).await?;
            }
            Kind::MariaDb => {
                let options: sqlx::mysql::MySqlConnectOptions = self.url.parse()?;
                text.execute(&mut options.connect().await?).await?;
            }
            Kind::Sqlite => {
                text.execute(&mut sqlx::SqliteConnection::connect(&self.url).await?)
                    .await?;
            }
        }
        Ok(())
    }

    /// Lets the database do what it does by itself after so many rows.
    pub(super) async fn settle(&self) -> Result<()> {
        match self.kind {
            Kind::Postgres => self.execute("VACUUM ANALYZE").await,
            Kind::MariaDb => self.execute("ANALYZE TABLE conntrack_ulog, ulog").await,
            Kind::Sqlite => self.execute("PRAGMA wal_checkpoint(TRUNCATE)").await,
        }
    }

    /// Rows whose life is in the log wholly.
    pub(super) async fn whole_lives(&self) -> Result<u64> {
        self.number(
            "SELECT count(*) FROM conntrack_ulog WHERE state = 3 AND start_timestamp IS NOT NULL \
             AND end_timestamp IS NOT NULL AND bytes_out IS NOT NULL AND ct_id IS NOT NULL",
        )
        .await
    }

    /// Gives its room back: a full run writes much.
    pub(super) async fn remove(self, place: &Place) -> Result<()> {
        match &place.server {
            Some(server) => {
                let home = match place.kind {
                    Kind::MariaDb => "mysql",
                    _ => "postgres",
                };
                let kind = place.kind.server().context("a server")?;
                support::execute(kind, &server.url(home), &format!("DROP DATABASE {}", self.name)).await?;
            }
            None => std::fs::remove_dir_all(&self.server)?,
        }
        Ok(())
    }
}
