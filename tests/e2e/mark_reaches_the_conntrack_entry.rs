//! The user's mark is on the kernel's entry, where routing and shaping find it, for every later packet too.

use lab::{Attempt, Options, Outcome, TcpService, addr, with_lab};

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for (from, to) in [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)] {
            let mut tried = Attempt::to(to, 80).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let entries = lab.net.conntrack()?;
            let port = format!("sport={} ", tried.port);
            let entry = entries.iter().find(|entry| entry.contains(&port));
            assert!(
                entry.is_some_and(|entry| entry.contains(" mark=1001 ")),
                "{entry:?}"
            );
        }
        Ok(())
    });
}
