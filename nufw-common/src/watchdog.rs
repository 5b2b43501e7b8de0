//! Tells the service manager that the main loop turns (`sd_watchdog_enabled(3)`); a loop that hangs tells nothing, and the
//! manager ends and restarts the daemon.
//!
//! It has no clock and no thread of its own on purpose: only who works may say so.

use crate::lifecycle;
use std::time::{Duration, Instant};

/// How many times in the manager's time the loop speaks, so that one slow turn is no death.
const TIMES: u32 = 4;

/// The word to the service manager; does nothing without one that watches.
#[derive(Debug, Default)]
pub struct Watchdog {
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Watchdog {
    /// Reads `WATCHDOG_USEC` and `WATCHDOG_PID`, the latter if it is there: another process's watchdog is none of ours.
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let watched = variable("WATCHDOG_USEC");
        let mut watchdog = Self::new(watched.as_deref(), variable("WATCHDOG_PID").as_deref());
        if variable("NOTIFY_SOCKET").is_none() {
            watchdog.every = None;
        }
        watchdog
    }

    fn new(microseconds: Option<&str>, pid: Option<&str>) -> Self {
        let ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let time = microseconds
            .and_then(|time| time.parse().ok())
            .filter(|time| ours && *time > 0)
            .map(Duration::from_micros);
        Self {
            every: time.map(|time| time / TIMES),
            last: None,
        }
    }

    /// Called in every turn of the loop: says so to the manager, if it was not said a moment ago.
    pub fn turned(&mut self, now: Instant) {
        if self.is_due(now) {
            lifecycle::notify("WATCHDOG=1");
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else {
            return false;
        };
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_turn_in_each_quarter_of_the_time_is_told_and_no_more() {
        let mut watchdog = Watchdog::new(Some("2000000"), None);
        let start = clock::mono();
        // A turn every 100 ms for ten seconds.
        let told = (0..100)
            .filter(|turn| watchdog.is_due(start + Duration::from_millis(100) * *turn))
            .count();
        assert_eq!(told, 20);
    }

    #[test]
    fn nobody_is_told_who_does_not_watch_or_watches_another() {
        let own = std::process::id().to_string();
        for (time, pid, watched) in [
            (None, None, false),
            (Some("0"), None, false),
            (Some("soon"), None, false),
            (Some("1000000"), Some("1"), false),
            (Some("1000000"), Some(own.as_str()), true),
            (Some("1000000"), None, true),
        ] {
            let mut watchdog = Watchdog::new(time, pid);
            assert_eq!(watchdog.is_due(clock::mono()), watched, "{time:?} {pid:?}");
        }
    }
}
