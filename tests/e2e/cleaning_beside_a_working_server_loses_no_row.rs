//! `clean-conntrack` on the log of a running server: killed again and again while connections come and go, the server killed
//! while rows move, and every row is there once. `NULOG_KILLS` says how many kills (10).

use anyhow::{Context, Result};
use lab::{
    Closing, Lab, LoadOptions, Options, Pace, State, TcpService, UdpService, addr, binary, load, udp_probe,
    wait_for, with_lab,
};
use serde_json::Value;
use sqlx::Connection as _;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const COUNT: u32 = 1500;
/// One kill in so many is the server's too.
const SERVER_TOO: u64 = 5;

fn cleaner(lab: &Lab, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary("clean-conntrack")?);
    command
        .env_remove("NULOG_KILLS")
        .args(["--json", "--database"])
        .arg(format!("sqlite:{}", lab.database().display()))
        .arg("--server-socket")
        .arg(lab.dir().join("nuauth.sock"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

fn cleaned(lab: &Lab, arguments: &[&str]) -> Result<Value> {
    let Output {
        status,
        stdout,
        stderr,
    } = cleaner(lab, arguments)?.output()?;
    let said = String::from_utf8_lossy(&stderr).into_owned();
    anyhow::ensure!(status.success(), "{status}: {said}");
    serde_json::from_slice(&stdout).context(said)
}

#[test]
fn killed_in_any_order_they_lose_and_double_nothing() {
    let kills = std::env::var("NULOG_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut options = Options::default();
    options.client_addresses = 4;
    with_lab(options, |lab| {
        let _web = TcpService::keep(&lab.net.server, 80, 64)?;
        let run = LoadOptions {
            target: SocketAddr::new(addr::SERVER4, 80),
            sources: (0..4).map(addr::client4).collect(),
            first_port: 20_000,
            count: COUNT,
            pace: Pace::Closed(8),
            closing: Closing::Reset,
            timeout: Duration::from_mins(1),
        };
        let client = lab.net.client.clone();
        let loading = std::thread::spawn(move || client.enter(|| load(&run)));
        let mut from_now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.subsec_micros();
        for kill in 1..=kills {
            let mut run = cleaner(lab, &["--grace", "0s"])?
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            from_now = from_now.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(Duration::from_micros(u64::from(from_now >> 12) % 120_000));
            if kill % SERVER_TOO == 0 {
                lab.server.kill()?;
                lab.start_server()?;
            }
            run.kill()?;
            run.wait()?;
        }
        let report = loading.join().ok().context("the load ended by itself")???;
        assert_eq!(report.connected, COUNT, "{report:?}");
        wait_for("the end of every row", Duration::from_secs(90), || {
            lab.net.conntrack()?;
            Ok(lab.count("select count(*) from conntrack_ulog where state in (1, 2)")? == 0)
        })?;
        let report = cleaned(lab, &["--grace", "0s"])?;
        assert_eq!(report["through"], "server");
        let both = "(select * from conntrack_ulog union all select * from ulog)";
        let one = |what: &str| lab.count(&format!("select {what} from {both}"));
        assert_eq!(
            one("count(*)")?,
            one("count(distinct id)")?,
            "a row is there twice"
        );
        // Who comes before alice's client has logged in again is nobody, and comes again.
        let granted = |what: &str| lab.count(&format!("select {what} from {both} where state <> 0"));
        assert_eq!(
            granted("count(distinct tcp_sport || ip_saddr)")?,
            i64::from(COUNT),
            "a connection has no row"
        );
        let whole = format!("select count(*) from {both} where state = 3 and username = 'alice'");
        assert_eq!(lab.count(&whole)?, granted("count(*)")?);
        let nobody = format!("select count(*) from {both} where state = 0 and acl <> '(nobody)'");
        assert_eq!(lab.count(&nobody)?, 0);
        assert_eq!(lab.count("select count(*) from conntrack_ulog")?, 0);

        // Without a server the same program does it itself.
        lab.server.terminate()?;
        assert_eq!(cleaned(lab, &["--grace", "0s"])?["through"], "file");
        lab.start_server()?;
        lab.wait_passes(80)
    });
}

#[test]
fn a_one_way_flow_of_days_ago_is_checked_against_the_kernel_and_stays() {
    with_lab(Options::default(), |lab| {
        lab.net
            .gateway
            .sysctl("net.netfilter.nf_conntrack_udp_timeout", 600)?;
        let silent = UdpService::silent(&lab.net.server, 5001)?;
        let target = SocketAddr::new(addr::SERVER4, 5001);
        let (socket, _) = udp_probe(&lab.net.client, addr::CLIENT4, target, 1, Duration::ZERO)?;
        wait_for("the datagram", Duration::from_secs(10), || {
            Ok(silent.received() == 1)
        })?;
        let row = format!("udp_sport = {}", socket.local_addr()?.port());
        lab.wait_row(&row, State::Open)?;
        // A server that runs would be in the way of who ages the row.
        lab.server.terminate()?;
        change(
            lab,
            "update conntrack_ulog set oob_time_sec = oob_time_sec - 300000",
        )?;
        lab.start_server()?;
        let dumps = |lab: &Lab| lab.agent.count("the connection table was dumped");
        wait_for("the gateway", Duration::from_secs(30), || Ok(dumps(lab)? > 1))?;
        let before = dumps(lab)?;
        let report = cleaned(lab, &["--grace", "0s"])?;
        assert_eq!(report["old"]["gw1"]["fate"], "verifying", "{report}");
        wait_for("a dump", Duration::from_mins(1), || Ok(dumps(lab)? > before))?;
        lab.wait_row(&row, State::Open)?;
        // What the kernel has lost is closed by the server, which sees it in the table that the gateway shows.
        lab.agent.terminate()?;
        lab.net
            .gateway
            .command("conntrack")
            .args(["-D", "-p", "udp"])
            .output()?;
        lab.start_agent()?;
        let row = lab.wait_row(&row, State::Close)?;
        assert_eq!(row.text("close_reason"), Some("vanished"));
        Ok(())
    });
}

fn change(lab: &Lab, statement: &'static str) -> Result<()> {
    let place = format!("sqlite:{}", lab.database().display());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(&place).await?;
            sqlx::raw_sql(statement).execute(&mut connection).await?;
            connection.close().await
        })?;
    Ok(())
}
