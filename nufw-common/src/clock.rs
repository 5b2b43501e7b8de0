//! The only place that asks what time it is.
//!
//! Everything else takes the time as a parameter; the edges call these two functions and pass the result on.

use nufw_proto::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time that never goes backwards, for timeouts and order. Under tokio's paused test clock it is that clock.
#[expect(clippy::disallowed_methods, reason = "the one caller of the monotonic clock")]
pub fn mono() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day, for what people read later; it may jump.
#[expect(clippy::disallowed_methods, reason = "the one caller of the time of day")]
pub fn wall() -> Timestamp {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_after_this_was_written() {
        // 2026-01-01T00:00:00Z
        assert!(wall().micros() > 1_767_225_600_000_000);
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = mono();
        assert!(mono() >= first);
    }
}
