//! Hosts without a client pass as the user that a portal's file or RADIUS accounting gives their address, and no longer than it
//! does; who logs in there goes before it.

use lab::{Attempt, Options, Outcome, State, TcpService, User, addr, wait_for, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    let mut options = Options::prepared();
    options.users.push(User::new("portal", 1003));
    with_lab(options, |lab| {
        let leases = lab.dir().join("leases");
        std::fs::create_dir(lab.dir().join("nuauth.d"))?;
        std::fs::write(
            lab.dir().join("nuauth.d/identify.toml"),
            format!("[identify.leases]\nfile = \"{}\"\n", leases.display()),
        )?;
        lab.start_server()?;
        lab.apply_rules(&[])?;
        lab.start_agent()?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let attempt = || {
            Attempt::to(addr::SERVER4, 80)
                .within(Duration::from_secs(1))
                .run(&lab.net.client)
        };
        assert_eq!(
            attempt()?.outcome,
            Outcome::TimedOut,
            "nobody said whose the address is"
        );

        let source = addr::CLIENT4;
        let next = lab.dir().join("leases.next");
        let write = |text: &str| -> anyhow::Result<()> {
            std::fs::write(&next, text)?;
            Ok(std::fs::rename(&next, &leases)?)
        };
        write(&format!("{source} portal -\n"))?;
        let mut port = 0;
        wait_for("the lease to count", Duration::from_secs(30), || {
            let tried = attempt()?;
            port = tried.port;
            Ok(tried.outcome == Outcome::Connected)
        })?;
        let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
        assert_eq!(row.text("username"), Some("portal"));

        write("")?;
        wait_for("the lease to be over", Duration::from_secs(30), || {
            Ok(attempt()?.outcome != Outcome::Connected)
        })?;
        assert_eq!(
            lab.count("select count(*) from users where username = 'portal' and end_time is not null")?,
            1
        );
        Ok(())
    });
}
