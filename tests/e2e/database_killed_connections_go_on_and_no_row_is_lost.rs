//! While the log's database is dead connections work as before, also after the server was killed and started without it;
//! when the database is back it has every row, once, with its end.

use crate::support::{Durability, Kind, Server, skip};
use anyhow::{Context, Result};
use lab::{Attempt, Lab, Options, Outcome, TcpService, addr, wait_for, with_lab};
use nulog::{Location, Reader, RowFilter};
use serde_json::{Map, Value};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn postgres() {
    claim(Kind::Postgres, "database_killed::postgres");
}

#[test]
fn mariadb() {
    claim(Kind::MariaDb, "database_killed::mariadb");
}

fn claim(kind: Kind, test: &str) {
    let database = match Server::start(kind, Durability::Process) {
        Ok(database) => database,
        Err(reason) => return skip(test, kind, &reason),
    };
    let log = runtime().block_on(async {
        let url = database.url(&database.database().await);
        nulog::migrate(&url.parse::<Location>().unwrap()).await.unwrap();
        url
    });
    let options = Options::default()
        .nuauth("log.database", log.as_str())
        .nuauth("log.connect-timeout", "1s")
        .nuauth("log.transaction-timeout", "2s")
        .nuauth("log.spool", "spool.db");
    with_lab(options, |lab| story(lab, &database, &log));
}

fn story(lab: &mut Lab, database: &Server, log: &str) -> Result<()> {
    let _web = TcpService::echo(&lab.net.server, 80)?;
    let pass = |lab: &Lab| -> Result<_> {
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        Ok(tried)
    };
    let (mut ends_meanwhile, mut outlives) = (pass(lab)?, pass(lab)?);
    database.murder();
    let mut ports = vec![ends_meanwhile.port, outlives.port];
    let mut ended = vec![ends_meanwhile.port];
    let mut left_open = Vec::new();
    for number in 0..10 {
        let mut tried = pass(lab)?;
        tried.talk("the log is away")?;
        ports.push(tried.port);
        if number % 2 == 0 {
            ended.push(tried.port);
        } else {
            left_open.push(tried);
        }
    }
    lab.server.wait_log("rows go to the spool")?;
    ends_meanwhile.talk("bye")?;
    drop(ends_meanwhile);

    lab.server.kill()?;
    lab.start_server()?;
    lab.server.wait_log("the server starts without it")?;
    lab.wait_passes(80)?;
    let tried = pass(lab)?;
    ports.push(tried.port);
    ended.push(tried.port);
    drop(tried);
    outlives.talk("still here")?;

    database.begin();
    lab.server.wait_log("the live rows of the log are known")?;
    lab.server.wait_log("rows go there again")?;
    wait_for("the rows of the connections that ended", PATIENCE, || {
        lab.net.conntrack()?;
        let rows = rows(log)?;
        Ok(ended
            .iter()
            .all(|port| of(&rows, *port).is_some_and(|row| row["state"] == 3)))
    })
    .with_context(|| format!("{:#?}", rows(log)))?;
    let rows = rows(log)?;
    for port in &ports {
        let found = rows.iter().filter(|row| row["sport"] == *port).count();
        assert_eq!(found, 1, "port {port}: {rows:#?}");
    }
    for port in &ended {
        let row = of(&rows, *port).context("it was there")?;
        assert!(row["packets_in"].as_i64() >= Some(3), "{row:#?}");
        assert_eq!(row["username"], "alice");
    }
    assert_eq!(of(&rows, outlives.port).context("it was there")?["state"], 2);
    let gaps = runtime().block_on(async {
        let mut reader = Reader::open(&log.parse()?).await?;
        reader.gaps_json().await
    })?;
    assert!(gaps.iter().any(|gap| gap["cause"] == "spooled"), "{gaps:#?}");
    Ok(())
}

fn rows(log: &str) -> Result<Vec<Map<String, Value>>> {
    runtime().block_on(async {
        let mut reader = Reader::open(&log.parse()?).await?;
        let mut rows = reader.rows_json(&RowFilter::default()).await?;
        rows.retain(|row| row["state"] != 0);
        Ok(rows)
    })
}

fn of(rows: &[Map<String, Value>], port: u16) -> Option<&Map<String, Value>> {
    rows.iter().find(|row| row["sport"] == port)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
