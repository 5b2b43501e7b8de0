//! Waiting for conditions with a deadline, never for fixed times.
//!
//! The only place of the lab that reads the clock.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab lives on real time; this is its one clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` holds; fails with `what` when it does not within the time.
pub fn wait_for(what: &str, within: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_some(what, within, || Ok(condition()?.then_some(())))
}

/// Waits until `look` finds something.
pub fn wait_some<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > within {
            bail!("waited {within:?} in vain for: {what}");
        }
        std::thread::sleep(POLL);
    }
}
