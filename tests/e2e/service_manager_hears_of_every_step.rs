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

    /// Waits for a message that begins so; nothing but the watchdog's may come before it.
    fn hears(&self, begin: &str) -> Result<String> {
        loop {
            let message = self
                .next(PATIENCE)?
                .with_context(|| format!("{begin} was not told"))?;
            if message.starts_with(begin) {
                return Ok(message);
            }
            ensure!(message == "WATCHDOG=1", "{message:?} came instead of {begin}");
        }
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
    manager.hears("READY=1")?;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1")?;
    }
    process.signal(Signal::HUP)?;
    manager.hears("RELOADING=1")?;
    manager.hears("READY=1")?;
    process.signal(Signal::STOP)?;
    // What was on its way when it stopped.
    while manager.next(Duration::from_millis(100))?.is_some() {}
    ensure!(
        manager.next(WATCHDOG * 2)?.is_none(),
        "a daemon that stands still says that it works"
    );
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

#[test]
fn from_the_agent() {
    with_lab(Options::prepared(), |lab| {
        lab.start_server()?;
        let manager = Manager::new(lab)?;
        watched(&mut lab.agent, &manager);
        lab.agent.start()?;
        whole_life(&manager, &mut lab.agent)
    });
}
