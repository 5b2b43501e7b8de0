//! After some connections were accepted, dropped and rejected, the metrics of agent and server say exactly those numbers.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, scrape, wait_for, with_lab};
use std::time::Duration;

const AGENT: u16 = 9641;
const SERVER: u16 = 9642;
const SOON: Duration = Duration::from_mins(1);

#[test]
#[expect(clippy::float_cmp, reason = "counts are whole numbers far below 2^53")]
fn claim() {
    let options = Options::default()
        .agent("metrics.listen", "127.0.0.1:9641")
        .nuauth("metrics.listen", "127.0.0.1:9642");
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for _ in 0..5 {
            let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            let port = tried.port;
            drop(tried);
            lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
        }
        for _ in 0..3 {
            let tried = Attempt::to(addr::SERVER4, 25)
                .within(Duration::from_millis(600))
                .run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::TimedOut);
        }
        let tried = Attempt::to(addr::SERVER4, 6666).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Refused);

        let gateway = &lab.net.gateway;
        let decided = |decision, reason| [("decision", decision), ("reason", reason)];
        // Retransmissions make further packets, never further decisions. The three are dropped, the teapot is rejected.
        let refused = decided("refuse", "rule");
        wait_for("the server to have counted", SOON, || {
            Ok(scrape(gateway, SERVER)?.get("nuauth_decisions_total", &refused) == Some(4.0))
        })?;
        let (mut server, mut agent) = (scrape(gateway, SERVER)?, scrape(gateway, AGENT)?);
        let verdict = |agent: &nufw_common::observe::Scrape, kind: &str| {
            agent.get(
                "nufw_agent_verdicts_total",
                &[("verdict", kind), ("reason", "server")],
            )
        };
        wait_for("the agent to have told of its last packet", SOON, || {
            (server, agent) = (scrape(gateway, SERVER)?, scrape(gateway, AGENT)?);
            Ok(
                server.get("nuauth_asks_total", &[]) == agent.get("nufw_agent_asked_total", &[])
                    && agent.get("nufw_agent_pending_packets", &[]) == Some(0.0),
            )
        })?;
        let ask = |name: &str| server.get(name, &[]).unwrap_or(-1.0);
        assert_eq!(
            server.get("nuauth_decisions_total", &decided("grant", "rule")),
            Some(5.0)
        );
        for reason in ["nobody", "disclaimed", "timeout", "unlogged", "full"] {
            let found = server.get("nuauth_decisions_total", &decided("refuse", reason));
            assert_eq!(found, Some(0.0), "{reason}");
        }
        let repeated = ask("nuauth_repeated_asks_total");
        assert_eq!(ask("nuauth_asks_total"), 9.0 + repeated);
        assert_eq!(verdict(&agent, "accept"), Some(5.0));
        assert_eq!(verdict(&agent, "reject"), Some(1.0));
        assert_eq!(verdict(&agent, "drop"), Some(3.0 + repeated));
        let mine = agent.sum("nufw_agent_verdicts_total", &[]);
        assert_eq!(agent.get("nufw_agent_packets_total", &[]), Some(mine));
        assert_eq!(agent.get("nufw_agent_wait_seconds_count", &[]), Some(mine));

        let rows = |kind| server.get("nuauth_rows_total", &[("kind", kind)]);
        assert_eq!(
            [rows("open"), rows("established"), rows("close"), rows("drop")],
            [Some(5.0), Some(5.0), Some(5.0), Some(4.0)]
        );
        assert_eq!(server.get("nuauth_commit_wait_seconds_count", &[]), Some(5.0));
        for kind in ["new", "update", "destroy"] {
            let seen = agent.get("nufw_agent_events_total", &[("type", kind)]);
            assert!(seen >= Some(5.0), "{kind}: {seen:?}");
        }
        assert_eq!(ask("nuauth_sessions"), 1.0);
        assert_eq!(ask("nuauth_live_connections"), 0.0);
        assert_eq!(
            server.get("nuauth_gateway_connected", &[("gateway", "gw1")]),
            Some(1.0)
        );
        assert_eq!(agent.get("nufw_agent_link_up", &[]), Some(1.0));
        assert_eq!(agent.get("nufw_agent_queue_depth", &[]), Some(0.0));
        let granted = agent.get("nufw_agent_receive_buffer_bytes", &[("socket", "events")]);
        assert!(granted > Some(100_000.0), "{granted:?}");
        assert_eq!(
            agent.get("nufw_agent_receive_buffer_drops_total", &[("socket", "events")]),
            Some(0.0)
        );
        Ok(())
    });
}
