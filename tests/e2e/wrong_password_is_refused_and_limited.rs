//! A wrong password ends the client with a plain reason; who goes on guessing is made to wait, and then even the right
//! password is not looked at for a while.

use lab::{Options, make_private, with_lab};
use std::time::Duration;

/// More failures than any sensible limit.
const GUESSES: usize = 30;

#[test]
fn claim() {
    with_lab(Options::nobody(), |lab| {
        let wrong = lab.dir().join("wrong");
        std::fs::write(&wrong, "guess")?;
        make_private(&wrong)?;
        let mut limited = false;
        for guess in 0..GUESSES {
            let mut client = lab
                .client_with_password("alice", &wrong)?
                .args(["--once"])
                .start()?;
            let status = client.wait_exit(Duration::from_mins(1))?;
            assert!(!status.success());
            let log = client.log()?.to_lowercase();
            assert!(!log.contains("logged in as"), "{log}");
            if log.contains("too many") {
                limited = true;
                break;
            }
            assert_eq!(status.code(), Some(77), "guess {guess}: {log}");
        }
        assert!(limited, "{GUESSES} wrong passwords in a row were all looked at");
        let mut right = lab.client("alice")?.args(["--once"]).start()?;
        right.wait_log("oo many").map(drop)
    });
}
