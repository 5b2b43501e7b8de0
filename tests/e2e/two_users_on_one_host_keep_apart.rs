//! Two users of one host each get their own name and mark on their own connections, whatever they do at the same time.

use anyhow::Context;
use lab::{Attempt, Options, Outcome, State, TcpService, addr, two_users_possible, with_lab};

const USERS: [(&str, u32, i64); 2] = [("alice", 31_001, 1001), ("bob", 31_002, 1002)];
const EACH: usize = 40;

#[test]
fn claim() {
    if !two_users_possible() {
        return;
    }
    with_lab(Options::nobody(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for (name, uid, _) in USERS {
            let spec = lab.client_as(name, uid)?;
            lab.log_in_with(name, spec)?;
        }
        let client = &lab.net.client;
        let ports = std::thread::scope(|scope| {
            let runs = USERS.map(|(name, uid, mark)| {
                scope.spawn(move || -> anyhow::Result<_> {
                    let mut ports = Vec::new();
                    for _ in 0..EACH {
                        let tried = Attempt::to(addr::SERVER4, 80).as_user(uid).run(client)?;
                        anyhow::ensure!(tried.outcome == Outcome::Connected, "{name}: {:?}", tried.outcome);
                        ports.push((tried.port, name, mark));
                    }
                    Ok(ports)
                })
            });
            runs.map(|run| run.join().map_err(|_| anyhow::anyhow!("a thread panicked")))
        });
        for run in ports {
            for (port, name, mark) in run?? {
                let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
                assert_eq!(row.text("username"), Some(name), "port {port}");
                assert_eq!(row.int("ct_mark").context("ct_mark")?, mark, "port {port}");
            }
        }
        Ok(())
    });
}
