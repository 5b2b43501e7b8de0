//! Where a log is, as the configuration says it.
//!
//! Only the form is checked here; whether anything is there is seen when it is opened. A password is never shown.

use crate::StoreError;
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long a connection to a database server may take to come about, unless [`Location::with_timeouts`] says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transaction may take before its connection is given up, unless [`Location::with_timeouts`] says otherwise.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Parameters of a URL that have a meaning; the driver ignores any other, which would hide a mistake.
const POSTGRES_PARAMETERS: [&str; 8] = [
    "host",
    "port",
    "user",
    "dbname",
    "password",
    "sslmode",
    "sslrootcert",
    "options",
];
const MYSQL_PARAMETERS: [&str; 3] = ["socket", "ssl-mode", "ssl-ca"];

/// The place of a log.
#[derive(Clone)]
pub struct Location {
    pub(crate) kind: Kind,
    pub(crate) connect_timeout: Duration,
    pub(crate) transaction_timeout: Duration,
    /// Without password and parameters.
    shown: String,
    /// Files of authorities that the URL names.
    authorities: Vec<PathBuf>,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

impl Location {
    /// Reads `sqlite:/path/to/file` (also `sqlite:///path/to/file`), `postgres://user:password@host/database` (also
    /// `postgresql:`) or `mysql://user:password@host/database` (also `mariadb:`).
    ///
    /// To a host that is not this one, TLS is required and the server's certificate checked against `sslrootcert` or
    /// `ssl-ca`, else against the system's authorities; `sslmode` or `ssl-mode` says otherwise.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let refused = || StoreError::Location(redacted(text));
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        let mut location = match scheme {
            Some("sqlite") => Self::sqlite(text),
            Some("postgres" | "postgresql") => Self::postgres(text),
            Some("mysql" | "mariadb") => Self::mysql(text),
            _ => None,
        }
        .ok_or_else(refused)?;
        location.authorities = authorities(text);
        Ok(location)
    }

    fn new(kind: Kind, shown: String) -> Self {
        Self {
            kind,
            connect_timeout: CONNECT_TIMEOUT,
            transaction_timeout: TRANSACTION_TIMEOUT,
            shown,
            authorities: Vec::new(),
        }
    }

    fn sqlite(text: &str) -> Option<Self> {
        let path = text
            .strip_prefix("sqlite:")
            .map(|rest| rest.strip_prefix("//").unwrap_or(rest))
            .filter(|path| !path.is_empty() && !path.starts_with(':') && !path.ends_with('/'))?;
        Some(Self::new(
            Kind::Sqlite(PathBuf::from(path)),
            format!("sqlite:{path}"),
        ))
    }

    fn postgres(text: &str) -> Option<Self> {
        let parameters = parameters(text, &POSTGRES_PARAMETERS)?;
        let mut options: PgConnectOptions = text.parse().ok()?;
        options.get_database()?;
        let local = options.get_socket().is_some() || is_local(options.get_host());
        if !local && !parameters.contains(&"sslmode") {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let shown = format!(
            "postgres://{}@{host}:{}/{}",
            options.get_username(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        );
        let options = options
            .application_name("nuauth-server")
            .disable_statement_logging();
        Some(Self::new(Kind::Postgres(Box::new(options)), shown))
    }

    fn mysql(text: &str) -> Option<Self> {
        let parameters = parameters(text, &MYSQL_PARAMETERS)?;
        let (_, rest) = text.split_once(':')?;
        let mut options: MySqlConnectOptions = format!("mysql:{rest}").parse().ok()?;
        // The driver gives its settings away as a URL only.
        let url = options.to_url_lossy();
        let socket = url
            .query_pairs()
            .find_map(|(key, value)| (key == "socket").then(|| value.into_owned()));
        let host = url.host_str().unwrap_or("localhost");
        let database = url.path().trim_start_matches('/');
        if database.is_empty() {
            return None;
        }
        let local = socket.is_some() || is_local(host);
        if !local && !parameters.contains(&"ssl-mode") {
            options = options.ssl_mode(MySqlSslMode::VerifyIdentity);
        }
        let place = socket.unwrap_or_else(|| format!("{host}:{}", url.port().unwrap_or(3306)));
        let shown = format!("mysql://{}@{place}/{database}", url.username());
        // A statement's last column comes without its name's quotes, whatever the server's mode.
        let options = options.disable_statement_logging();
        Some(Self::new(Kind::MySql(Box::new(options)), shown))
    }

    /// The same place with this password instead of the one in the URL, if any; a file needs none.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.kind = match self.kind {
            Kind::Postgres(options) => Kind::Postgres(Box::new(options.password(password))),
            Kind::MySql(options) => Kind::MySql(Box::new(options.password(password))),
            file @ Kind::Sqlite(_) => file,
        };
        self
    }

    /// The same place with the first line of `file` as the password.
    pub fn with_password_file(self, file: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        Ok(self.with_password(text.lines().next().unwrap_or_default()))
    }

    /// The same place with other patience for connecting and for a transaction; a file needs none.
    #[must_use]
    pub fn with_timeouts(mut self, connect: Duration, transaction: Duration) -> Self {
        self.connect_timeout = connect;
        self.transaction_timeout = transaction;
        self
    }

    /// The database file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Sqlite(path) => Some(path),
            Kind::Postgres(_) | Kind::MySql(_) => None,
        }
    }

    /// The TCP port of the database's server and the files of authorities that the URL names, for who confines a process;
    /// `None` for a file and for a server that is reached by a Unix socket.
    pub fn network(&self) -> Option<(u16, Vec<PathBuf>)> {
        let port = match &self.kind {
            Kind::Sqlite(_) => return None,
            Kind::Postgres(options)
                if options.get_socket().is_some() || options.get_host().starts_with('/') =>
            {
                return None;
            }
            Kind::Postgres(options) => options.get_port(),
            Kind::MySql(options) => {
                let url = options.to_url_lossy();
                if url.query_pairs().any(|(key, _)| key == "socket") {
                    return None;
                }
                url.port().unwrap_or(3306)
            }
        };
        Some((port, self.authorities.clone()))
    }

    /// The place as messages name it.
    pub(crate) fn name(&self) -> PathBuf {
        match &self.kind {
            Kind::Sqlite(path) => path.clone(),
            Kind::Postgres(_) | Kind::MySql(_) => PathBuf::from(&self.shown),
        }
    }
}

/// The names of the parameters of a URL; `None` if one is not known or if it is no URL with a host.
fn parameters<'a>(text: &'a str, known: &[&str]) -> Option<Vec<&'a str>> {
    let (_, rest) = text.split_once("://")?;
    let Some((_, query)) = rest.split_once('?') else {
        return Some(Vec::new());
    };
    query
        .split('&')
        .map(|pair| pair.split_once('=').map(|(name, _)| name))
        .map(|name| name.filter(|name| known.contains(name)))
        .collect()
}

/// The files that a URL names as authorities. One whose name is written with escapes is not found: it has to be beside the
/// configuration.
fn authorities(text: &str) -> Vec<PathBuf> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| ["sslrootcert", "ssl-ca"].contains(name))
        .map(|(_, file)| PathBuf::from(file.replace("%2F", "/").replace("%2f", "/")))
        .collect()
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// What may be shown of a text that was meant as a location.
fn redacted(text: &str) -> String {
    let (text, query) = match text.split_once('?') {
        Some((text, _)) => (text, "?…"),
        None => (text, ""),
    };
    match (text.split_once("//"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}//…@{rest}{query}"),
        (None, Some((_, rest))) => format!("…@{rest}{query}"),
        _ => format!("{text}{query}"),
    }
}

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::parse(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_file() {
        for text in ["sqlite:/var/lib/nufw/nulog.db", "sqlite:///var/lib/nufw/nulog.db"] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.file(), Some(Path::new("/var/lib/nufw/nulog.db")));
            assert_eq!(location.to_string(), "sqlite:/var/lib/nufw/nulog.db");
        }
    }

    #[test]
    fn what_a_connection_needs_of_the_network_is_known() {
        let needs = |text: &str| Location::parse(text).unwrap().network();
        assert_eq!(needs("sqlite:/var/lib/nufw/nulog.db"), None);
        assert_eq!(needs("postgres://u@%2Frun%2Fpg/n"), None);
        assert_eq!(needs("mysql://u@localhost/n?socket=/run/my.sock"), None);
        assert_eq!(needs("mysql://u@db.example/n"), Some((3306, vec![])));
        assert_eq!(
            needs("postgres://u@db.example:5433/n?sslrootcert=/etc/nufw/db.pem"),
            Some((5433, vec![PathBuf::from("/etc/nufw/db.pem")]))
        );
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in [
            "",
            "sqlite:",
            "sqlite::memory:",
            "oracle://x/y",
            "postgres:db",
            "postgres://host",
            "mysql://host/",
            "/var/lib/nulog.db",
            "sqlite:/var/lib/",
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        for text in ["postgres://db/nulog?ssl=on", "mysql://db/nulog?sslmode=REQUIRED"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_are_named_without_their_password_and_parameters() {
        for (text, shown) in [
            (
                "postgresql://nufw:secret@db.example/nulog?sslrootcert=/ca.pem",
                "postgres://nufw@db.example:5432/nulog",
            ),
            (
                "postgres://u:secret@%2Frun%2Fpg:5433/n",
                "postgres://u@/run/pg:5433/n",
            ),
            ("mariadb://u:secret@db/n", "mysql://u@db:3306/n"),
            (
                "mysql://u:secret@localhost/n?socket=/run/my.sock",
                "mysql://u@/run/my.sock/n",
            ),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.to_string(), shown);
            assert!(!format!("{location:?} {location}").contains("secret"));
        }
        for text in [
            "postgre://u:secret@db/n",
            "mysql://u:secret@db",
            "u:secret@db",
            "postgres://db/n?passwd=secret",
        ] {
            let error = Location::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_certificate_of_another_host_is_checked_unless_the_url_says_otherwise() {
        let mode = |text: &str| match Location::parse(text).unwrap().kind {
            Kind::Postgres(options) => format!("{:?}", options.get_ssl_mode()),
            Kind::MySql(options) => options.to_url_lossy().query().unwrap_or_default().to_owned(),
            Kind::Sqlite(_) => String::new(),
        };
        assert_eq!(mode("postgres://db.example/n"), "VerifyFull");
        assert_eq!(mode("postgres://db.example/n?sslmode=require"), "Require");
        assert_eq!(mode("postgres://127.0.0.1/n"), "Prefer");
        assert!(mode("mysql://db.example/n").contains("ssl-mode=VERIFY_IDENTITY"));
        assert!(mode("mysql://[::1]/n").contains("ssl-mode=PREFERRED"));
    }
}
