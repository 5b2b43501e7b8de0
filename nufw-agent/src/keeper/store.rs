//! Descriptors that outlive this process: left behind by a former image of it, or kept by the service manager.
//!
//! `sd_listen_fds(3)` and `sd_pid_notify_with_fds(3)` say how systemd keeps them. What they are about is not known here.

use super::kernel::{METRICS, STATUS};
use crate::check::lend_net_admin;
use nufw_common::lifecycle;
use nufw_common::privileges::{self, Capability};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Names and numbers of descriptors that the former image left open, and the process that they are for.
pub(super) const LEFT_BEHIND: &str = "NUFW_KEEPER_DESCRIPTORS";
/// Variables that are for the supervisor alone.
pub(super) const OWN_VARIABLES: [&str; 7] = [
    LEFT_BEHIND,
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
/// Descriptors of the service manager begin at this number (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Most descriptors that are taken over.
const MOST: usize = 256;

/// What was kept and is not taken yet.
#[derive(Debug, Default)]
pub struct Kept {
    all: Vec<(String, OwnedFd)>,
    renewed: bool,
}

impl Kept {
    /// What the environment tells of. Called before anything else is opened, and once.
    pub fn from_environment() -> Self {
        let text = |name| std::env::var(name).unwrap_or_default();
        let me = std::process::id();
        let mut all = left_behind(&text(LEFT_BEHIND), me);
        let renewed = !all.is_empty();
        all.extend(listened(
            &text("LISTEN_PID"),
            &text("LISTEN_FDS"),
            &text("LISTEN_FDNAMES"),
            me,
        ));
        Self {
            all: all
                .into_iter()
                .take(MOST)
                .filter_map(|(name, number)| Some((name, adopt(number)?)))
                .collect(),
            renewed,
        }
    }

    /// Whether this process was another image before, which has confined it already.
    pub fn renewed(&self) -> bool {
        self.renewed
    }

    /// The open places at which the agent is watched: metrics, status.
    pub fn take_places(&mut self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        (self.take(METRICS), self.take(STATUS))
    }

    /// Whether there is one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all.iter().any(|(kept, _)| kept == name)
    }

    /// Takes one.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.all.iter().position(|(kept, _)| kept == name)?;
        Some(self.all.swap_remove(at).1)
    }

    /// Closes what nobody took, and has the service manager forget it.
    pub(super) fn forget(self) {
        for (name, _) in self.all {
            tracing::info!(name, "a kept descriptor is of no use any more");
            remove(&name);
        }
    }
}

fn left_behind(text: &str, me: u32) -> Vec<(String, RawFd)> {
    let mut fields = text.split(',');
    if fields.next().and_then(|pid| pid.parse().ok()) != Some(me) {
        return Vec::new();
    }
    fields
        .filter_map(|field| {
            let (name, number) = field.split_once('=')?;
            Some((name.to_owned(), number.parse().ok()?))
        })
        .collect()
}

fn listened(pid: &str, count: &str, names: &str, me: u32) -> Vec<(String, RawFd)> {
    if pid.parse() != Ok(me) {
        return Vec::new();
    }
    let count = count.parse().unwrap_or(0).min(MOST);
    (FIRST..)
        .zip(names.split(':'))
        .take(count)
        .map(|(number, name)| (name.to_owned(), number))
        .collect()
}

fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number < FIRST {
        return None;
    }
    #[expect(unsafe_code, reason = "descriptors that were inherited are numbers")]
    // SAFETY: called before anything else of the supervisor is opened; whoever set the environment gave the numbers away.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    if fcntl_setfd(&descriptor, FdFlags::CLOEXEC).is_err() {
        // It is not open, and must not be closed.
        std::mem::forget(descriptor);
        return None;
    }
    Some(descriptor)
}

fn remove(name: &str) {
    lifecycle::notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
}

/// Has the service manager keep another descriptor than before by a name.
pub(super) fn replace(name: &str, descriptor: BorrowedFd<'_>) {
    remove(name);
    keep(name, descriptor);
}

/// Has the service manager keep a descriptor; nothing without one.
pub(super) fn keep(name: &str, descriptor: BorrowedFd<'_>) {
    // Without FDPOLL=0 systemd drops a netlink socket from its store when that reports an overrun.
    lifecycle::notify_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), descriptor);
}

/// Becomes another program, or another version of this one, which finds the descriptors. Returns only if that fails.
pub(super) fn become_anew(
    program: &Path,
    arguments: &[OsString],
    descriptors: &[(String, BorrowedFd<'_>)],
) -> io::Error {
    let mut told = std::process::id().to_string();
    let flags = |flags| {
        for (_, descriptor) in descriptors {
            if let Err(error) = fcntl_getfd(descriptor).and_then(|_| fcntl_setfd(descriptor, flags)) {
                tracing::warn!(%error, "a descriptor cannot be handed on");
            }
        }
    };
    for (name, descriptor) in descriptors {
        // Writing to a string does not fail.
        let _ = write!(told, ",{name}={}", descriptor.as_raw_fd());
    }
    flags(FdFlags::empty());
    // A user who is not root would not hand it on.
    lend_net_admin();
    let error = Command::new(program)
        .args(arguments)
        .env(LEFT_BEHIND, told)
        .env_remove("LISTEN_PID")
        .exec();
    if let Err(error) = privileges::keep_only(&[Capability::CAP_NET_ADMIN]) {
        tracing::warn!(%error, "a right that was lent cannot be taken back");
    }
    flags(FdFlags::CLOEXEC);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_for_this_process_is_taken() {
        let name = |name: &str, number| (name.to_owned(), number);
        assert_eq!(
            listened("7", "2", "queue-0:events-all:stray", 7),
            [name("queue-0", 3), name("events-all", 4)]
        );
        assert_eq!(listened("8", "2", "queue-0:events-all", 7), []);
        assert_eq!(listened("7", "-1", "queue-0", 7), []);
        assert_eq!(listened("7", "x", "queue-0", 7), []);
        assert_eq!(
            left_behind("7,queue-0=9,memory=11,broken,also=broken", 7),
            [name("queue-0", 9), name("memory", 11)]
        );
        assert_eq!(left_behind("8,queue-0=9", 7), []);
        assert_eq!(left_behind("", 7), []);
    }

    #[test]
    fn numbers_that_are_not_open_are_passed_over() {
        assert!(adopt(1_000_000).is_none());
        assert!(adopt(0).is_none(), "nor the standard ones taken");
    }
}
