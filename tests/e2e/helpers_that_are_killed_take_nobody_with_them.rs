//! The processes that run hooks and ask directories are killed: the server says so, whoever is logged in stays and passes, users of the
//! file log in, and those of the directory hear that it cannot be checked at the moment, until the server is started again.

use lab::{Slapd, TcpService, asking_slapd, dora, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    // Who is in which group the file alone says: otherwise nobody could log in without the directory.
    let options = asking_slapd()
        .nuauth("users.groups", vec!["file"])
        .nuauth("hooks.login", "/bin/true");
    with_lab(options, |lab| {
        let _slapd = Slapd::start(lab, "one", &dora("correct horse battery staple"))?;
        lab.start_all()?;
        let by_password = lab.client("dora")?.args(["--mechanism", "PLAIN"]);
        lab.log_in_with("dora", by_password.clone())?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.wait_passes(80)?;

        assert_eq!(lab.server.kill_children("run-hooks")?, 1);
        lab.server.wait_log("the process that runs hooks has ended")?;
        assert_eq!(lab.server.kill_children("directory-helper")?, 1);
        lab.server
            .wait_log("the helper process that asks directories has ended")?;
        lab.wait_passes(80)?;
        assert_eq!(lab.server.count("client gone")?, 0);

        let once = |name: &str| {
            let mut spec = by_password.clone().args(["--once"]);
            name.clone_into(&mut spec.name);
            spec.start()
        };
        let mut late = once("late")?;
        let status = late.wait_exit(Duration::from_mins(1))?;
        assert_eq!(status.code(), Some(75), "{}", late.log()?);
        let mut alice = lab
            .client("alice")?
            .args(["--mechanism", "PLAIN", "--once"])
            .start()?;
        alice.wait_log("logged in as alice")?;
        alice.terminate()?;

        lab.server.kill()?;
        lab.start_server()?;
        let mut again = once("again")?;
        again.wait_log("logged in as dora")?;
        again.terminate().map(drop)
    });
}
