//! A server that was killed has its clients back by their tickets, though nobody has the password any more; a client that was
//! killed is back by the ticket in its file; and another password makes both worthless.

use anyhow::Context;
use lab::{Options, Signal, TcpService, binary, checked, make_private, wait_for, with_lab};
use std::process::Command;
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::nobody(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let ticket = lab.dir().join("ticket");
        let spec = lab
            .client("alice")?
            .args(["--ticket-file".into(), ticket.clone()]);
        lab.log_in_with("alice", spec)?;
        wait_for("a ticket", Duration::from_secs(20), || Ok(ticket.exists()))?;
        lab.wait_passes(80)?;

        // The program's own memory has it still, and must not need it.
        std::fs::remove_file(lab.dir().join("password"))?;
        lab.server.kill()?;
        lab.start_server()?;
        lab.server.wait_log("by=\"ticket\"")?;
        assert_eq!(lab.server.count("by=\"password\"")?, 0);
        lab.wait_passes(80)?;

        // Killed, so that it logs out nowhere; started again it has nothing but its file.
        let client = lab.clients.get_mut("alice").context("alice")?;
        client.kill()?;
        client.start()?;
        client.wait_log("logged in as alice")?;
        lab.wait_passes(80)?;
        assert_eq!(lab.server.count("by=\"password\"")?, 0);

        let new = checked(
            Command::new("sh")
                .arg("-c")
                .arg("printf 'another\\n' | \"$0\" hash-password")
                .arg(binary("nuauth-server")?),
        )?;
        let users = lab.dir().join("users.toml");
        let text = std::fs::read_to_string(&users)?;
        let changed: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some(("password", _)) => format!("password = '{}'", new.trim()),
                _ => line.to_owned(),
            })
            .collect();
        std::fs::write(&users, changed.join("\n"))?;
        make_private(&users)?;
        lab.server.signal(Signal::HUP)?;
        lab.server.wait_log("reloaded")?;
        let client = lab.clients.get_mut("alice").context("alice")?;
        client.kill()?;
        client.start()?;
        let status = client.wait_exit(Duration::from_mins(1))?;
        assert_eq!(status.code(), Some(78), "there is no password to fall back upon");
        lab.server
            .wait_log("not logged in by ticket: the user is gone or has another password")?;
        assert!(!ticket.exists(), "a worthless ticket is kept");
        Ok(())
    });
}
