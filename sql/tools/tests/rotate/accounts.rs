//! What the rotator's account may not do, and that an owner who is no superuser can give it out.

use crate::lab::{DAY, Lab, grants, now, on_every_server};
use crate::support::{self, Kind};
use nulog::{Location, Reader, RowFilter};

on_every_server!(the_rotator_can_do_no_more);

async fn the_rotator_can_do_no_more(lab: Lab) {
    lab.add(1, 10, now() - 100 * DAY, 1).await;
    lab.rotate(&["--keep", "90d"]).await;
    for statement in [
        "SELECT * FROM conntrack_ulog",
        "INSERT INTO conntrack_ulog (id) VALUES (1)",
        "UPDATE conntrack_ulog SET state = 3",
        "DELETE FROM conntrack_ulog",
        "DROP TABLE conntrack_ulog",
        "DROP TABLE users",
        "UPDATE users SET username = 'x'",
        "INSERT INTO log_gap (cause) VALUES ('x')",
        "DELETE FROM gateways",
        "UPDATE servers SET epoch = 1",
        "DELETE FROM _sqlx_migrations",
        "DROP VIEW connections",
    ] {
        let done = support::execute(lab.kind.unwrap(), &lab.rotator, statement).await;
        assert!(done.is_err(), "{statement}");
    }
}

/// Who made the tables is often no superuser, gives the archive away by the grants, and its views must go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_of_an_owner_who_is_no_superuser_go_on() {
    let server = match support::shared(Kind::Postgres) {
        Ok(server) => server,
        Err(reason) => {
            support::skip(
                "views_of_an_owner_who_is_no_superuser_go_on",
                Kind::Postgres,
                reason,
            );
            return;
        }
    };
    let database = server.database().await;
    let admin = server.url(&database);
    let owner = format!("owner_of_{database}");
    let make = format!(
        "CREATE ROLE {owner} LOGIN CREATEROLE; ALTER DATABASE {database} OWNER TO {owner}; \
         ALTER SCHEMA public OWNER TO {owner}"
    );
    support::execute(Kind::Postgres, &admin, &make).await.unwrap();
    let url = server.url_through(&database, &owner, server.directory());
    nulog::migrate(&Location::parse(&url).unwrap()).await.unwrap();
    for _ in 0..2 {
        support::execute(Kind::Postgres, &url, &grants(Kind::Postgres))
            .await
            .unwrap();
    }
    let reader = format!("reader_of_{database}");
    let make = format!("CREATE ROLE {reader} LOGIN IN ROLE nufw_reader");
    support::execute(Kind::Postgres, &url, &make).await.unwrap();
    let reader = server.url_through(&database, &reader, server.directory());
    let mut reader = Reader::open(&Location::parse(&reader).unwrap()).await.unwrap();
    assert_eq!(reader.rows_json(&RowFilter::default()).await.unwrap().len(), 0);
}
