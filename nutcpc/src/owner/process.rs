//! One process and its descriptors: socket inode → descriptor number → path of the executable.
//!
//! Reads /proc only, and keeps each process's directory open, so that its number may become another's.

use super::known::{Known, Spot, Unused};
use nufw_common::clock;
use nufw_proto::Text;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, openat, readlinkat, readlinkat_raw, seek};
use rustix::io::Errno;
use rustix::path::DecInt;
use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::MaybeUninit;
use std::time::Instant;

/// Path of a program.
pub(super) type Program = Text<1024>;

/// Descriptor numbers remembered of each: a closed socket's number is given to the next one.
const RECENT_FDS: usize = 8;
/// A process whose highest number is more than this many times the number of its descriptors is read by its directory alone.
const SPARSE: u32 = 4;

/// What a look has still to find, and what it found.
pub(super) struct Look<'a> {
    pub(super) wanted: &'a HashSet<u32>,
    pub(super) found: HashMap<u32, Option<Program>>,
    pub(super) until: Instant,
}

impl Look<'_> {
    pub(super) fn is_done(&self) -> bool {
        self.found.len() == self.wanted.len()
    }

    pub(super) fn is_wanted(&self, inode: u32) -> bool {
        self.wanted.contains(&inode) && !self.found.contains_key(&inode)
    }
}

/// A process that held a wanted socket.
pub(super) struct Recent {
    pub(super) pid: u32,
    /// /proc/PID/fd; stays this process's even when its number is used again.
    pub(super) fds: OwnedFd,
    /// Where its latest sockets were, newest first.
    pub(super) latest: VecDeque<u32>,
    /// Where its next ones may be.
    pub(super) unused: Unused,
    /// How long its first thread had run when it was read.
    pub(super) ran: u64,
    /// One more than the highest number that it was seen to have; 0 where few numbers below that are used.
    pub(super) row: u32,
}

impl Recent {
    pub(super) fn remember(&mut self, hits: &[u32]) {
        for &fd in hits {
            self.latest.retain(|&known| known != fd);
            self.latest.push_front(fd);
            self.unused.taken(fd);
        }
        self.latest.truncate(RECENT_FDS);
    }

    /// Reads every descriptor; answers those that were wanted, and remembers where the others are. Numbers that were used when it
    /// was read before are read without the directory, which takes the kernel half as long again.
    pub(super) fn scan(
        &mut self,
        entries: &mut [MaybeUninit<u8>],
        known: &mut Known,
        look: &mut Look<'_>,
    ) -> Result<Vec<u32>, Errno> {
        let mut scan = Scan {
            pid: self.pid,
            fds: self.fds.as_fd(),
            known,
            look,
            unused: Unused::default(),
            hits: Vec::new(),
            read: 0,
            next: 0,
        };
        let mut is_over = false;
        for fd in 0..self.row {
            match scan.one(fd, DecInt::new(fd)) {
                Ok(over) => is_over = over,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            if is_over {
                break;
            }
        }
        if !is_over {
            // proc_readfd_common() of the kernel: the first two entries are `.` and `..`, and then comes each number.
            seek(
                scan.fds,
                SeekFrom::Start(u64::from(self.row) + 2 * u64::from(self.row > 0)),
            )?;
            let mut dir = RawDir::new(scan.fds, entries);
            while let Some(entry) = dir.next() {
                let entry = entry?;
                let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                is_over = scan.one(fd, entry.file_name()).unwrap_or(false);
                if is_over {
                    break;
                }
            }
        }
        let Scan {
            unused,
            hits,
            read,
            next,
            ..
        } = scan;
        if next / SPARSE <= read {
            self.row = if is_over { self.row.max(next) } else { next };
        } else if !is_over {
            self.row = 0;
        }
        self.unused = unused;
        Ok(hits)
    }
}

/// A look through the descriptors of one process.
struct Scan<'a, 'l> {
    pid: u32,
    fds: BorrowedFd<'a>,
    known: &'a mut Known,
    look: &'a mut Look<'l>,
    unused: Unused,
    hits: Vec<u32>,
    /// Descriptors that there are so far.
    read: u32,
    /// One more than the highest of them.
    next: u32,
}

impl Scan<'_, '_> {
    /// Reads one, in ascending order; tells whether the look is over.
    fn one(&mut self, fd: u32, name: impl rustix::path::Arg) -> Result<bool, Errno> {
        let inode = socket_inode(self.fds, name)?;
        self.unused.used(fd);
        self.next = fd.saturating_add(1);
        if let Some(inode) = inode {
            self.known.saw(inode, Spot { pid: self.pid, fd });
            if self.look.is_wanted(inode) {
                self.look.found.insert(inode, executable(self.fds));
                self.hits.push(fd);
            }
        }
        self.read += 1;
        let is_late = self.read.is_multiple_of(1024) && clock::mono() >= self.look.until;
        Ok(is_late || self.look.is_done())
    }
}

/// Looks at one descriptor; tells whether it was wanted.
pub(super) fn take(fds: BorrowedFd<'_>, fd: u32, look: &mut Look<'_>) -> Result<bool, Errno> {
    let inode = socket_inode(fds, DecInt::new(fd))?.filter(|&inode| look.is_wanted(inode));
    if let Some(inode) = inode {
        look.found.insert(inode, executable(fds));
    }
    Ok(inode.is_some())
}

/// The inode of the socket behind a descriptor; `None` when it is not a socket.
fn socket_inode(fds: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<Option<u32>, Errno> {
    let mut link = [MaybeUninit::uninit(); 32];
    let (link, _) = readlinkat_raw(fds, name, &mut link)?;
    Ok(link
        .strip_prefix(b"socket:[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .and_then(|digits| str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok()))
}

/// The path of the executable of the process that `fds` belongs to; `None` when it may not be read or is too long to
/// be told without cutting it.
fn executable(fds: BorrowedFd<'_>) -> Option<Program> {
    let link = readlinkat(fds, "../exe", Vec::new()).ok()?;
    let path = link.to_string_lossy();
    // The kernel says so when the file was replaced, as by an upgrade: the program is still that one.
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    (path.len() <= 1024).then(|| Text::lossy(path))
}

/// How long the first thread of a process has run, nanoseconds (/proc/PID/schedstat); 0 where it cannot be known.
pub(super) fn run_time(fds: BorrowedFd<'_>) -> u64 {
    let read = || {
        let file = openat(
            fds,
            "../schedstat",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut text = [0; 96];
        let length = rustix::io::read(&file, &mut text).ok()?;
        let text = str::from_utf8(&text[..length]).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    read().unwrap_or(0)
}
