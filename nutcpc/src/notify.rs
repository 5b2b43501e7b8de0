//! Shows refusals on the desktop, by a program such as `notify-send`.
//!
//! Runs it without a shell, with two arguments that hold nothing but plain text, one at a time, so many a minute; what does
//! not end is killed with all that it started. What is beyond is a number in the next one.

use crate::event::Event;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Notifications in a minute; further ones are a number in the next.
pub(crate) const PER_MINUTE: u32 = 10;
/// How long the program may take; then it is killed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest text, characters.
const MAX_TEXT: usize = 240;
/// The first line of each.
const SUMMARY: &str = "Connection refused by the firewall";

/// Shows refusals.
#[derive(Default)]
pub(crate) struct Notifier {
    program: Option<PathBuf>,
    running: Option<Running>,
    /// What waits for the program that runs, and how many came after it.
    waiting: Option<(String, u64)>,
    rate: Rate,
}

struct Running {
    child: Child,
    until: tokio::time::Instant,
}

/// So many in a minute.
#[derive(Debug, Default)]
struct Rate {
    until: Option<Instant>,
    shown: u32,
    /// Refusals that were not shown.
    left_out: u64,
}

impl Rate {
    /// Whether one more may be shown, and how many were not before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.until.is_none_or(|until| now >= until) {
            self.until = Some(now + Duration::from_mins(1));
            self.shown = 0;
        }
        if self.shown >= PER_MINUTE {
            self.left_out += 1;
            return None;
        }
        self.shown += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Notifier {
    /// Another program, or none.
    pub(crate) fn set_program(&mut self, program: Option<PathBuf>) {
        self.program = program;
    }

    /// Shows an event, if it is a refusal. Never waits.
    pub(crate) fn show(&mut self, event: &Event, now: Instant) {
        let Event::Denied {
            seen,
            program,
            untold,
            ..
        } = event
        else {
            return;
        };
        if self.program.is_none() {
            return;
        }
        let Some(left_out) = self.rate.take(now) else {
            return;
        };
        let others = left_out + u64::from(*untold);
        match &mut self.waiting {
            Some((_, more)) => *more += 1 + others,
            None => self.waiting = Some((text(&seen.to_string(), program.as_deref()), others)),
        }
        self.start_waiting();
    }

    fn start_waiting(&mut self) {
        if self.running.is_some() {
            return;
        }
        let (Some(program), Some((text, others))) = (&self.program, self.waiting.take()) else {
            return;
        };
        let body = match others {
            0 => text,
            others => format!("{text}, and {others} more"),
        };
        let started = Command::new(program)
            .args([SUMMARY, &body])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Of a group of its own, that what it starts is killed with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        match started {
            Ok(child) => {
                let until = tokio::time::Instant::from_std(nufw_common::clock::mono()) + TIMEOUT;
                self.running = Some(Running { child, until });
            }
            Err(error) => {
                tracing::warn!(program = %program.display(), %error, "a refusal cannot be shown on the desktop");
            }
        }
    }

    /// Waits until there is something to do, and does it; for ever while nothing runs. Cancel-safe.
    pub(crate) async fn work(&mut self) {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        tokio::select! {
            ended = running.child.wait() => {
                if !ended.is_ok_and(|status| status.success()) {
                    tracing::debug!("the program that shows refusals failed");
                }
            }
            () = tokio::time::sleep_until(running.until) => {
                tracing::warn!("the program that shows refusals did not end in {} s: it is killed", TIMEOUT.as_secs());
                running.kill();
                // Killed, it is gone in a moment, and must not stay a zombie.
                let _ = running.child.wait().await;
            }
        }
        self.running = None;
        self.start_waiting();
    }
}

impl Running {
    fn kill(&mut self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            // Who has left the group in time is its own master.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One line of plain text: nothing that ends a line, changes its direction, or is markup.
fn text(seen: &str, program: Option<&str>) -> String {
    let seen = seen.replace("->", "to");
    let text = match program {
        Some(program) => format!("{seen} of {program}"),
        None => seen,
    };
    text.chars().take(MAX_TEXT).map(plain).collect()
}

fn plain(c: char) -> char {
    // Bidirectional and other invisible marks; `is_control` knows C0 and C1 alone.
    let is_invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    match c {
        '<' | '>' | '&' | '\\' => '_',
        c if c.is_control() || is_invisible => '\u{fffd}',
        c => c,
    }
}

/// Marks every descriptor above the standard ones, such as one that a password came from, as none of the programs' that are
/// started here.
#[expect(unsafe_code, reason = "no dependency wraps close_range(2)")]
pub(crate) fn keep_descriptors() {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed; the call reads three numbers and no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "descriptors cannot be kept from programs that are started");
    }
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
