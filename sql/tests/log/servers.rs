//! What is about database servers alone: schemas, lost connections, servers that hang or crash, and who may do what.
//!
//! Each behaviour runs on every kind of server. Between store and server stands a socket that can be cut or stalled.

use crate::lab::Lab;
use crate::make::*;
use crate::support::{self, Durability, Kind, Server};
use nulog::{Location, Reader, Search, SearchFilter, Store, StoreError, WhoisQuestion};
use sqlx::Connection as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Longer than anything here takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a store gives a server that does not answer.
const TIMEOUT: Duration = Duration::from_millis(700);

macro_rules! on_every_server {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use super::*;

            #[tokio::test]
            async fn postgres() {
                super::$name(Kind::Postgres, concat!(stringify!($name), "::postgres")).await;
            }

            #[tokio::test]
            async fn mariadb() {
                super::$name(Kind::MariaDb, concat!(stringify!($name), "::mariadb")).await;
            }
        })+
    };
}

on_every_server!(
    a_log_without_schema_is_refused_by_a_sentence_that_names_the_command,
    a_newer_schema_and_another_programs_database_are_refused,
    migrations_that_run_at_once_or_were_interrupted_end_well,
    a_second_server_of_a_number_is_refused_and_one_of_another_number_has_rows_of_its_own,
    a_lost_connection_is_an_error_once_and_nothing_is_lost_or_doubled,
    a_server_that_hangs_is_given_up_in_time_and_used_again_when_it_answers,
    a_number_taken_over_meanwhile_is_not_written_with,
    a_server_that_crashes_has_everything_that_was_applied,
    a_login_that_is_refused_is_said_without_the_password,
    each_account_can_do_its_work_and_no_more,
);

async fn a_log_without_schema_is_refused_by_a_sentence_that_names_the_command(kind: Kind, test: &str) {
    let Some(lab) = Lab::empty(kind, test).await else {
        return;
    };
    let error = Store::open(&lab.location(), 1).await.unwrap_err();
    assert!(
        matches!(error, StoreError::OlderSchema(_))
            && error.to_string().contains("`nuauth-server db migrate`"),
        "{error}"
    );
    let error = Reader::open(&lab.location()).await.unwrap_err();
    assert!(matches!(error, StoreError::OlderSchema(_)), "{error}");
    let first = nulog::migrate(&lab.location()).await.unwrap();
    assert_eq!(first.from, None);
    let again = nulog::migrate(&lab.location()).await.unwrap();
    assert_eq!((again.from, again.to), (Some(first.to), first.to));
    lab.store().await.close().await.unwrap();
}

async fn a_newer_schema_and_another_programs_database_are_refused(kind: Kind, test: &str) {
    let Some(lab) = Lab::on(kind, test).await else {
        return;
    };
    lab.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (29990101000000, 'later', true, 'x', 0)",
    )
    .await;
    for error in [
        Store::open(&lab.location(), 1).await.unwrap_err(),
        Reader::open(&lab.location()).await.unwrap_err(),
        nulog::migrate(&lab.location()).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NewerSchema { .. }), "{error}");
    }
    let lab = Lab::empty(kind, test).await.unwrap();
    lab.execute("CREATE TABLE conntrack_ulog (id INTEGER)").await;
    for error in [
        Store::open(&lab.location(), 1).await.unwrap_err(),
        nulog::migrate(&lab.location()).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    }
}

async fn migrations_that_run_at_once_or_were_interrupted_end_well(kind: Kind, test: &str) {
    let Some(lab) = Lab::empty(kind, test).await else {
        return;
    };
    let runs = (0..4).map(|_| {
        let location = lab.location();
        tokio::spawn(async move { nulog::migrate(&location).await })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap().unwrap();
    }
    if kind == Kind::MariaDb {
        // The half of a migration is done, and noted as begun: of the last one, and of the first one.
        let columns = "ALTER TABLE ulog DROP COLUMN parent_id, DROP COLUMN phys_in, DROP COLUMN phys_out, \
             DROP COLUMN policy, DROP COLUMN auth; ALTER TABLE conntrack_ulog DROP COLUMN parent_id, \
             DROP COLUMN phys_in, DROP COLUMN phys_out, DROP COLUMN policy, DROP COLUMN auth;";
        for half in [
            "UPDATE _sqlx_migrations SET success = false WHERE version > 20261130000003; DROP VIEW archived_rows; \
             ALTER TABLE ulog DROP COLUMN auth"
                .to_owned(),
            format!(
                "DELETE FROM _sqlx_migrations WHERE version > 20261121000001; UPDATE _sqlx_migrations SET success = false; \
                 {columns} DROP VIEW sessions; DROP VIEW gaps; DROP TABLE gateways"
            ),
        ] {
            lab.execute(&half).await;
            let error = Store::open(&lab.location(), 1).await.unwrap_err();
            assert!(matches!(error, StoreError::OlderSchema(_)), "{error}");
            nulog::migrate(&lab.location()).await.unwrap();
        }
    }
    lab.store().await.close().await.unwrap();
}

async fn a_second_server_of_a_number_is_refused_and_one_of_another_number_has_rows_of_its_own(
    kind: Kind,
    test: &str,
) {
    let Some(lab) = Lab::on(kind, test).await else {
        return;
    };
    let mut one = lab.store().await;
    let error = Store::open(&lab.location(), 1).await.unwrap_err();
    assert!(
        matches!(error, StoreError::NumberInUse { number: 1, .. }),
        "{error}"
    );
    let mut two = Store::open(&lab.location(), 2).await.unwrap();
    let ids: Vec<_> = one.reserve_ids(2).await.unwrap().collect();
    assert_eq!(ids, [id(1), id(2)]);
    let other = two.reserve_ids(1).await.unwrap().next().unwrap();
    assert_eq!(other.get(), (2 << 49) + 1);
    let mut row = open_row(1);
    row.id = other;
    two.apply(&[nulog::Change::Open(Box::new(row))]).await.unwrap();
    one.apply(&[open(1)]).await.unwrap();
    assert_eq!(one.active_rows().await.unwrap().len(), 1);
    assert_eq!(two.active_rows().await.unwrap()[0].id, other);
    assert_eq!(lab.rows().await.len(), 2);
    one.close().await.unwrap();
    let mut one = lab.store().await;
    assert_eq!(one.reserve_ids(1).await.unwrap().next(), Some(id(3)));
}

/// What stands between a store and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing passes, nothing is refused.
    Stalled,
    /// What is connected ends; nothing new is let in.
    Cut,
}

struct Gate {
    way: watch::Sender<Way>,
    location: Location,
    _directory: TempDir,
}

impl Gate {
    fn new(server: &Server, lab: &Lab) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = lab.url().split(['?', '/']).nth(3).unwrap().to_owned();
        let url = server.url_through(&database, "nufw", directory.path());
        let name = server.socket().file_name().unwrap().to_owned();
        let listener = UnixListener::bind(directory.path().join(name)).unwrap();
        let (way, watched) = watch::channel(Way::Open);
        tokio::spawn(guard(listener, server.socket(), watched));
        Self {
            way,
            location: Location::parse(&url).unwrap().with_timeouts(TIMEOUT, TIMEOUT),
            _directory: directory,
        }
    }
}

async fn guard(listener: UnixListener, socket: std::path::PathBuf, way: watch::Receiver<Way>) {
    while let Ok((client, _)) = listener.accept().await {
        let (socket, mut way) = (socket.clone(), way.clone());
        tokio::spawn(async move {
            if *way.borrow() == Way::Cut {
                return;
            }
            let Ok(server) = UnixStream::connect(&socket).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let mut cut = way.clone();
            tokio::select! {
                () = pass(from_client, to_server, way.clone()) => {}
                () = pass(from_server, to_client, way.clone()) => {}
                _ = cut.wait_for(|way| *way == Way::Cut) => {}
            }
            let _ = way.borrow_and_update();
        });
    }
}

async fn pass(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if way.wait_for(|way| *way == Way::Open).await.is_err() {
            return;
        }
        let Ok(read) = from.read(&mut buffer).await else {
            return;
        };
        if read == 0 || way.wait_for(|way| *way == Way::Open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn gated(kind: Kind, test: &str) -> Option<(Lab, Gate)> {
    let lab = Lab::on(kind, test).await?;
    let gate = Gate::new(support::shared(kind).unwrap(), &lab);
    Some((lab, gate))
}

async fn a_lost_connection_is_an_error_once_and_nothing_is_lost_or_doubled(kind: Kind, test: &str) {
    let Some((lab, gate)) = gated(kind, test).await else {
        return;
    };
    let mut store = Store::open(&gate.location, 1).await.unwrap();
    store.apply(&[open(1)]).await.unwrap();
    gate.way.send_replace(Way::Cut);
    for _ in 0..2 {
        let error = store
            .apply(&[open(1), open(2), established(2)])
            .await
            .unwrap_err();
        assert!(
            matches!(error, StoreError::Lost { .. } | StoreError::Unreachable { .. }),
            "{error:?}"
        );
        assert!(error.spoiled_row().is_none());
    }
    let error = store.reserve_ids(1).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    gate.way.send_replace(Way::Open);
    // At any moment of it.
    for n in 2..12 {
        store.apply(&[open(1), open(n), established(n)]).await.unwrap();
        gate.way.send_replace(Way::Cut);
        tokio::task::yield_now().await;
        gate.way.send_replace(Way::Open);
        let _ = store.apply(&[open(n + 100), established(n + 100)]).await;
        store.apply(&[open(n + 100), established(n + 100)]).await.unwrap();
    }
    // The lock was taken again with the connection.
    let error = Store::open(&lab.location(), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::NumberInUse { .. }), "{error}");
    assert_eq!(store.active_rows().await.unwrap().len(), 21);
    assert_eq!(lab.rows().await.len(), 21);
}

async fn a_server_that_hangs_is_given_up_in_time_and_used_again_when_it_answers(kind: Kind, test: &str) {
    let Some((lab, gate)) = gated(kind, test).await else {
        return;
    };
    let mut store = Store::open(&gate.location, 1).await.unwrap();
    store.apply(&[open(1)]).await.unwrap();
    gate.way.send_replace(Way::Stalled);
    // The established connection, and one that is to be made.
    for _ in 0..2 {
        let attempt = tokio::time::timeout(PATIENCE, store.apply(&[open(2)])).await;
        let error = attempt.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::TimedOut { .. }), "{error:?}");
    }
    gate.way.send_replace(Way::Open);
    tokio::time::timeout(PATIENCE, store.apply(&[open(2)]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lab.rows().await.len(), 2);
    // An attempt that its caller gave up leaves nothing in doubt either.
    gate.way.send_replace(Way::Stalled);
    let dropped = tokio::time::timeout(TIMEOUT / 4, store.apply(&[open(3)])).await;
    assert!(dropped.is_err());
    gate.way.send_replace(Way::Open);
    store.apply(&[open(3), established(3)]).await.unwrap();
    assert_eq!(lab.rows().await.len(), 3);
}

async fn a_number_taken_over_meanwhile_is_not_written_with(kind: Kind, test: &str) {
    let Some((lab, gate)) = gated(kind, test).await else {
        return;
    };
    let mut store = Store::open(&gate.location, 1).await.unwrap();
    store.apply(&[open(1)]).await.unwrap();
    gate.way.send_replace(Way::Cut);
    store.apply(&[open(2)]).await.unwrap_err();
    lab.store().await.close().await.unwrap();
    gate.way.send_replace(Way::Open);
    for _ in 0..2 {
        let error = store.apply(&[open(2)]).await.unwrap_err();
        assert!(
            matches!(error, StoreError::TakenOver { number: 1, .. }),
            "{error:?}"
        );
    }
    // Also where the lock does not see it, as behind a pooler.
    let mut store = Store::open(&gate.location, 2).await.unwrap();
    lab.execute("UPDATE servers SET epoch = epoch + 1 WHERE number = 2")
        .await;
    let error = store.apply(&[open(2)]).await.unwrap_err();
    assert!(
        matches!(error, StoreError::TakenOver { number: 2, .. }),
        "{error:?}"
    );
    assert_eq!(lab.rows().await.len(), 1);
}

async fn a_server_that_crashes_has_everything_that_was_applied(kind: Kind, test: &str) {
    let server = match Server::start(kind, Durability::Process) {
        Ok(server) => Arc::new(server),
        Err(reason) => {
            support::skip(test, kind, &reason);
            return;
        }
    };
    let lab = Lab::at(&server, kind).await;
    nulog::migrate(&lab.location()).await.unwrap();
    let mut store = lab.store().await;
    let mut last = store.reserve_ids(10).await.unwrap().last();
    let mut applied = 0;
    for round in 0..3 {
        let killer = {
            let server = Arc::clone(&server);
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(Duration::from_millis(150 + 90 * round));
                server.kill();
            })
        };
        let error = loop {
            let changes: Vec<_> = (applied + 1..=applied + 50)
                .flat_map(|n| [open(n), established(n)])
                .collect();
            match store.apply(&changes).await {
                Ok(_) => applied += 50,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(
                error,
                StoreError::Lost { .. } | StoreError::Unreachable { .. } | StoreError::TimedOut { .. }
            ),
            "{error:?}"
        );
        killer.await.unwrap();
        let again = Arc::clone(&server);
        tokio::task::spawn_blocking(move || again.begin()).await.unwrap();
        let rows = store.active_rows().await.unwrap();
        // The transaction of the error may be there too, whole.
        assert!(
            rows.len() as u64 == applied || rows.len() as u64 == applied + 50,
            "{} of {applied}",
            rows.len()
        );
        let next = store.reserve_ids(10).await.unwrap().last();
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
    assert!(applied > 0);
}

async fn a_login_that_is_refused_is_said_without_the_password(kind: Kind, test: &str) {
    let Some(lab) = Lab::on(kind, test).await else {
        return;
    };
    let url = match kind {
        Kind::Postgres => lab.url().replace("nufw@", "nobody-we-know:s3cret@"),
        Kind::MariaDb => lab.url().replace("nufw@", "nufw:s3cret@"),
    };
    let absent = lab.url().replace("/nulog_", "/absent_");
    for url in [url, absent] {
        let location = Location::parse(&url).unwrap();
        for error in [
            Store::open(&location, 1).await.unwrap_err(),
            Reader::open(&location).await.unwrap_err(),
            nulog::migrate(&location).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
            assert!(
                !format!("{error} {error:?} {location:?}").contains("s3cret"),
                "{error:?}"
            );
        }
    }
    // Nobody listens.
    let location = Location::parse("postgres://nufw:s3cret@localhost/nulog?host=/nonexistent").unwrap();
    let error = Store::open(&location, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
}

const ROLES: [&str; 4] = ["server", "cleaner", "rotator", "reader"];

/// What each account must not do.
const FORBIDDEN: &[(&str, &str)] = &[
    ("server", "DELETE FROM conntrack_ulog"),
    ("server", "DELETE FROM ulog"),
    ("server", "UPDATE conntrack_ulog SET id = id + 1"),
    ("server", "DROP TABLE users"),
    ("server", "DELETE FROM servers"),
    ("cleaner", "DELETE FROM ulog"),
    ("cleaner", "DELETE FROM users"),
    ("cleaner", "UPDATE servers SET epoch = 1"),
    ("cleaner", "UPDATE conntrack_ulog SET username = 'x'"),
    ("rotator", "DELETE FROM conntrack_ulog"),
    ("rotator", "UPDATE users SET username = 'x'"),
    ("reader", "DELETE FROM ulog"),
    ("reader", "SELECT * FROM conntrack_ulog"),
    ("reader", "SELECT * FROM ulog"),
    ("reader", "SELECT * FROM users"),
    ("reader", "SELECT * FROM servers"),
    ("reader", "UPDATE live_rows SET username = 'x'"),
    ("reader", "DELETE FROM archived_rows"),
    ("reader", "UPDATE gateways SET boot = '1'"),
    ("reader", "CREATE TABLE mine (a INTEGER)"),
];

/// Searching finds both rows of the test below.
async fn searches(reader: &Location) {
    let mut search = Search::open(reader, PATIENCE).await.unwrap();
    let found = search.page(&SearchFilter::default(), None, 10).await.unwrap();
    assert_eq!(found.len(), 2);
    let question = WhoisQuestion {
        address: addr("203.0.113.5"),
        port: 61000,
        protocol: None,
        at: at(2_000_000),
        clock_error: Duration::ZERO,
    };
    assert_eq!(search.whois(&question).await.unwrap().holders.len(), 2);
}

/// The accounts of `sql/grants`.
async fn each_account_can_do_its_work_and_no_more(kind: Kind, test: &str) {
    let Some(lab) = Lab::on(kind, test).await else {
        return;
    };
    let server = support::shared(kind).unwrap();
    let file = match kind {
        Kind::Postgres => "postgres.sql",
        Kind::MariaDb => "mysql.sql",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grants").join(file);
    let grants = std::fs::read_to_string(path).unwrap();
    let database = lab.url().split(['?', '/']).nth(3).unwrap().to_owned();
    lab.execute(&grants).await;
    // Twice does no harm.
    lab.execute(&grants).await;
    let mut urls = Vec::new();
    for role in ROLES {
        let account = format!("{role}_of_{database}");
        let make = match kind {
            Kind::Postgres => format!("CREATE ROLE {account} LOGIN IN ROLE nufw_{role}"),
            Kind::MariaDb => format!(
                "CREATE USER {account}@localhost; GRANT nufw_{role} TO {account}@localhost; \
                 SET DEFAULT ROLE nufw_{role} FOR {account}@localhost"
            ),
        };
        lab.execute(&make).await;
        urls.push(server.url_through(&database, &account, server.directory()));
    }
    let [server, cleaner, rotator, reader] = &urls[..] else {
        panic!()
    };

    let mut store = Store::open(&Location::parse(server).unwrap(), 1).await.unwrap();
    let _ = store.reserve_ids(10).await.unwrap();
    store
        .apply(&[open(1), established(1), close(1), open(2)])
        .await
        .unwrap();
    store.active_rows().await.unwrap();
    store.acknowledged().await.unwrap();
    let spool = nulog::Spool::open(&lab.directory().join("spool.db"), 1, 1 << 20).await;
    let spool = spool.unwrap().name();
    store
        .replay(spool, 1, &mut vec![open(2), established(2)])
        .await
        .unwrap();
    store.spooled(spool).await.unwrap();
    store.end_open_sessions().await.unwrap();
    store.close().await.unwrap();

    let columns = crate::lab::COLUMNS;
    let archive =
        format!("INSERT INTO ulog ({columns}) SELECT {columns} FROM conntrack_ulog WHERE state IN (0, 3)");
    support::execute(kind, cleaner, &archive).await.unwrap();
    let clean = "DELETE FROM conntrack_ulog WHERE state IN (0, 3)";
    support::execute(kind, cleaner, clean).await.unwrap();
    let rotate = match kind {
        Kind::Postgres => {
            "CREATE TABLE ulog_1 PARTITION OF ulog FOR VALUES FROM (1) TO (2); \
             ALTER TABLE ulog DETACH PARTITION ulog_1; DROP TABLE ulog_1"
        }
        Kind::MariaDb => {
            "ALTER TABLE ulog REORGANIZE PARTITION rest INTO \
             (PARTITION p1 VALUES LESS THAN (2), PARTITION rest VALUES LESS THAN MAXVALUE); \
             ALTER TABLE ulog DROP PARTITION p1"
        }
    };
    support::execute(kind, rotator, rotate).await.unwrap();
    let mut connection = Reader::open(&Location::parse(reader).unwrap()).await.unwrap();
    assert_eq!(
        connection
            .rows_json(&nulog::RowFilter::default())
            .await
            .unwrap()
            .len(),
        2
    );
    connection.sessions_json().await.unwrap();
    connection.gaps_json().await.unwrap();
    searches(&Location::parse(reader).unwrap()).await;

    for (role, statement) in FORBIDDEN {
        let number = ROLES.iter().position(|known| known == role).unwrap();
        let url = &urls[number];
        let error = support::execute(kind, url, statement).await;
        assert!(error.is_err(), "{url}: {statement}");
    }
}

#[tokio::test]
async fn updates_of_a_life_touch_no_index() {
    let test = "updates_of_a_life_touch_no_index";
    let Some(lab) = Lab::on(Kind::Postgres, test).await else {
        return;
    };
    let mut store = lab.store().await;
    // As many rows at a time as live at once, so that a page is not filled before its rows have had their lives.
    for first in (1..2000).step_by(100) {
        let ids = first..first + 100;
        store
            .apply(&ids.clone().map(open).collect::<Vec<_>>())
            .await
            .unwrap();
        // Without source NAT.
        let untranslated = ids.clone().map(|n| {
            let nulog::Change::Established(mut change) = established(n) else {
                panic!()
            };
            change.binding = Some(nulog::Binding {
                original: open_row(n).original,
                reply: tcp("192.168.0.9", 8443, "10.0.0.7", 40312),
                ..binding()
            });
            nulog::Change::Established(change)
        });
        store.apply(&untranslated.collect::<Vec<_>>()).await.unwrap();
        store.apply(&ids.map(close).collect::<Vec<_>>()).await.unwrap();
    }
    store.close().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(lab.url()).await.unwrap();
    let mut shares = (0, 0);
    for _ in 0..50 {
        shares = sqlx::query_as(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'conntrack_ulog'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if shares.0 >= 4000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (updates, hot): (i64, i64) = shares;
    assert_eq!(updates, 4000);
    assert!(hot * 100 >= updates * 90, "{hot} of {updates}");
}
