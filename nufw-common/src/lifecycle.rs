//! How a daemon lives: signals in, one shutdown token for its tasks, and word to the service manager.
//!
//! What is done on a signal is the daemon's own business.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;

/// What a daemon was told by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what is begun, then end.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of this process. From its making on, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Takes the signals over; within a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// Ends every holder of its [`Shutdown`] tokens; dropping it does the same, so that a lost owner stops its tasks.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Tells a task that it is time to end.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and the token that it ends.
pub fn shutdown() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Tells every holder of a token to end.
    pub fn shut_down(&self) {
        self.0.send_replace(true);
    }

    /// A further token.
    pub fn token(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }
}

impl Shutdown {
    /// Waits until it is time to end. Cancel-safe.
    pub async fn wait(&mut self) {
        // An error means that the trigger is gone: time to end as well.
        let _ = self.0.wait_for(|ended| *ended).await;
    }

    /// Whether it is time to end.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Tells the service manager that the daemon is ready (`sd_notify(3)`, `READY=1`); does nothing without one.
pub fn notify_ready() {
    notify("READY=1");
}

/// Tells the service manager that the daemon reads its configuration again (`RELOADING=1`); [`notify_ready`] ends it.
pub fn notify_reloading() {
    notify("RELOADING=1");
}

/// Tells the service manager that the daemon is ending.
pub fn notify_stopping() {
    notify("STOPPING=1");
}

/// Tells the service manager `state`; does nothing without one.
pub fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send_state(&socket, state)
    {
        tracing::warn!(%error, state, "cannot tell the service manager; NOTIFY_SOCKET does not answer");
    }
}

/// The same with a descriptor, which the service manager may keep (`sd_pid_notify_with_fds(3)`).
pub fn notify_with(state: &str, descriptor: BorrowedFd<'_>) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send_descriptor(&socket, state, descriptor)
    {
        tracing::warn!(%error, state, "cannot give the service manager a descriptor to keep");
    }
}

fn send_descriptor(socket: &OsStr, state: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(socket)?,
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(&descriptor)));
    let text = [io::IoSlice::new(state.as_bytes())];
    sendmsg_addr(
        UnixDatagram::unbound()?,
        &address,
        &text,
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn send_state(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn signals_become_words() {
        let mut signals = Signals::new().unwrap();
        let send = |name: &str| {
            let status = std::process::Command::new("kill")
                .args(["-s", name, &std::process::id().to_string()])
                .status();
            assert!(status.unwrap().success());
        };
        for (name, expected) in [
            ("HUP", Signal::Reload),
            ("TERM", Signal::Terminate),
            ("INT", Signal::Terminate),
        ] {
            send(name);
            let got = tokio::time::timeout(Duration::from_secs(5), signals.next()).await;
            assert_eq!(got.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn the_token_fires_for_every_holder_and_when_the_trigger_is_lost() {
        let (trigger, mut first) = shutdown();
        let mut second = trigger.token();
        assert!(!first.is_triggered());
        trigger.shut_down();
        first.wait().await;
        second.wait().await;
        assert!(second.is_triggered());

        let (lost, mut orphan) = shutdown();
        drop(lost);
        orphan.wait().await;
        assert!(orphan.is_triggered());
    }

    #[test]
    fn the_service_manager_hears_of_it_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        send_state(path.as_os_str(), "READY=1").unwrap();
        let mut buffer = [0; 64];
        let n = by_path.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1");

        let name = format!("nufw-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        send_state(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        let n = by_name.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"STOPPING=1");
    }
}
