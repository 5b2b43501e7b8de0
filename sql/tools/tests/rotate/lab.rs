//! A log of each kind with rows of any age, and the program run on it.

use crate::support::{self, Kind};
use nulog::Location;
use sqlx::{Connection as _, Executor as _};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A day.
pub(crate) const DAY: i64 = 86_400;

/// The log of one test.
pub(crate) struct Lab {
    /// `None` for a file.
    pub(crate) kind: Option<Kind>,
    /// As the administrator.
    pub(crate) url: String,
    /// As the rotator.
    pub(crate) rotator: String,
    pub(crate) database: String,
    directory: TempDir,
}

pub(crate) fn now() -> i64 {
    nufw_common::clock::wall().micros() / 1_000_000
}

impl Lab {
    /// A log on a server, with the accounts of `sql/grants`; `None`, loudly, where none can run.
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
        let lab = Self {
            kind: Some(kind),
            rotator: server.url_through(&database, &format!("rotator_of_{database}"), server.directory()),
            url,
            database,
            directory: tempfile::tempdir().unwrap(),
        };
        lab.execute(&grants(kind)).await;
        lab.account("rotator").await;
        Some(lab)
    }

    /// A log in a file, as a server left it.
    pub(crate) async fn file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/nulog.db", directory.path().display());
        let store = nulog::Store::open(&url.parse().unwrap(), 1).await.unwrap();
        store.close().await.unwrap();
        Self {
            kind: None,
            rotator: url.clone(),
            url,
            database: String::new(),
            directory,
        }
    }

    /// Makes an account of this role.
    pub(crate) async fn account(&self, role: &str) {
        let account = format!("{role}_of_{}", self.database);
        let make = match self.kind {
            Some(Kind::Postgres) => format!("CREATE ROLE {account} LOGIN IN ROLE nufw_{role}"),
            Some(Kind::MariaDb) => format!(
                "CREATE USER {account}@localhost; GRANT nufw_{role} TO {account}@localhost; \
                 SET DEFAULT ROLE nufw_{role} FOR {account}@localhost"
            ),
            None => return,
        };
        self.execute(&make).await;
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.try_execute(statements).await.unwrap();
    }

    pub(crate) async fn try_execute(&self, statements: &str) -> Result<(), sqlx::Error> {
        if let Some(kind) = self.kind {
            return support::execute(kind, &self.url, statements).await;
        }
        let mut other = sqlx::SqliteConnection::connect(&self.url).await?;
        other
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())))
            .await?;
        other.close().await
    }

    /// A number that the database tells.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        let text = sqlx::AssertSqlSafe(query.to_owned());
        match self.kind {
            Some(Kind::Postgres) => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
            }
            Some(Kind::MariaDb) => {
                let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
            }
            None => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// Adds `count` rows to the archive from `first` on, the connections of which were seen from `second` on, `every` so
    /// many seconds.
    pub(crate) async fn add(&self, first: i64, count: i64, second: i64, every: i64) {
        let statement = add(self.kind, first, count, second, every);
        self.execute(&statement).await;
    }

    /// Rows of the archive, as everybody sees it.
    pub(crate) async fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM ulog").await
    }

    /// Rows that have no partition.
    pub(crate) async fn rest(&self) -> i64 {
        match self.kind {
            Some(Kind::Postgres) => self.number("SELECT count(*) FROM ulog_rest").await,
            Some(Kind::MariaDb) => self.number("SELECT count(*) FROM ulog PARTITION (rest)").await,
            None => 0,
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ulog-rotate"));
        let settings = self.directory().join("nulog.toml");
        let text = format!(
            "[log]\ndatabase = \"sqlite:/nonexistent/nulog.db\"\nserver-socket = \"{}/nuauth.sock\"\n\
             [rotate]\ndatabase = \"{}\"\n",
            self.directory().display(),
            self.rotator
        );
        std::fs::write(&settings, text).unwrap();
        command.arg("--config").arg(settings).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Runs it, expects success, and gives what it says as JSON.
    pub(crate) async fn rotate(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.run(&all).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {error}", output.status);
        assert_eq!(error, "", "nothing to complain of");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// A directory for exports.
    pub(crate) fn exports(&self) -> PathBuf {
        let directory = self.directory().join("exports");
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// The ids in all files of connections, with how often each is there.
    pub(crate) fn exported(&self) -> BTreeMap<i64, u32> {
        let mut ids = BTreeMap::new();
        for entry in std::fs::read_dir(self.exports()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.starts_with("ulog-") {
                continue;
            }
            let file = std::fs::File::open(&path).unwrap();
            let mut rows = csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(file));
            for row in rows.records() {
                *ids.entry(row.unwrap()[0].parse().unwrap()).or_default() += 1;
            }
        }
        ids
    }
}

/// What `Lab::add` executes.
pub(crate) fn add(kind: Option<Kind>, first: i64, count: i64, second: i64, every: i64) -> String {
    let columns = "id, state, oob_time_sec, oob_time_usec, oob_mark, ip_protocol, ip_saddr, ip_daddr, tcp_sport, tcp_dport, \
         username, start_timestamp, gateway, ct_zone";
    let last = count - 1;
    let (series, address, at) = match kind {
        Some(Kind::Postgres) => (
            format!("generate_series(0, {last}) AS s (n)"),
            "inet '10.0.0.7', inet '2001:db8::1'",
            "timestamptz '2026-01-02 03:04:05.000006Z'",
        ),
        Some(Kind::MariaDb) => (
            format!("(SELECT seq AS n FROM seq_0_to_{last}) AS s"),
            "inet6_aton('10.0.0.7'), inet6_aton('2001:db8::1')",
            "timestamp'2026-01-02 03:04:05.000006'",
        ),
        None => (
            format!(
                "(WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {last}) SELECT n FROM s) AS s"
            ),
            "'10.0.0.7', '2001:db8::1'",
            "1767323045000006",
        ),
    };
    format!(
        "INSERT INTO ulog ({columns}) SELECT {first} + n, 3, {second} + n * {every}, 7, 0, 6, {address}, 40000, 443, \
         'ali\"ce, of x', {at}, 'gw1', 0 FROM {series}"
    )
}

pub(crate) fn grants(kind: Kind) -> String {
    let file = match kind {
        Kind::Postgres => "postgres.sql",
        Kind::MariaDb => "mysql.sql",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grants").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// One test a kind of server.
macro_rules! on_every_server {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(lab) = Lab::on(crate::support::Kind::Postgres, concat!(stringify!($name), "::postgres")).await {
                    super::$name(lab).await;
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                if let Some(lab) = Lab::on(crate::support::Kind::MariaDb, concat!(stringify!($name), "::mariadb")).await {
                    super::$name(lab).await;
                }
            }
        })+
    };
}
pub(crate) use on_every_server;
