//! An edit of the access lists counts without a signal, also for hosts at which nobody is logged in; and the row of a
//! connection is explained by the lists that decided, not by those of today.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, checked, wait_for, with_lab};
use std::time::Duration;

const FOR_NOBODY: &str =
    "[[rule]]\nname = \"kiosk\"\nwho = \"nobody\"\nin = [\"lan\"]\nports = [80]\ndecision = \"accept\"\n";

#[test]
fn claim() {
    with_lab(Options::nobody().nuauth("policy.watch", true), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let policy = lab.dir().join("policy.toml");
        let edit = |text: &str| std::fs::write(&policy, text);
        let connects = || -> anyhow::Result<Option<u16>> {
            let attempt = Attempt::to(addr::SERVER4, 80).within(Duration::from_secs(1));
            let tried = attempt.run(&lab.net.client)?;
            Ok((tried.outcome == Outcome::Connected).then_some(tried.port))
        };
        assert_eq!(connects()?, None);
        edit(FOR_NOBODY)?;
        let mut port = None;
        wait_for("strangers to pass", Duration::from_secs(20), || {
            port = connects()?;
            Ok(port.is_some())
        })?;
        let port = port.unwrap_or_default();
        let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
        assert!(row.is_null("user_id") && row.is_null("auth"), "{row:?}");
        assert_eq!(row.text("acl"), Some("kiosk"));

        // Half an edit, and then a mistake: what was good stays.
        edit("[[rule]]\nname = \"kiosk\"\n")?;
        lab.server.wait_log("policy.toml:1")?;
        assert!(connects()?.is_some(), "a bad file took the good lists away");
        edit("")?;
        wait_for("strangers to be stopped", Duration::from_secs(20), || {
            Ok(connects()?.is_none())
        })?;

        let id = row.int("id").unwrap_or_default().to_string();
        let text = checked(lab.server_command().args(["policy", "explain", &id]))?;
        assert!(text.contains("rule \"kiosk\" decided"), "{text}");
        assert!(
            text.contains("    who = \"nobody\"") && text.contains("    ports = [\"80\"]"),
            "{text}"
        );
        let text = checked(
            lab.server_command()
                .args(["policy", "test", "10.0.0.1:1", "10.0.0.2:80"]),
        )?;
        assert!(text.starts_with("drop, since no rule matches"), "{text}");
        Ok(())
    });
}
