//! A user of a Kerberos realm logs in by the ticket that she has, passes as herself, and shows a ticket again when her session grows old:
//! without a password, while no KDC answers, and also when the ticket is there only a while after it was wanted. Without a ticket, with
//! that of nobody here, of an instance or of somebody else there is no session.

use anyhow::{Context, Result};
use lab::{Attempt, Kdc, Lab, Options, Outcome, Spec, TcpService, addr, with_lab};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PASSWORD: &str = "wonderland";

fn options(keytab: &str) -> Options {
    let mut kerberos = toml::toml! { realms = ["EXAMPLE.ORG"] };
    kerberos.insert("keytab".to_owned(), keytab.into());
    let mut options = Options::prepared()
        .nuauth("users.kerberos", kerberos)
        .nuauth("clients.mechanisms", vec!["GS2-KRB5-PLUS", "PLAIN"])
        .nuauth("sessions.max-age", "60s");
    options.logged_in = Vec::new();
    options
}

/// A client that logs in by the ticket in this file.
fn client(lab: &Lab, kdc: &Kdc<'_>, name: &str, cache: &Path) -> Result<Spec> {
    let config = kdc.config();
    Ok(lab
        .client_by_ticket(name)?
        .env("KRB5_CONFIG", config.to_str().context("a path")?)
        .env("KRB5CCNAME", cache.to_str().context("a path")?)
        .env("NUFW_LOG", "debug"))
}

/// The exit code and the output of one that gets no session.
fn refused(spec: Spec) -> Result<(Option<i32>, String)> {
    let mut client = spec.args(["--once"]).start()?;
    let status = client.wait_exit(Duration::from_mins(1))?;
    Ok((status.code(), client.log()?))
}

#[test]
fn claim() {
    let keytab = PathBuf::from("realm/keytab");
    with_lab(options(&keytab.display().to_string()), |lab| {
        let host = lab.net.client.clone();
        let mut kdc = Kdc::start(&lab.dir().join("realm"), 8888, move |program| {
            host.command(program)
        })?;
        for principal in ["alice", "alice/admin", "bob", "carol"] {
            kdc.add(principal, PASSWORD)?;
        }
        assert_eq!(
            kdc.keytab("nuauth/nuauth.lab", "keytab")?,
            lab.dir().join(&keytab)
        );
        let config = kdc.config();
        let config = config.to_str().context("a path")?.to_owned();
        lab.server.spec().env.push(("KRB5_CONFIG".to_owned(), config));
        lab.start_all()?;

        let (code, log) = refused(client(lab, &kdc, "none", &lab.dir().join("no-such-cache"))?)?;
        assert_eq!(code, Some(77), "{log}");
        assert!(
            log.contains("no Kerberos ticket for the server: No Kerberos credentials available"),
            "{log}"
        );

        let alice = kdc.ticket("alice", PASSWORD)?;
        lab.log_in_with("alice", client(lab, &kdc, "alice", &alice)?)?;
        lab.server.wait_log("by=\"kerberos\"")?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let attempt = Attempt::to(addr::SERVER4, 80).within(Duration::from_secs(2));
        assert_eq!(attempt.run(&lab.net.client)?.outcome, Outcome::Connected);
        let hers = "select count(*) from conntrack_ulog where username = 'alice' and user_id = 1001";
        assert_eq!(lab.count(hers)?, 1);

        // Bob's ticket is away when it is wanted again.
        let bob = kdc.ticket("bob", PASSWORD)?;
        lab.log_in_with("bob", client(lab, &kdc, "bob", &bob)?)?;
        let away = lab.dir().join("away");
        std::fs::rename(&bob, &away)?;

        for (principal, name, why) in [
            ("carol", None, "there is no user \"carol\""),
            (
                "alice/admin",
                None,
                "principal \"alice/admin@EXAMPLE.ORG\" is no user",
            ),
            ("alice", Some("bob"), "alice asked to act as another user"),
        ] {
            let cache = kdc.ticket(principal, PASSWORD)?;
            let mut spec = client(lab, &kdc, &format!("no-{}", principal.replace('/', "-")), &cache)?;
            if let Some(name) = name {
                spec = spec.args(["--user", name]);
            }
            let (code, log) = refused(spec)?;
            assert_eq!(code, Some(77), "{principal}: {log}");
            lab.server.wait_log(why)?;
            // The log tells of an address once in ten seconds.
            std::thread::sleep(Duration::from_secs(11));
        }

        let late = kdc.ticket("carol", PASSWORD)?;
        kdc.stop()?;
        let (code, log) = refused(client(lab, &kdc, "late", &late)?)?;
        assert_eq!(code, Some(69), "another try may help: {log}");
        assert!(log.contains("Cannot contact any KDC"), "{log}");

        // Nobody can look at a ticket when hers is wanted again.
        let (keytab, hidden) = (lab.dir().join(&keytab), lab.dir().join("hidden"));
        std::fs::rename(&keytab, &hidden)?;
        lab.server.wait_log("a Kerberos ticket cannot be checked")?;
        std::fs::rename(&hidden, &keytab)?;
        let clients = &mut lab.clients;
        let alice = clients.get_mut("alice").context("alice")?;
        alice.wait_log("the server has seen the credentials again")?;
        let bob_client = clients.get_mut("bob").context("bob")?;
        bob_client.wait_log("the server wants the ticket again")?;
        std::fs::rename(&away, &bob)?;
        bob_client.wait_log("the server has seen the credentials again")?;
        assert_eq!(
            bob_client.count("logged in as bob")?,
            1,
            "his session was another one"
        );
        assert_eq!(lab.server.count("client gone")?, 0);
        Ok(())
    });
}
