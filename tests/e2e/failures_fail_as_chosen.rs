//! Every failure with every choice: what becomes of a new connection, and what the log says of it. The table that is
//! printed is the one in docs/operations.md.

use anyhow::{Context, Result, ensure};
use lab::{Attempt, Lab, Options, Outcome, Signal, State, TcpService, UdpService, addr, udp_probe, with_lab};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const BLIND: i64 = 0x0400_0000;
/// Longer than dead-after of the lab (4 s), and the time in which every step of reaching a server fails (5 s each).
const LONG: Duration = Duration::from_secs(25);
const SHORT: Duration = Duration::from_secs(3);

/// One failure: how it comes about, how it ends, and how long a connection may take to meet its fate.
struct Failure {
    name: &'static str,
    key: &'static str,
    begin: fn(&mut Lab) -> Result<()>,
    end: fn(&mut Lab) -> Result<()>,
    within: Duration,
}

const FAILURES: [Failure; 7] = [
    Failure {
        name: "agent killed",
        key: "on-agent-loss",
        begin: |lab| lab.agent.kill(),
        end: Lab::start_agent,
        within: SHORT,
    },
    Failure {
        name: "agent ended",
        key: "on-agent-loss",
        begin: |lab| lab.agent.terminate().map(drop),
        end: Lab::start_agent,
        within: SHORT,
    },
    Failure {
        name: "server killed",
        key: "on-server-loss",
        begin: |lab| {
            lab.server.kill()?;
            lab.agent.wait_log("no link to the server").map(drop)
        },
        end: |lab| {
            lab.start_server()?;
            lab.clients.clear();
            lab.log_in("alice")
        },
        within: SHORT,
    },
    Failure {
        name: "server partitioned",
        key: "on-server-loss",
        begin: |lab| {
            lab.net.iptables("-I INPUT -i lo -p tcp --dport 4128 -j DROP")?;
            lab.net.iptables("-I INPUT -i lo -p tcp --sport 4128 -j DROP")
        },
        end: |lab| {
            lab.net.iptables("-D INPUT -i lo -p tcp --dport 4128 -j DROP")?;
            lab.net.iptables("-D INPUT -i lo -p tcp --sport 4128 -j DROP")
        },
        within: LONG,
    },
    Failure {
        name: "server hung",
        key: "on-server-loss",
        begin: |lab| lab.server.signal(Signal::STOP),
        end: |lab| lab.server.signal(Signal::CONT),
        within: LONG,
    },
    Failure {
        name: "queue full",
        key: "on-queue-full",
        begin: |lab| {
            lab.agent.signal(Signal::STOP)?;
            crowd(lab)
        },
        end: |lab| lab.agent.signal(Signal::CONT),
        within: SHORT,
    },
    Failure {
        name: "too many packets wait",
        key: "on-queue-full",
        begin: |lab| {
            // A client that does not answer: every packet waits.
            lab.clients["alice"].signal(Signal::STOP)?;
            crowd(lab)
        },
        end: |lab| lab.clients["alice"].signal(Signal::CONT),
        within: SHORT,
    },
];

/// More new connections than queue or agent have room for.
fn crowd(lab: &Lab) -> Result<()> {
    for port in 5001..5021 {
        let to = SocketAddr::new(addr::SERVER4, port);
        udp_probe(&lab.net.client, addr::CLIENT4, to, 1, Duration::from_millis(1))?;
    }
    Ok(())
}

fn options(choice: &str) -> Options {
    Options::default()
        .agent("queue.on-server-loss", choice)
        .agent("queue.on-queue-full", choice)
        .agent("queue.on-agent-loss", choice)
        .agent("queue.length", 4)
        .agent("queue.max-pending", 4)
        .agent("queue.packet-timeout", "10s")
}

/// What was seen of one failure.
fn observe(lab: &mut Lab, failure: &Failure) -> Result<(Outcome, String)> {
    lab.wait_passes(80)?;
    (failure.begin)(lab)?;
    let tried = Attempt::to(addr::SERVER4, 80)
        .within(failure.within)
        .run(&lab.net.client)?;
    let outcome = tried.outcome;
    (failure.end)(lab)?;
    let row = format!("tcp_sport = {}", tried.port);
    if outcome != Outcome::Connected {
        drop(tried);
        // A retransmission may be asked about as soon as the failure is over; nothing of before may have passed.
        lab.wait_passes(80)?;
        ensure!(
            lab.rows(&format!("acl = '(blind)' and {row}"))?.is_empty(),
            "a row for what never passed"
        );
        return Ok((outcome, "dropped".to_owned()));
    }
    let mut tried = tried;
    tried.talk("hello")?;
    let live = lab.wait_row(&format!("acl = '(blind)' and {row}"), State::Established)?;
    ensure!(live.is_null("user_id") && live.is_null("username"), "{live:?}");
    ensure!(
        live.int("ct_mark") == Some(BLIND) && live.int("oob_mark") == Some(BLIND),
        "{live:?}"
    );
    drop(tried);
    let closed = lab.wait_row(&format!("acl = '(blind)' and {row}"), State::Close)?;
    ensure!(
        closed.ended_in_order() && closed.int("bytes_in") > Some(0),
        "{closed:?}"
    );
    // The server may have granted it too, if only its answer was lost; that row has no connection.
    ensure!(
        lab.rows(&format!("{row} and ct_id is not null"))?.len() == 1,
        "one row a connection"
    );
    Ok((outcome, "passed; its row has no user and says (blind)".to_owned()))
}

fn table(choice: &str) -> Result<String> {
    let mut text = String::new();
    let mut result = Ok(());
    with_lab(options(choice), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _silent = UdpService::silent(&lab.net.server, 5001)?;
        for failure in &FAILURES {
            let seen = observe(lab, failure).with_context(|| format!("{} with {choice}", failure.name))?;
            let expected = if choice == "accept" {
                Outcome::Connected
            } else {
                Outcome::TimedOut
            };
            if seen.0 != expected {
                result = Err(anyhow::anyhow!("{} with {choice}: {seen:?}", failure.name));
            }
            writeln!(
                text,
                "| {} | `{} = \"{choice}\"` | {} |",
                failure.name, failure.key, seen.1
            )?;
        }
        Ok(())
    });
    result.map(|()| text)
}

#[test]
fn dropped_or_passed_with_a_row_that_says_so() -> Result<()> {
    if !lab::lab_possible() {
        return Ok(());
    }
    let table = table("drop")? + &table("accept")?;
    lab::show(&table);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(page)?;
    for line in table.lines() {
        ensure!(page.contains(line), "docs/operations.md lacks this line: {line}");
    }
    Ok(())
}

#[test]
fn a_connection_that_was_asked_about_is_not_blind_and_one_that_was_not_is_told_by_the_dump() {
    with_lab(options("accept"), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let asked = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        let row = lab.wait_row(&format!("tcp_sport = {}", asked.port), State::Established)?;
        assert_eq!(
            (row.text("username"), row.int("ct_mark")),
            (Some("alice"), Some(1001))
        );
        // Everything of this one happens without an agent; only the dump at its start can show it.
        lab.agent.kill()?;
        let mut blind = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        blind.talk("hello")?;
        lab.start_agent()?;
        let row = lab.wait_row(&format!("tcp_sport = {}", blind.port), State::Established)?;
        assert_eq!((row.text("acl"), row.is_null("user_id")), (Some("(blind)"), true));
        let condition = format!("tcp_sport = {}", blind.port);
        drop(blind);
        lab.wait_row(&condition, State::Close)?;
        Ok(())
    });
}
