//! Two servers write to one database of `PostgreSQL`, each under its number: the agent fails over to the second, and what it
//! granted is in the same log. Each connection has one row but for one that both granted, and that one says so.

use crate::support::{Durability, Kind, Server, skip};
use anyhow::{Context, Result};
use lab::{Attempt, Lab, Options, Outcome, Proc, Spec, TcpService, addr, binary, wait_for, with_lab};
use nulog::{Location, Reader, RowFilter};
use serde_json::{Map, Value};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn claim() {
    let database = match Server::start(Kind::Postgres, Durability::Process) {
        Ok(database) => database,
        Err(reason) => return skip("two_servers_share_one_database", Kind::Postgres, &reason),
    };
    let log = runtime().block_on(async {
        let url = database.url(&database.database().await);
        nulog::migrate(&url.parse::<Location>().unwrap()).await.unwrap();
        url
    });
    let both = vec!["10.81.0.1:4128".to_owned(), "10.81.0.1:5128".to_owned()];
    let options = Options::prepared()
        .nuauth("log.database", log.as_str())
        .nuauth("log.spool", "spool.db")
        .agent("server.address", both)
        // A live connection that the other server granted has its row in this log already.
        .nuauth("log.adopt", false)
        .agent("server.return-after", "4s");
    with_lab(options, |lab| story(lab, &log));
}

fn story(lab: &mut Lab, log: &str) -> Result<()> {
    let _web = TcpService::echo(&lab.net.server, 80)?;
    let _others = second(lab)?;
    let mut old = pass(lab)?;
    wait_one(log, old.port, 2)?;

    // What the agent says arrives, what the first server says does not: it grants what the agent never hears.
    lab.net.iptables("-I INPUT -i lo -p tcp --sport 4128 -j DROP")?;
    let crossing = pass(lab)?;
    wait_for("both servers to have granted it", PATIENCE, || {
        Ok(of(log, crossing.port)?.len() == 2)
    })?;
    let later = pass(lab)?;
    wait_one(log, later.port, 2)?;
    let server = |row: &Map<String, Value>| {
        let id = row["id"]
            .as_str()
            .unwrap_or_default()
            .parse::<u64>()
            .unwrap_or_default();
        id >> 49
    };
    assert_eq!(server(&of(log, old.port)?[0]), 1);
    assert_eq!(
        server(&of(log, later.port)?[0]),
        2,
        "the second server's own number"
    );
    old.talk("still here")?;

    // The agent goes back, and says what it asked another one.
    lab.net.iptables("-D INPUT -i lo -p tcp --sport 4128 -j DROP")?;
    lab.agent.wait_log("the gateway goes back to a better server")?;
    let reasons = |port: u16| -> Result<Vec<(u64, Value)>> {
        let rows = of(log, port)?;
        Ok(rows
            .iter()
            .map(|row| (server(row), row["close_reason"].clone()))
            .collect())
    };
    wait_for("the first server's row to be superseded", PATIENCE, || {
        Ok(reasons(crossing.port)? == [(1, "superseded".into()), (2, Value::Null)])
    })
    .with_context(|| format!("{:#?}", of(log, crossing.port)))?;
    for port in [old.port, later.port] {
        assert_eq!(of(log, port)?.len(), 1, "no other row has come of it");
    }

    // Once more at the second, which knows its own and closes them.
    lab.server.kill()?;
    let again = pass(lab)?;
    let ports = [crossing.port, later.port, again.port];
    drop((crossing, later, again));
    wait_for("the second server's rows to be closed", PATIENCE, || {
        lab.net.conntrack()?;
        Ok(ports.iter().all(|port| {
            of(log, *port).is_ok_and(|rows| !rows.is_empty() && rows.iter().all(|row| row["state"] == 3))
        }))
    })
    .with_context(|| format!("{:#?}", ports.map(|port| of(log, port))))?;
    old.talk("still here")?;
    assert_eq!(of(log, old.port)?[0]["state"], 2, "it is the first server's");
    Ok(())
}

/// The second server and alice's client there, then everything else.
fn second(lab: &mut Lab) -> Result<[Proc; 2]> {
    let text = std::fs::read_to_string(lab.dir().join("nuauth.toml"))?;
    let text = text
        .replace("server-number = 1", "server-number = 2")
        .replace(":4128", ":5128")
        .replace(":4129", ":5129")
        .replace("spool.db", "spool2.db")
        .replace("nuauth.sock", "nuauth2.sock");
    let file = lab.dir().join("nuauth2.toml");
    std::fs::write(&file, text)?;
    let mut server = Spec::new(
        "second-server",
        &lab.net.gateway,
        binary("nuauth-server")?,
        lab.dir(),
    )
    .args(["--config".into(), file])
    .start()?;
    server.wait_log("ready")?;
    lab.start_server()?;
    lab.apply_rules(&[])?;
    lab.net
        .iptables("-t mangle -I FORWARD -p tcp --dport 5129 -j ACCEPT")?;
    lab.log_in("alice")?;
    let at = format!("{}:5129", addr::GATEWAY4);
    let mut client = Spec::new("nutcpc-second", &lab.net.client, binary("nutcpc")?, lab.dir())
        .args(["--server", &at, "--name", "nuauth.lab", "--user", "alice"])
        .args([
            "--ca".into(),
            lab.dir().join("pki/ca.crt"),
            "--password-file".into(),
            lab.dir().join("password"),
        ])
        .start()?;
    client.wait_log("logged in as")?;
    lab.start_agent()?;
    Ok([server, client])
}

fn pass(lab: &Lab) -> Result<lab::Tried> {
    let tried = Attempt::to(addr::SERVER4, 80)
        .within(Duration::from_secs(20))
        .run(&lab.net.client)?;
    assert_eq!(tried.outcome, Outcome::Connected);
    Ok(tried)
}

/// Waits until the port has one row that was granted, in this state.
fn wait_one(log: &str, port: u16, state: i64) -> Result<()> {
    wait_for("its only row", PATIENCE, || {
        let rows = of(log, port)?;
        Ok(rows.len() == 1 && rows[0]["state"] == state)
    })
}

fn of(log: &str, port: u16) -> Result<Vec<Map<String, Value>>> {
    runtime().block_on(async {
        let mut reader = Reader::open(&log.parse()?).await?;
        let mut rows = reader.rows_json(&RowFilter::default()).await?;
        rows.retain(|row| row["state"] != 0 && row["sport"] == port);
        Ok(rows)
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
