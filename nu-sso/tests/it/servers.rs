//! What is about database servers alone: accounts, plans, and a server that is away, hangs or comes back.

use crate::lab::Lab;
use crate::log::{Conn, block_on};
use crate::process::{NU_SSO, Proc, ask, output, start_ready, unix, until};
use crate::support::{self, Durability, Kind, Server};
use nu_sso::{FindError, Finder, FinderOptions};
use nulog::Location;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

macro_rules! on_every_server {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn postgres() {
                super::$name(Kind::Postgres, concat!(stringify!($name), "::postgres"));
            }

            #[test]
            fn mariadb() {
                super::$name(Kind::MariaDb, concat!(stringify!($name), "::mariadb"));
            }
        })+
    };
}

on_every_server!(
    the_account_of_single_sign_on_finds_users_and_can_do_nothing_else,
    a_server_that_was_away_or_crashed_is_answered_from_again,
    a_server_that_hangs_is_given_up_in_time_and_its_connections_with_it,
    each_asker_is_told_that_the_log_is_away,
);

const PATIENCE: FinderOptions = FinderOptions {
    retry: Duration::ZERO,
    timeout: Duration::from_secs(20),
    connections: 2,
};

fn alice() -> Conn {
    Conn::plain(1, "alice", "10.0.0.7:40312", "192.0.2.80:443")
}

fn own_server(kind: Kind, test: &str) -> Option<Server> {
    Server::start(kind, Durability::Process)
        .inspect_err(|reason| support::skip(test, kind, reason))
        .ok()
}

fn the_account_of_single_sign_on_finds_users_and_can_do_nothing_else(kind: Kind, test: &str) {
    let Some(lab) = block_on(Lab::on(kind, test)) else {
        return;
    };
    let server = support::shared(kind).unwrap();
    let (file, make) = match kind {
        Kind::Postgres => ("postgres.sql", "CREATE ROLE @ LOGIN IN ROLE nufw_sso"),
        Kind::MariaDb => (
            "mysql.sql",
            "CREATE USER @@localhost; GRANT nufw_sso TO @@localhost; SET DEFAULT ROLE nufw_sso FOR @@localhost",
        ),
    };
    let grants = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../sql/grants")
        .join(file);
    let grants = std::fs::read_to_string(grants).unwrap();
    let database = lab.url().split(['?', '/']).nth(3).unwrap();
    let account = format!("sso_of_{database}");
    let make = match kind {
        Kind::Postgres => make.replace('@', &account),
        Kind::MariaDb => make.replace("@@", &format!("{account}@")),
    };
    block_on(support::execute(kind, lab.url(), &grants)).unwrap();
    block_on(support::execute(kind, lab.url(), &make)).unwrap();
    let url = server.url_through(database, &account, server.directory());
    let _store = block_on(async {
        let mut store = lab.store().await;
        store.apply(&alice().live()).await.unwrap();
        store
    });
    let output = output(
        Command::new(NU_SSO)
            .args(["--database", &url, "--retry", "0s", "lookup"])
            .args(["10.0.0.7", "40312", "192.0.2.80", "443"]),
    );
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"alice\n"[..]),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for statement in ["SELECT * FROM sso", "SELECT version FROM _sqlx_migrations"] {
        block_on(support::execute(kind, &url, statement)).unwrap();
    }
    for statement in [
        "SELECT * FROM conntrack_ulog",
        "SELECT * FROM ulog",
        "SELECT * FROM connections",
        "SELECT * FROM sessions",
        "SELECT * FROM gaps",
        "SELECT * FROM conntrack_ulog_ipv4",
        "SELECT * FROM users",
        "SELECT * FROM gateways",
        "SELECT * FROM servers",
        "UPDATE conntrack_ulog SET username = 'x'",
        "DELETE FROM conntrack_ulog",
        "CREATE TABLE mine (a INTEGER)",
    ] {
        let error = block_on(support::execute(kind, &url, statement));
        assert!(error.is_err(), "{statement}");
    }
}

fn a_server_that_was_away_or_crashed_is_answered_from_again(kind: Kind, test: &str) {
    let Some(server) = own_server(kind, test) else {
        return;
    };
    block_on(async {
        let lab = Lab::at(&server).await;
        let mut store = lab.store().await;
        store.apply(&alice().live()).await.unwrap();
        let finder = Arc::new(Finder::open(lab.location(), PATIENCE).await.unwrap());
        let asked = alice().original;
        for _ in 0..2 {
            // More at once than there are connections.
            let asking = (0..10).map(|_| {
                let finder = Arc::clone(&finder);
                tokio::spawn(async move { finder.find(&asked).await.unwrap().unwrap().user })
            });
            for answer in asking.collect::<Vec<_>>() {
                assert_eq!(&*answer.await.unwrap(), "alice");
            }
            server.kill();
            while finder.find(&asked).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let error = finder.find(&asked).await.unwrap_err();
            assert!(matches!(error, FindError::Store(_)), "{error:?}");
            assert!(finder.check().await.is_err());
            server.begin();
            assert_eq!(&*finder.find(&asked).await.unwrap().unwrap().user, "alice");
        }
    });
}

/// What stands between us and a server, and can stop passing anything on without a word.
struct Gate {
    /// Connections with a smaller number are stuck.
    stuck: watch::Sender<u64>,
    made: Arc<AtomicU64>,
    location: Location,
    _directory: tempfile::TempDir,
}

impl Gate {
    fn new(server: &Server, lab: &Lab) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = lab.url().split(['?', '/']).nth(3).unwrap();
        let url = server.url_through(database, "nufw", directory.path());
        let name = server.socket().file_name().unwrap().to_owned();
        let listener = UnixListener::bind(directory.path().join(name)).unwrap();
        let (stuck, watched) = watch::channel(0);
        let made = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&made);
        let socket = server.socket();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::Relaxed);
                let server = UnixStream::connect(&socket).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, number, watched.clone()));
                tokio::spawn(pass(from_server, to_client, number, watched.clone()));
            }
        });
        Self {
            stuck,
            made,
            location: Location::parse(&url).unwrap(),
            _directory: directory,
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, mut stuck: watch::Receiver<u64>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if stuck.wait_for(|stuck| *stuck <= number).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}

fn a_server_that_hangs_is_given_up_in_time_and_its_connections_with_it(kind: Kind, test: &str) {
    block_on(async {
        let Some(lab) = Lab::on(kind, test).await else {
            return;
        };
        let gate = Gate::new(support::shared(kind).unwrap(), &lab);
        let mut store = lab.store().await;
        store.apply(&alice().live()).await.unwrap();
        let timeout = Duration::from_millis(700);
        let finder = Finder::open(gate.location.clone(), FinderOptions { timeout, ..PATIENCE })
            .await
            .unwrap();
        let asked = alice().original;
        assert!(finder.find(&asked).await.unwrap().is_some());
        // What is connected is stuck, and whatever is connected anew.
        gate.stuck.send_replace(u64::MAX);
        for _ in 0..2 {
            let error = finder.find(&asked).await.unwrap_err();
            assert!(matches!(error, FindError::Timeout(_)), "{error:?}");
        }
        // New connections pass again; what was connected stays stuck for ever.
        gate.stuck.send_replace(gate.made.load(Ordering::Relaxed));
        assert!(finder.find(&asked).await.unwrap().is_some());
        assert!(finder.find(&asked).await.unwrap().is_some());
    });
}

fn each_asker_is_told_that_the_log_is_away(kind: Kind, test: &str) {
    let Some(server) = own_server(kind, test) else {
        return;
    };
    let lab = block_on(Lab::at(&server));
    let _store = block_on(async {
        let mut store = lab.store().await;
        store.apply(&alice().live()).await.unwrap();
        store
    });
    let nu_sso = || {
        let mut command = Command::new(NU_SSO);
        command.args(["--database", lab.url(), "--retry", "0s"]);
        command
    };
    let socket = lab.directory().join("sso.sock");
    let mut command = nu_sso();
    command
        .arg("serve")
        .arg("--listen")
        .arg(format!("unix:{}", socket.display()));
    let _sso = start_ready(command);
    let asked = |what: &str| {
        let request = format!(
            "GET {what} HTTP/1.1\r\nHost: x\r\nX-NuFW-Src: 10.0.0.7\r\nX-NuFW-Src-Port: 40312\r\nX-NuFW-Dst: 192.0.2.80\r\nX-NuFW-Dst-Port: 443\r\nConnection: close\r\n\r\n"
        );
        let answer = ask(&mut unix(lab.directory()), &request);
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let mut command = nu_sso();
    let squid = command.arg("squid").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut squid = Proc(squid.spawn().unwrap());
    let mut input = squid.0.stdin.take().unwrap();
    let mut lines = BufReader::new(squid.0.stdout.take().unwrap()).lines();
    let mut helped = || {
        writeln!(input, "10.0.0.7 40312 192.0.2.80 443").unwrap();
        lines.next().unwrap().unwrap()
    };
    let looked_up = || {
        let words = ["lookup", "10.0.0.7", "40312", "192.0.2.80", "443"];
        output(nu_sso().args(words)).status.code()
    };
    for _ in 0..2 {
        assert_eq!(
            (asked("/lookup"), asked("/health")),
            ("200".to_owned(), "200".to_owned())
        );
        assert_eq!(helped(), "OK user=alice");
        assert_eq!(looked_up(), Some(0));
        server.kill();
        until("the server to end", || looked_up() == Some(69));
        assert_eq!(
            (asked("/lookup"), asked("/health")),
            ("503".to_owned(), "503".to_owned())
        );
        assert!(helped().starts_with("BH message="));
        server.begin();
    }
}
