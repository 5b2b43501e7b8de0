//! A second server on the same SQLite file ends at once and says why; the first goes on.

use lab::{Attempt, Options, Outcome, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let text = std::fs::read_to_string(lab.dir().join("nuauth.toml"))?;
        let second = lab.dir().join("second.toml");
        std::fs::write(&second, text.replace(":4128", ":5128").replace(":4129", ":5129"))?;
        let mut server = lab.server_with(&second)?.start()?;
        let status = server.wait_exit(Duration::from_secs(30))?;
        let log = server.log()?;
        assert!(!status.success());
        assert!(log.contains("nulog.db"), "the file is not named: {log}");
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        Ok(())
    });
}
