//! The disk that the agent has its socket on is full: it writes nothing there while it runs, so that packets pass, a worker that
//! dies is followed by another, and every row is whole. A start whose socket finds no room says which and why.

use anyhow::{Context, Result};
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, wait_for, with_lab};
use std::io::Write;
use std::time::Duration;

fn fill(path: &std::path::Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    Ok(())
}

fn passes(lab: &Lab) -> Result<()> {
    let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
    assert_eq!(tried.outcome, Outcome::Connected);
    tried.talk("hello")?;
    let condition = format!("tcp_sport = {}", tried.port);
    drop(tried);
    let row = lab.wait_row(&condition, State::Close)?;
    assert!(
        row.ended_in_order() && row.int("packets_in") >= Some(3),
        "{row:?}"
    );
    Ok(())
}

#[test]
fn claim() {
    with_lab(Options::prepared(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let disk = lab.dir().join("agent-disk");
        std::fs::create_dir(&disk)?;
        let socket = disk.join("agent.sock");
        let file = lab.dir().join("nufw-agent.toml");
        let text = std::fs::read_to_string(&file)?;
        let former = format!("{}/agent.sock", lab.dir().display());
        std::fs::write(&file, text.replace(&former, &socket.display().to_string()))?;
        lab.agent.spec().disk = Some((disk.clone(), "size=64k,nr_inodes=4".to_owned()));
        lab.start_all()?;
        let seen = |lab: &Lab| -> Result<std::path::PathBuf> {
            Ok(format!("/proc/{}/root{}", lab.agent.pid()?, disk.display()).into())
        };
        fill(&seen(lab)?.join("full"))?;
        passes(lab)?;
        let worker = *lab.agent.workers()?.first().context("there is a worker")?;
        rustix_kill(worker)?;
        wait_for("another worker", Duration::from_secs(30), || {
            Ok(lab.agent.workers()?.iter().any(|pid| *pid != worker))
        })?;
        lab.wait_passes(80)?;
        passes(lab)?;

        // No room for the socket at all.
        lab.agent.terminate()?;
        lab.agent.spec().disk = Some((disk, "size=4k,nr_inodes=1".to_owned()));
        lab.agent.start()?;
        let status = lab.agent.wait_exit(Duration::from_secs(30))?;
        assert!(!status.success());
        let said = lab.agent.log()?;
        assert!(
            said.contains("agent.sock") && said.contains("No space left"),
            "{said}"
        );
        Ok(())
    });
}

fn rustix_kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.context("a process id")?, rustix::process::Signal::KILL)?;
    Ok(())
}
