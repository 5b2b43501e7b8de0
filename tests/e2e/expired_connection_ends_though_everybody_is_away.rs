//! A rule limits a connection's time. Server and agent are killed before it is over; the gateway's kernel ends it all the same,
//! nothing of it passes afterwards, and the row says so when they are back.

use crate::ended::{PATIENCE, listen};
use anyhow::Context;
use lab::{Attempt, Options, Outcome, State, addr, wait_for, with_lab};
use std::io::{Read, Write};

const POLICY: &str = r#"
[[rule]]
name = "short"
protocol = "tcp"
ports = ["8022"]
decision = "accept"
expire-after = "6s"
"#;

#[test]
fn claim() {
    let mut options = Options::default().nuauth("policy.kernel-ends-after", "2s");
    options.policy = POLICY.to_owned();
    with_lab(options, |lab| {
        let listener = listen(&lab.net.server, 8022)?;
        let mut tried = Attempt::to(addr::SERVER4, 8022).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let mut client = tried.stream.take().expect("it is open");
        let (mut server, _) = listener.accept()?;
        client.write_all(b"hello")?;
        server.read_exact(&mut [0; 5])?;
        let condition = format!("tcp_sport = {}", tried.port);
        let row = lab.wait_row(&condition, State::Established)?;
        // Its late packets may be asked about once more afterwards.
        let condition = format!("id = {}", row.int("id").context("it has one")?);
        // The kernel would let it be idle for days: `tcp 6 SECONDS ESTABLISHED …`.
        let left = || -> anyhow::Result<Option<u32>> {
            let table = lab.net.conntrack()?;
            let of_it = |line: &&String| line.contains(&format!("sport={} ", tried.port));
            let line = table.iter().find(of_it);
            Ok(line.and_then(|line| line.split_whitespace().nth(2)?.parse().ok()))
        };
        wait_for("the kernel to know when it ends", PATIENCE, || {
            Ok(left()?.is_some_and(|seconds| seconds <= 9))
        })?;
        lab.agent.kill()?;
        lab.server.kill()?;
        // Something that passes does not prolong it.
        client.write_all(b"still")?;
        server.read_exact(&mut [0; 5])?;
        wait_for("the kernel to end it", PATIENCE, || Ok(left()?.is_none()))?;
        client.write_all(b"late")?;
        server.set_read_timeout(Some(std::time::Duration::from_millis(300)))?;
        assert!(server.read(&mut [0; 4]).is_err(), "nothing passes any more");
        lab.start_server()?;
        lab.start_agent()?;
        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.text("close_reason"), Some("expired"), "{row:?}");
        Ok(())
    });
}
