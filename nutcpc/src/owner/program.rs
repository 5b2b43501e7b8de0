//! Finds the program that holds a socket: socket inode → process → path of its executable.
//!
//! Reads /proc only. Every look is for all wanted sockets at once, begins with the processes that were the answer
//! lately, and is bounded in time; what is not found in that time has no program, which no decision may hang on.

use super::known::{Known, Spot, Unused};
use super::process::{Look, Program, Recent, run_time, take};
use nufw_common::clock;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, fstat, openat, seek};
use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Processes remembered because a socket was theirs; each costs one descriptor.
const RECENT_PROCESSES: usize = 32;
/// Numbers after the latest that are tried: a program may open other descriptors with each socket.
const NEXT_FDS: u32 = 4;
/// Unused numbers of each process that are tried.
const UNUSED_FDS: usize = 4;
/// Process ids tried before all of /proc is read: a program that has just been started has one of the latest.
const NEWEST_PIDS: u32 = 32;
/// One look ends after this time, even if it found nothing.
const LOOK_BUDGET: Duration = Duration::from_millis(100);
/// After a look through all processes that found nothing, none follows for this many times as long as it took: at
/// most a tenth of one core goes into sockets whose program cannot be seen.
const REST_FACTOR: u32 = 9;
/// After one that its time cut short: the program may well be where it did not come to, and a rule may ask for it.
const REST_FACTOR_OF_CUT: u32 = 1;

/// Looks for programs among the processes of one user.
pub(super) struct Programs {
    uid: u32,
    proc: Option<OwnedFd>,
    /// Newest first.
    recent: VecDeque<Recent>,
    known: Known,
    /// The process id that had been given last when the previous look ended.
    newest: u32,
    rest_until: Option<Instant>,
    entries: Vec<MaybeUninit<u8>>,
}

impl Programs {
    /// Looks among the processes of `uid`. Without /proc every program is unknown.
    pub(super) fn new(uid: u32) -> Self {
        let proc = openat(
            rustix::fs::CWD,
            "/proc",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        if let Err(error) = &proc {
            tracing::warn!(%error, "/proc cannot be opened: no claim will name a program");
        }
        Self {
            uid,
            proc: proc.ok(),
            recent: VecDeque::new(),
            known: Known::default(),
            newest: 0,
            rest_until: None,
            entries: vec![MaybeUninit::uninit(); 32 * 1024],
        }
    }

    /// Finds the programs that hold these sockets; an inode that is missing from the answer was not found.
    pub(super) fn look(&mut self, wanted: &HashSet<u32>) -> HashMap<u32, Option<Program>> {
        let start = clock::mono();
        let mut look = Look {
            wanted,
            found: HashMap::with_capacity(wanted.len()),
            until: start + LOOK_BUDGET,
        };
        if wanted.is_empty() {
            return look.found;
        }
        self.try_known(&mut look);
        if !look.is_done() {
            self.try_latest_fds(&mut look);
        }
        if !look.is_done() {
            self.scan_started_since(&mut look);
        }
        if !look.is_done() {
            self.scan_recent(&mut look);
        }
        if !look.is_done() && self.rest_until.is_none_or(|until| start >= until) {
            let before = look.found.len();
            self.scan_all(&mut look);
            let now = clock::mono();
            self.rest_until = (look.found.len() == before).then(|| now + rest(now - start));
        }
        look.found
    }

    /// The quickest way: sockets that were seen before, where they were seen.
    fn try_known(&mut self, look: &mut Look<'_>) {
        for &inode in look.wanted {
            let Some(Spot { pid, fd }) = self.known.get(inode) else {
                continue;
            };
            let at = self.recent.iter().position(|process| process.pid == pid);
            if let Some(index) = at {
                let _ = take(self.recent[index].fds.as_fd(), fd, look);
            } else if let Some(process) = self.open_process(pid)
                && take(process.fds.as_fd(), fd, look) == Ok(true)
            {
                self.remember(process);
            }
            if !look.found.contains_key(&inode) {
                self.known.forget(inode);
            }
        }
    }

    /// The quick way: the descriptors where the latest sockets were, and the ones after them.
    fn try_latest_fds(&mut self, look: &mut Look<'_>) {
        let mut hit = None;
        for (index, process) in self.recent.iter_mut().enumerate() {
            let mut hits = Vec::new();
            for &fd in &process.latest {
                if look.is_done() {
                    break;
                }
                if take(process.fds.as_fd(), fd, look) == Ok(true) {
                    hits.push(fd);
                }
            }
            // A process that opens many sockets at once gives them numbers in a row, but for those that are unused below.
            let next = process.latest.front().map_or(0, |&fd| fd.saturating_add(1));
            let length = u32::try_from(look.wanted.len()).unwrap_or(u32::MAX);
            let row = next..next.saturating_add(length.saturating_add(NEXT_FDS));
            let unused = process
                .unused
                .lowest(UNUSED_FDS.max(look.wanted.len()))
                .iter()
                .copied();
            for fd in unused {
                if !look.is_done() && take(process.fds.as_fd(), fd, look) == Ok(true) {
                    hits.push(fd);
                }
            }
            for fd in row {
                if look.is_done() {
                    break;
                }
                match take(process.fds.as_fd(), fd, look) {
                    Ok(true) => hits.push(fd),
                    Ok(false) => {}
                    Err(_) => break,
                }
            }
            if !hits.is_empty() {
                hit = Some(index);
                process.remember(&hits);
            }
            if look.is_done() {
                break;
            }
        }
        self.bring_forward(hit);
    }

    /// Programs that were started since the previous look: fewer than what the recent ones have open.
    fn scan_started_since(&mut self, look: &mut Look<'_>) {
        let Some(newest) = self.proc.as_ref().map(|proc| newest_pid(proc.as_fd())) else {
            return;
        };
        let oldest = self.newest.max(newest.saturating_sub(NEWEST_PIDS)) + 1;
        for pid in (oldest..=newest).rev() {
            if look.is_done() {
                break;
            }
            self.scan_process(pid, look);
        }
        self.newest = newest;
    }

    /// Those that have run since they were read come first: nobody else can have opened a socket, save with a further thread.
    fn scan_recent(&mut self, look: &mut Look<'_>) {
        let order = self.recent.iter().enumerate().map(|(index, process)| {
            let ran = run_time(process.fds.as_fd());
            (ran == process.ran, index, ran)
        });
        let mut order: Vec<(bool, usize, u64)> = order.collect();
        order.sort_unstable();
        let mut hit = None;
        for (_, index, ran) in order {
            if look.is_done() || clock::mono() >= look.until {
                break;
            }
            let process = &mut self.recent[index];
            process.ran = ran;
            match process.scan(&mut self.entries, &mut self.known, look) {
                Ok(hits) if hits.is_empty() => {}
                Ok(hits) => {
                    process.remember(&hits);
                    hit = Some(process.pid);
                }
                // It is gone.
                Err(_) => process.pid = 0,
            }
        }
        self.recent.retain(|process| process.pid != 0);
        let at = self.recent.iter().position(|process| Some(process.pid) == hit);
        self.bring_forward(at);
    }

    fn scan_all(&mut self, look: &mut Look<'_>) {
        let mut tried: HashSet<u32> = self.recent.iter().map(|process| process.pid).collect();
        let newest = self.newest;
        for pid in (newest.saturating_sub(NEWEST_PIDS) + 1..=newest).rev() {
            if look.is_done() {
                break;
            }
            if tried.insert(pid) {
                self.scan_process(pid, look);
            }
        }
        if !look.is_done() {
            let mut pids = self.process_ids();
            // Newest first; numbers above the newest are from before the counter wrapped.
            pids.sort_unstable_by_key(|&pid| std::cmp::Reverse((pid <= newest, pid)));
            for pid in pids {
                if look.is_done() || clock::mono() >= look.until {
                    break;
                }
                if tried.insert(pid) {
                    self.scan_process(pid, look);
                }
            }
        }
    }

    /// Looks through one process if it is the user's, and remembers it if it holds a wanted socket.
    fn scan_process(&mut self, pid: u32, look: &mut Look<'_>) {
        let Some(mut process) = self.open_process(pid) else {
            return;
        };
        if let Ok(hits) = process.scan(&mut self.entries, &mut self.known, look)
            && !hits.is_empty()
        {
            process.remember(&hits);
            self.remember(process);
        }
    }

    /// A process, if it is the user's.
    fn open_process(&self, pid: u32) -> Option<Recent> {
        let proc = self.proc.as_ref()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fds = openat(proc, format!("{pid}/fd"), flags, Mode::empty()).ok()?;
        // Of what was opened: the number may have become another process's meanwhile.
        let mine = fstat(&fds).is_ok_and(|stat| stat.st_uid == self.uid);
        mine.then(|| Recent {
            pid,
            fds,
            latest: VecDeque::new(),
            unused: Unused::default(),
            ran: 0,
            row: 0,
        })
    }

    fn remember(&mut self, process: Recent) {
        self.recent.truncate(RECENT_PROCESSES - 1);
        self.recent.push_front(process);
    }

    fn process_ids(&mut self) -> Vec<u32> {
        let mut pids = Vec::new();
        let Some(proc) = &self.proc else {
            return pids;
        };
        if seek(proc, SeekFrom::Start(0)).is_err() {
            return pids;
        }
        let mut dir = RawDir::new(proc, &mut self.entries);
        while let Some(Ok(entry)) = dir.next() {
            if let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
                pids.push(pid);
            }
        }
        pids
    }

    fn bring_forward(&mut self, index: Option<usize>) {
        if let Some(process) = index.and_then(|index| self.recent.remove(index)) {
            self.recent.push_front(process);
        }
    }
}

/// How long no look through all processes follows one that took so long and found nothing.
fn rest(took: Duration) -> Duration {
    if took >= LOOK_BUDGET {
        took * REST_FACTOR_OF_CUT
    } else {
        took * REST_FACTOR
    }
}

/// The process id that was given last (last field of /proc/loadavg); 0 when it cannot be read.
fn newest_pid(proc: BorrowedFd<'_>) -> u32 {
    let read = || {
        let file = openat(proc, "loadavg", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = [0; 128];
        let length = rustix::io::read(&file, &mut text).ok()?;
        str::from_utf8(&text[..length])
            .ok()?
            .split_ascii_whitespace()
            .last()?
            .parse()
            .ok()
    };
    read().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_was_cut_short_says_less_of_what_is_not_there_than_a_whole_one() {
        let whole = LOOK_BUDGET / 2;
        assert_eq!(rest(whole), 9 * whole, "a tenth of a core");
        assert_eq!(rest(LOOK_BUDGET), LOOK_BUDGET);
    }
}
