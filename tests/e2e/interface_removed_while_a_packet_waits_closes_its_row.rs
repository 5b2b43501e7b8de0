//! An interface goes while a packet waits to leave by it: the kernel drops the packet, the verdict that comes later is
//! unused, and the row says so. The next connection over the interface that comes back is a row like any other.

use lab::{Attempt, Options, Outcome, Signal, State, TcpService, addr, checked, wait_for, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let alice = lab.clients.get("alice").expect("she is logged in");
        alice.signal(Signal::STOP)?;
        let client = lab.net.client.clone();
        let waiting = std::thread::spawn(move || {
            Attempt::to(addr::SERVER4, 80)
                .within(Duration::from_secs(8))
                .run(&client)
        });
        wait_for("the packet to be queued", Duration::from_secs(10), || {
            Ok(lab.queued()? >= 1)
        })?;
        let ip = |words: &str| checked(lab.net.gateway.command("ip").args(words.split_ascii_whitespace()));
        ip("link set wan down")?;
        alice.signal(Signal::CONT)?;
        let row = lab.wait_row("tcp_dport = 80", State::Close)?;
        assert_eq!(row.text("close_reason"), Some("never-forwarded"), "{row:?}");
        assert_eq!(row.text("oob_out"), Some("wan"));
        assert!(
            row.is_null("start_timestamp") && row.is_null("packets_in"),
            "{row:?}"
        );
        let tried = waiting.join().expect("the attempt ends")?;
        assert_ne!(tried.outcome, Outcome::Connected);

        ip("link set wan name uplink")?;
        ip("link set uplink up")?;
        ip("addr replace 10.82.0.1/24 dev uplink")?;
        lab.wait_passes(80)?;
        let row = lab.wait_row("oob_out = 'uplink' AND close_reason = 'finished'", State::Close)?;
        assert_eq!(row.text("username"), Some("alice"));
        Ok(())
    });
}
