//! Two servers, each with a log of its own: when the first is lost, users go on with the second within the heartbeat time,
//! packets that waited are asked about there, and the agent goes back when the first has been healthy for a while.

use anyhow::{Context, Result};
use lab::{
    Attempt, Lab, NetNs, Options, Outcome, Proc, Spec, State, TcpService, addr, binary, checked, wait_for,
    with_lab,
};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);
/// The lab's dead-after is 4 s; the machine may be busy.
const TAKE_OVER: Duration = Duration::from_secs(20);

fn options() -> Options {
    let both = vec!["10.81.0.1:4128".to_owned(), "10.81.0.1:5128".to_owned()];
    Options::prepared()
        .agent("server.address", both)
        .agent("server.return-after", "4s")
}

/// The second server, and alice's client there.
struct Second {
    server: Proc,
    _client: Proc,
}

fn spec(lab: &Lab, name: &str, ns: &NetNs, program: &str) -> Result<Spec> {
    Ok(Spec::new(name, ns, binary(program)?, lab.dir()).env("NUFW_LOG", "debug"))
}

fn start(lab: &mut Lab) -> Result<Second> {
    let text = std::fs::read_to_string(lab.dir().join("nuauth.toml"))?;
    let second = text
        .replace("server-number = 1", "server-number = 2")
        .replace(":4128", ":5128")
        .replace(":4129", ":5129")
        .replace("nulog.db", "nulog2.db")
        .replace("nuauth.sock", "nuauth2.sock")
        .replace(
            "[log]\n",
            &format!("[log]\nspool = \"{}/spool2.db\"\n", lab.dir().display()),
        );
    let file = lab.dir().join("nuauth2.toml");
    std::fs::write(&file, second)?;
    let mut server = spec(lab, "second-server", &lab.net.gateway, "nuauth-server")?
        .args(["--config".into(), file])
        .start()?;
    server.wait_log("ready")?;
    lab.start_server()?;
    lab.apply_rules(&[])?;
    // Users log in at every server of their list.
    lab.net
        .iptables("-t mangle -I FORWARD -p tcp --dport 5129 -j ACCEPT")?;
    lab.log_in("alice")?;
    let at = format!("{}:5129", addr::GATEWAY4);
    let dir = lab.dir().to_owned();
    let mut client = spec(lab, "nutcpc-second", &lab.net.client, "nutcpc")?
        .args(["--server", &at, "--name", "nuauth.lab", "--user", "alice"])
        .args([
            "--ca".into(),
            dir.join("pki/ca.crt"),
            "--password-file".into(),
            dir.join("password"),
        ])
        .start()?;
    client.wait_log("logged in as")?;
    lab.start_agent()?;
    Ok(Second {
        server,
        _client: client,
    })
}

fn rows_of_second(lab: &Lab, condition: &str) -> Result<Vec<serde_json::Value>> {
    let sql = format!("select * from conntrack_ulog where {condition}");
    let mut sqlite = Command::new("sqlite3");
    sqlite
        .args(["-readonly", "-json", "-cmd", ".timeout 5000"])
        .arg(lab.dir().join("nulog2.db"))
        .arg(sql);
    let text = checked(&mut sqlite)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).context("sqlite3 gave no JSON")
}

/// A connection that begins now is alice's in the log of the second server.
fn passes_at_second(lab: &Lab) -> Result<()> {
    let tried = Attempt::to(addr::SERVER4, 80)
        .within(TAKE_OVER)
        .run(&lab.net.client)?;
    assert_eq!(tried.outcome, Outcome::Connected, "nobody took over");
    let condition = format!("tcp_sport = {} and username = 'alice' and state = 2", tried.port);
    wait_for("its row at the second server", PATIENCE, || {
        Ok(rows_of_second(lab, &condition)?.len() == 1)
    })?;
    assert_eq!(
        lab.rows(&format!("state > 0 and tcp_sport = {}", tried.port))?
            .len(),
        0
    );
    Ok(())
}

#[test]
fn when_the_first_is_killed_and_gives_back_when_it_is_healthy_again() {
    with_lab(options(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut second = start(lab)?;
        let mut old = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(old.outcome, Outcome::Connected);
        let condition = format!("tcp_sport = {}", old.port);
        lab.wait_row(&condition, State::Established)?;

        lab.server.kill()?;
        passes_at_second(lab)?;
        old.talk("still here")?;

        lab.start_server()?;
        lab.clients.clear();
        lab.log_in("alice")?;
        lab.agent.wait_log("the gateway goes back to a better server")?;
        second
            .server
            .wait_log("the gateway goes back to a better server")?;
        // Everybody is served by the first again, and it knows its connections.
        wait_for("a connection at the first server", PATIENCE, || {
            let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
            Ok(!lab
                .rows(&format!("state > 0 and tcp_sport = {}", tried.port))?
                .is_empty())
        })?;
        old.talk("and here")?;
        drop(old);
        let row = lab.wait_row(&condition, State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        Ok(())
    });
}

#[test]
fn when_the_first_is_partitioned_and_what_it_decided_is_superseded() {
    with_lab(options(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _second = start(lab)?;
        // What the agent says arrives, what the server says does not; nothing is refused.
        let cut = "INPUT -i lo -p tcp --sport 4128 -j DROP";
        lab.net.iptables(&format!("-I {cut}"))?;
        let tried = Attempt::to(addr::SERVER4, 80)
            .within(TAKE_OVER)
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected, "nobody took over");
        let condition = format!("tcp_sport = {}", tried.port);
        wait_for("its row at the second server", PATIENCE, || {
            Ok(rows_of_second(lab, &format!("{condition} and username = 'alice'"))?.len() == 1)
        })?;
        let row = lab.wait_row(&condition, State::Open)?;
        assert_eq!(
            row.text("username"),
            Some("alice"),
            "the first server granted it too"
        );
        passes_at_second(lab)?;

        lab.net.iptables(&format!("-D {cut}"))?;
        lab.agent.wait_log("the gateway goes back to a better server")?;
        let row = lab.wait_row(&format!("{condition} and acl = 'web'"), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("superseded"));
        // The second server granted it, and it lives: the first follows it from here on.
        lab.wait_row(&format!("{condition} and acl = '(adopted)'"), State::Established)?;
        Ok(())
    });
}
