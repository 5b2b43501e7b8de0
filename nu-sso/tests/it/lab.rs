//! A log of each kind for one test.

use crate::support::{self, Kind};
use nulog::{Location, Store};
use std::path::Path;
use tempfile::TempDir;

/// Makes each behaviour a test on every database.
macro_rules! on_every_database {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use crate::lab::Lab;
            use crate::support::Kind;

            #[tokio::test]
            async fn sqlite() {
                super::$name(Lab::sqlite()).await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(lab) = Lab::on(Kind::Postgres, stringify!($name)).await {
                    super::$name(lab).await;
                }
            }

            #[tokio::test]
            async fn mariadb() {
                if let Some(lab) = Lab::on(Kind::MariaDb, stringify!($name)).await {
                    super::$name(lab).await;
                }
            }
        })+
    };
}

pub(crate) use on_every_database;

/// Where the log of one test is.
pub(crate) struct Lab {
    url: String,
    directory: TempDir,
}

impl Lab {
    /// A log in a file, which its store makes.
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/nulog.db", directory.path().display());
        Self { url, directory }
    }

    /// A log on a server, with its schema; `None`, loudly, where none can run.
    pub(crate) async fn on(kind: Kind, test: &str) -> Option<Self> {
        match support::shared(kind) {
            Ok(server) => Some(Self::at(server).await),
            Err(reason) => {
                support::skip(test, kind, reason);
                None
            }
        }
    }

    /// The same on this server.
    pub(crate) async fn at(server: &support::Server) -> Self {
        let lab = Self {
            url: server.url(&server.database().await),
            directory: tempfile::tempdir().unwrap(),
        };
        nulog::migrate(&lab.location()).await.unwrap();
        lab
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

    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.location(), 1).await.unwrap()
    }
}
