//! Without `CAP_NET_ADMIN` the agent ends with `EX_NOPERM` and says what it needs.

use anyhow::Context;
use lab::{Options, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::prepared(), |lab| {
        let mut spec = lab.second_agent(&[])?;
        let mut args = vec!["--bounding-set=-net_admin".into(), "--inh-caps=-net_admin".into()];
        args.push(spec.program.clone().into_os_string());
        args.append(&mut spec.args);
        spec.args = args;
        spec.program = lab::in_path("setpriv").context("setpriv (util-linux) is missing")?;
        let mut agent = spec.start()?;
        let status = agent.wait_exit(Duration::from_secs(30))?;
        let log = agent.log()?;
        assert_eq!(status.code(), Some(77), "{log}");
        assert!(log.contains("CAP_NET_ADMIN"), "{log}");
        Ok(())
    });
}
