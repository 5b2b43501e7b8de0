//! What people use today to see connections, on the same load in the same run: `conntrack -E` and ulogd2, each to a file.
//!
//! What they lose is what the kernel counts as dropped at their sockets; they say nothing of it themselves.

use super::super::ratio;
use super::Gateway;
use crate::command::in_path;
use crate::process::{Proc, Spec};
use crate::wait::{now, wait_for};
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a program may take until it listens.
const LISTENING: Duration = Duration::from_secs(20);
/// How long nothing may come before it is done.
const QUIET: Duration = Duration::from_secs(2);
/// The longest run.
const LONGEST: Duration = Duration::from_mins(2);

impl Gateway {
    pub(super) fn conntrack(&mut self, case: &'static str, buffer: u32) -> Result<()> {
        let program = in_path("conntrack").context("conntrack is missing")?;
        let spec = Spec::new(case, &self.stand.net.gateway, program, self.stand.dir.path()).args([
            "-E",
            "-p",
            "tcp",
            "-b",
            &buffer.to_string(),
        ]);
        let log = self.stand.dir.path().join(format!("{case}.log"));
        self.beside(case, spec, &log)
    }

    pub(super) fn ulogd(&mut self, case: &'static str, buffer: u32) -> Result<()> {
        let Some(program) = in_path("ulogd") else {
            // Not for the figures of our own.
            return Ok(());
        };
        let dir = self.stand.dir.path();
        let (config, events) = (
            dir.join(format!("{case}.conf")),
            dir.join(format!("{case}.events")),
        );
        std::fs::write(&config, configuration(&events, buffer)?)?;
        let spec = Spec::new(case, &self.stand.net.gateway, program, dir)
            .args(["-c"])
            .args([config.as_os_str()]);
        self.beside(case, spec, &events)
    }

    fn beside(&mut self, case: &'static str, spec: Spec, file: &Path) -> Result<()> {
        self.stand.forward()?;
        let mut program = spec.start()?;
        wait_for("the program to listen to events", LISTENING, || {
            if let Some(status) = program.exited()? {
                anyhow::bail!("it ended ({status}):\n{}", program.tail(20));
            }
            Ok(drops(&program)?.is_some())
        })?;
        let began = now();
        let (_, _) = self.stand.full(self.size.buffers)?;
        let during = lines(file);
        let seconds = began.elapsed().as_secs_f64();
        self.stand.drain()?;
        let (mut seen, mut since) = (lines(file), now());
        wait_for("the last event to be written", LONGEST, || {
            let found = lines(file);
            if found != seen {
                (seen, since) = (found, now());
            }
            Ok(since.elapsed() > QUIET)
        })?;
        let lost = drops(&program)?.unwrap_or_default();
        program.kill()?;
        self.add(case, "events_per_second", ratio(during, 1) / seconds, "1/s");
        self.count(case, "events_written", seen, "events");
        self.count(case, "events_lost", lost, "messages");
        Ok(())
    }
}

fn lines(file: &Path) -> u64 {
    std::fs::read(file).map_or(0, |bytes| {
        u64::try_from(bytes.split(|byte| *byte == b'\n').count().saturating_sub(1)).unwrap_or_default()
    })
}

/// Messages that found no room at the process's sockets that listen to conntrack; `None` before there is one.
fn drops(program: &Proc) -> Result<Option<u64>> {
    let pid = program.pid()?;
    let inodes: HashSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?;
            Some(link.strip_suffix(']')?.to_owned())
        })
        .collect();
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/netlink"))?;
    let found: Vec<u64> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let groups = u32::from_str_radix(fields.get(3)?, 16).ok()?;
            (groups & 0b111 != 0 && inodes.contains(*fields.get(9)?))
                .then(|| fields.get(8)?.parse().ok())
                .flatten()
        })
        .collect();
    Ok((!found.is_empty()).then(|| found.iter().sum()))
}

/// New and ended connections to a file, as its sample configuration has it.
fn configuration(events: &Path, buffer: u32) -> Result<String> {
    let plugins = plugins()?;
    let plugin = |name: &str| format!("plugin=\"{}/ulogd_{name}.so\"\n", plugins.display());
    Ok(format!(
        "[global]\nlogfile=\"stdout\"\nloglevel=5\n{}{}{}{}stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\n\
         [ct1]\nhash_enable=0\nevent_mask=5\nnetlink_socket_buffer_size={buffer}\nnetlink_socket_buffer_maxsize={buffer}\n\
         [emu1]\nfile=\"{}\"\nsync=1\n",
        plugin("inpflow_NFCT"),
        plugin("filter_IP2STR"),
        plugin("filter_PRINTFLOW"),
        plugin("output_LOGEMU"),
        events.display()
    ))
}

fn plugins() -> Result<PathBuf> {
    std::fs::read_dir("/usr/lib")?
        .flatten()
        .map(|entry| entry.path().join("ulogd"))
        .find(|path| path.is_dir())
        .context("ulogd2's plugins are missing: apt-get install ulogd2")
}
