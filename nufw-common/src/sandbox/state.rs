//! What became of a profile, kept where whoever may look into the process can read it.
//!
//! Landlock cannot be seen from outside, so the daemon holds a sealed memory file that says what was applied. It is the
//! daemon's word, not the kernel's; what the kernel shows is in `/proc/PID/status`.

use super::Mode;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write as _};

/// Name of the memory file, as `/proc/PID/fd` shows it behind `/memfd:`.
pub(crate) const NOTE: &str = "nufw-sandbox";

/// What the kernel took of the rules for Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// Version of the kernel's interface that was used (landlock(7)): 1 files, 3 truncation, 4 TCP ports, 5 devices,
    /// 6 signals and abstract sockets.
    pub abi: i32,
    /// Whether all that the profile asks for is enforced; older kernels know less.
    pub complete: bool,
}

/// What a process is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Which profile.
    pub profile: String,
    /// How it was asked for.
    pub mode: Mode,
    /// Capabilities that the profile keeps.
    pub capabilities: Vec<String>,
    /// Landlock, if it is in force.
    pub landlock: Option<Landlock>,
    /// How many system calls are allowed, if they are filtered.
    pub calls: Option<usize>,
    /// What may be read.
    pub read: Vec<String>,
    /// Directories in which files or sockets may be made.
    pub write: Vec<String>,
    /// Programs that may be started.
    pub execute: Vec<String>,
    /// TCP ports that may be connected to; any, if there is no list.
    pub connect: Option<Vec<u16>>,
    /// TCP ports that may be bound after the start.
    pub bind: Vec<u16>,
}

impl Confinement {
    /// Says in the log what the daemon is held to.
    pub(super) fn tell(&self) {
        let landlock = match self.landlock {
            Some(Landlock { abi, complete: true }) => format!("complete, ABI {abi}"),
            Some(Landlock { abi, complete: false }) => format!("as far as ABI {abi} goes"),
            None => "none".to_owned(),
        };
        tracing::info!(
            profile = self.profile,
            sandbox = %self.mode,
            capabilities = ?self.capabilities,
            landlock,
            system_calls = self.calls,
            writes = ?self.write,
            executes = ?self.execute,
            "confined"
        );
    }
}

/// Makes the memory file, while that is still possible.
pub(super) fn note() -> io::Result<File> {
    Ok(memfd_create(NOTE, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

/// Writes it for good, and keeps it open for as long as the process lives.
pub(super) fn fill(mut note: File, confinement: &Confinement) -> io::Result<()> {
    note.write_all(&serde_json::to_vec(confinement)?)?;
    fcntl_add_seals(
        &note,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    std::mem::forget(note);
    Ok(())
}
