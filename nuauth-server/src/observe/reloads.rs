//! What became of reloads: when the policy in force was read, and whether the last attempt failed.
//!
//! Counts what the server says; decides nothing.

use nufw_common::clock;
use std::sync::{Mutex, PoisonError};

/// What is known of reloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadState {
    /// Reloads that succeeded.
    pub good: u64,
    /// Reloads that failed.
    pub bad: u64,
    /// Whether the last one failed.
    pub last_failed: bool,
    /// When what is in force was read, seconds since 1970.
    pub last_good: u64,
}

/// Keeps it.
#[derive(Debug)]
pub(crate) struct Reloads(Mutex<ReloadState>);

fn now() -> u64 {
    u64::try_from(clock::wall().micros() / 1_000_000).unwrap_or_default()
}

impl Reloads {
    /// Everything was read just now, at the start.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(ReloadState {
            last_good: now(),
            ..ReloadState::default()
        }))
    }

    /// A reload was made.
    pub(crate) fn made(&self, succeeded: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_failed = !succeeded;
        if succeeded {
            state.good += 1;
            state.last_good = now();
        } else {
            state.bad += 1;
        }
    }

    pub(crate) fn state(&self) -> ReloadState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_reload_is_remembered_until_one_succeeds() {
        let reloads = Reloads::new();
        let start = reloads.state().last_good;
        assert!(start > 1_767_225_600);
        reloads.made(false);
        let state = reloads.state();
        assert_eq!(
            (state.good, state.bad, state.last_failed, state.last_good),
            (0, 1, true, start)
        );
        reloads.made(true);
        let state = reloads.state();
        assert_eq!((state.good, state.bad, state.last_failed), (1, 1, false));
    }
}
