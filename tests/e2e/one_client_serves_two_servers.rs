//! One client is logged in at two servers at once: when one is killed the other asks it and is answered, and when the first is
//! back so is its session.

use crate::nutcpc::{FIRST, Home, PATIENCE, second_server};
use anyhow::Result;
use lab::{Attempt, Options, Outcome, TcpService, addr, wait_for, with_lab};
use std::time::Duration;

const SECOND: &str = "10.81.0.1:5129";

#[test]
fn claim() {
    let both = vec!["10.81.0.1:4128".to_owned(), "10.81.0.1:5128".to_owned()];
    let options = Options::prepared()
        .agent("server.address", both)
        .agent("server.return-after", "4s");
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.start_server()?;
        lab.apply_rules(&[])?;
        let _second = second_server(lab)?;
        let home = Home::new(lab, "alice", None, &[FIRST, SECOND], "")?;
        let client = home.start(lab)?;
        lab.start_agent()?;
        let passes = |lab: &lab::Lab| -> Result<Outcome> {
            let attempt = Attempt::to(addr::SERVER4, 80).within(Duration::from_secs(20));
            Ok(attempt.run(&lab.net.client)?.outcome)
        };
        assert_eq!(passes(lab)?, Outcome::Connected, "by the first");

        let pid = client.pid()?;
        lab.server.kill()?;
        assert_eq!(passes(lab)?, Outcome::Connected, "by the second");
        let servers = home.wait_status(lab, 75)?;
        assert_eq!(
            [&servers[0]["state"], &servers[1]["state"]],
            ["waiting", "logged-in"],
            "{servers:?}"
        );

        lab.start_server()?;
        let servers = home.wait_status(lab, 0)?;
        assert_eq!([&servers[0]["server"], &servers[1]["server"]], [FIRST, SECOND]);
        assert_eq!(client.pid()?, pid, "it is the same client");
        wait_for("a connection by the first again", PATIENCE, || {
            passes(lab)?;
            Ok(lab.count("select count(*) from conntrack_ulog where state > 0 and username = 'alice'")? >= 2)
        })
    });
}
