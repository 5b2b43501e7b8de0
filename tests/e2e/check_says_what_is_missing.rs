//! `nufw-agent check` names what the host lacks and how to mend it, and is content when nothing is missing; the server's
//! `check` is content with a right configuration. The sample files are right.

use anyhow::{Context, Result};
use lab::{Options, checked, with_lab};
use std::path::Path;
use std::process::Command;

#[test]
fn of_the_agent() {
    with_lab(Options::prepared(), |lab| {
        lab.net.gateway.sysctl("net.netfilter.nf_conntrack_acct", 0)?;
        let (status, said) = said(lab.agent_command().arg("check"))?;
        assert_ne!(status, 0, "{said}");
        assert!(
            said.contains("net.netfilter.nf_conntrack_acct=1"),
            "how to mend it is not said: {said}"
        );
        assert!(
            said.contains("nufw-agent rules"),
            "missing rules are not said: {said}"
        );

        lab.apply_rules(&[])?;
        let (status, said) = self::said(lab.agent_command().arg("check"))?;
        assert_eq!(status, 0, "{said}");

        lab.start_server()?;
        lab.start_agent()?;
        let (_, said) = self::said(lab.agent_command().arg("check"))?;
        assert!(
            said.contains(&lab.agent.pid()?.to_string()),
            "who has the queue is not said: {said}"
        );
        Ok(())
    });
}

#[test]
fn of_the_server() {
    with_lab(Options::prepared(), |lab| {
        let (status, said) = said(lab.server_command().arg("check"))?;
        assert_eq!(status, 0, "{said}");
        for part in ["gw1", "2 users", "3 rules"] {
            assert!(
                said.contains(part),
                "{part:?} was understood but is not in: {said}"
            );
        }
        Ok(())
    });
}

#[test]
fn sample_files_are_right() {
    with_lab(Options::prepared(), |lab| {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
        let conf = lab.dir().join("conf");
        std::fs::create_dir(&conf)?;
        for name in ["nuauth.toml", "nufw-agent.toml", "users.toml", "policy.toml"] {
            std::fs::copy(samples.join(name), conf.join(name)).with_context(|| name.to_owned())?;
        }
        let pki = conf.join("pki");
        let server = lab::binary("nuauth-server")?;
        for words in [&["init"][..], &["server", "nuauth"], &["gateway", "agent"]] {
            checked(
                Command::new(&server)
                    .arg("pki")
                    .args(words)
                    .arg("--dir")
                    .arg(&pki),
            )?;
        }
        for name in ["ca.crt", "agent.crt", "agent.key"] {
            std::fs::rename(pki.join(name), conf.join(name))
                .or_else(|_| std::fs::copy(pki.join(name), conf.join(name)).map(drop))?;
        }
        std::fs::copy(conf.join("ca.crt"), pki.join("ca.crt"))?;
        // The log's place is not this machine's.
        let database = format!("sqlite:{}", conf.join("nulog.db").display());
        let mut check = lab.net.gateway.command(&server);
        check
            .env("NUAUTH_LOG_DATABASE", database)
            .arg("--config")
            .arg(conf.join("nuauth.toml"))
            .arg("check");
        let (status, said) = said(&mut check)?;
        assert_eq!(status, 0, "{said}");

        let mut rules = lab.net.gateway.command(lab::binary("nufw-agent")?);
        rules
            .arg("-f")
            .arg(conf.join("nufw-agent.toml"))
            .args(["-d", "10.81.0.1", "rules"]);
        let (status, said) = self::said(&mut rules)?;
        assert_eq!(status, 0, "{said}");
        Ok(())
    });
}

/// Exit status, and everything that was written.
fn said(command: &mut Command) -> Result<(i32, String)> {
    let output = command.output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("killed by a signal")?, text))
}
