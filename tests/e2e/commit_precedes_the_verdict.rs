//! With synchronous logging the row is on the disk before the packet goes on: in the system-call trace the sync of the
//! write-ahead log ends before the agent's verdict is sent.

use anyhow::Context;
use lab::{Attempt, Options, Outcome, TcpService, addr, with_lab};

#[test]
fn claim() {
    if lab::missing_strace() {
        return;
    }
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let server = lab.trace(
            &lab.server,
            "fsync,fdatasync,pwrite64,write,sendto,sendmsg,writev",
        )?;
        let agent = lab.trace(&lab.agent, "sendto,sendmsg,recvfrom,recvmsg")?;
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let (server, agent) = (server.finish()?, agent.finish()?);
        let asked = agent
            .lines()
            .find(|line| line.contains("NFQNL_MSG_PACKET"))
            .and_then(time_of)
            .with_context(|| format!("no packet in the agent's trace:\n{agent}"))?;
        let verdict = agent
            .lines()
            .find(|line| line.contains("NFQNL_MSG_VERDICT"))
            .and_then(time_of)
            .with_context(|| format!("no verdict in the agent's trace:\n{agent}"))?;
        let synced = syncs(&server)
            .into_iter()
            .find(|end| asked < *end && *end < verdict)
            .with_context(|| format!("no sync of the log between {asked} and {verdict}:\n{server}"))?;
        assert!(
            asked < synced && synced < verdict,
            "asked {asked}, synced {synced}, verdict {verdict}"
        );
        let row = lab.rows(&format!("tcp_sport = {}", tried.port))?;
        assert_eq!(row.len(), 1);
        Ok(())
    });
}

/// When each sync of the write-ahead log ended.
fn syncs(trace: &str) -> Vec<f64> {
    let lines: Vec<_> = trace.lines().collect();
    let of_log = |line: &str| line.contains("-wal>") && line.contains("sync(");
    let ends = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| of_log(line))
        .map(|(index, line)| {
            if !line.ends_with("<unfinished ...>") {
                return end_of(line);
            }
            // Another thread was shown in between; the rest stands on a later line of the same thread.
            let thread = line.split_whitespace().next();
            let rest = lines
                .get(index + 1..)?
                .iter()
                .find(|later| later.split_whitespace().next() == thread && later.contains("sync resumed>"))?;
            time_of(rest)
        });
    ends.flatten().collect()
}

/// Seconds since the epoch at which the call began: `PID TIME call(…) = result <DURATION>`.
fn time_of(line: &str) -> Option<f64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

/// When the call ended.
fn end_of(line: &str) -> Option<f64> {
    let duration: f64 = line.rsplit_once('<')?.1.trim_end_matches('>').parse().ok()?;
    Some(time_of(line)? + duration)
}

#[test]
fn traces_are_read_right() {
    let trace = "12 1700000000.5 fdatasync(9</tmp/nulog.db-wal>) = 0 <0.250000>\n\
        12 1700000001.0 fdatasync(9</tmp/nulog.db-wal> <unfinished ...>\n\
        13 1700000001.1 fdatasync(8</tmp/nulog.db>) = 0 <0.100000>\n\
        12 1700000001.5 <... fdatasync resumed>) = 0 <0.500000>";
    assert_eq!(syncs(trace), [1_700_000_000.75, 1_700_000_001.5]);
}
