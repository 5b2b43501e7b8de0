//! Readiness, reloading, the watchdog and stopping are told to the service manager, and a daemon that stands still tells it
//! nothing.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Options, Proc, Signal, with_lab};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

/// The manager's patience with the loop.
const WATCHDOG: Duration = Duration::from_secs(2);
/// For a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(lab: &Lab) -> Result<Self> {
        let path = lab.dir().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        Ok(Self { socket, path })
    }

    /// The next message; none if none comes in time.
    fn next(&self, within: Duration) -> Result<Option<String>> {
        self.socket.set_read_timeout(Some(within))?;
        let mut buffer = [0; 256];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(&buffer[..length]).into_owned())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a message that begins so; nothing but the watchdog's, and descriptors to keep, may come before it.
    fn hears(&self, begin: &str) -> Result<String> {
        loop {
            let message = self
                .next(PATIENCE)?
                .with_context(|| format!("{begin} was not told"))?;
            if message.starts_with(begin) {
                return Ok(message);
            }
            ensure!(
                message == "WATCHDOG=1" || message.starts_with("FDSTORE=1"),
                "{message:?} came instead of {begin}"
            );
        }
    }

    /// Nothing comes for twice the time of the watchdog.
    fn hears_nothing(&self) -> Result<()> {
        // What was on its way.
        while self.next(Duration::from_millis(100))?.is_some() {}
        ensure!(
            self.next(WATCHDOG * 2)?.is_none(),
            "a daemon that stands still says that it works"
        );
        Ok(())
    }
}

fn watched(process: &mut Proc, manager: &Manager) {
    let microseconds = WATCHDOG.as_micros().to_string();
    let path = manager.path.display().to_string();
    process.spec().env.extend([
        ("NOTIFY_SOCKET".to_owned(), path),
        ("WATCHDOG_USEC".to_owned(), microseconds),
    ]);
}

fn whole_life(manager: &Manager, process: &mut Proc) -> Result<()> {
    begins(manager, process)?;
    ends(manager, process)
}

fn begins(manager: &Manager, process: &Proc) -> Result<()> {
    manager.hears("READY=1")?;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1")?;
    }
    process.signal(Signal::HUP)?;
    manager.hears("RELOADING=1")?;
    manager.hears("READY=1").map(drop)
}

fn ends(manager: &Manager, process: &mut Proc) -> Result<()> {
    process.signal(Signal::STOP)?;
    manager.hears_nothing()?;
    process.signal(Signal::CONT)?;
    manager.hears("WATCHDOG=1")?;
    process.signal(Signal::TERM)?;
    manager.hears("STOPPING=1")?;
    ensure!(process.wait_exit(PATIENCE)?.success(), "{}", process.log()?);
    Ok(())
}

#[test]
fn from_the_server() {
    with_lab(Options::prepared(), |lab| {
        let manager = Manager::new(lab)?;
        watched(&mut lab.server, &manager);
        lab.server.start()?;
        whole_life(&manager, &mut lab.server)
    });
}

/// The manager hears the supervisor alone: it stands up for its worker, replaces one that hangs, and says nothing when it
/// stands still itself.
#[test]
fn from_the_agent() {
    let options = Options::prepared().agent("worker.hung-after", "2s");
    with_lab(options, |lab| {
        lab.start_server()?;
        let manager = Manager::new(lab)?;
        watched(&mut lab.agent, &manager);
        lab.agent.start()?;
        for name in ["queue-0", "events-all", "memory"] {
            let kept = manager.hears("FDSTORE=1")?;
            ensure!(kept.contains(&format!("FDNAME={name}")), "{kept} and not {name}");
        }
        begins(&manager, &lab.agent)?;

        let hung = lab.agent.signal_worker(Signal::STOP)?;
        lab.agent.wait_log("the worker does nothing any more")?;
        lab.agent.worker(Some(hung))?;
        manager.hears("WATCHDOG=1")?;
        // The next one takes the signal, too.
        lab.agent.wait_count("linked to the server", 2)?;
        lab.agent.signal(Signal::HUP)?;
        manager.hears("RELOADING=1")?;
        manager.hears("READY=1")?;

        lab.agent.signal(Signal::USR2)?;
        manager.hears("READY=1")?;
        for _ in 0..3 {
            manager.hears("WATCHDOG=1")?;
        }
        ends(&manager, &mut lab.agent)
    });
}
