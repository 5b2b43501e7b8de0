//! One end-to-end test: a lab, what the test does with it, and a report when it fails.
//!
//! Where namespaces cannot be made the test says so loudly and does nothing.

use crate::command::in_path;
use crate::daemons::Lab;
use crate::options::Options;
use crate::shape::{can_change_user, can_make_namespaces};
use anyhow::Result;
use std::io::Write;

/// Runs a test in a lab of its own.
///
/// # Panics
///
/// When the test fails.
#[expect(clippy::panic, reason = "a test fails by panicking")]
#[expect(
    clippy::print_stderr,
    reason = "the report of a failed test is for the eyes of whoever runs it"
)]
pub fn with_lab(options: Options, test: impl FnOnce(&mut Lab) -> Result<()>) {
    if !lab_possible() {
        return;
    }
    let mut lab = match Lab::start(options) {
        Ok(lab) => lab,
        Err(error) => panic!("the lab does not start: {error:#}"),
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut lab)));
    let failure = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "an assertion failed (above)".to_owned(),
    };
    eprintln!("{}", lab.tails());
    panic!("{failure}");
}

/// Whether a lab can be made; says loudly if not.
pub fn lab_possible() -> bool {
    match can_make_namespaces() {
        Ok(()) => true,
        Err(reason) => {
            skipped(&format!("{reason}; scripts/test runs it in a user namespace"));
            false
        }
    }
}

/// Whether processes can run as several users; says loudly if not.
pub fn two_users_possible() -> bool {
    let possible = can_make_namespaces().is_ok() && can_change_user();
    if !possible {
        skipped("needs two user ids, so it runs as root only: sudo scripts/test");
    }
    possible
}

/// Whether system calls cannot be traced; says loudly if so.
pub fn missing_strace() -> bool {
    let missing = in_path("strace").is_none();
    if missing {
        skipped("needs strace: run `apt-get install strace`");
    }
    missing
}

/// Shows a text to whoever runs the test, past the capture of the test harness.
pub fn show(text: &str) {
    writeln!(std::io::stderr(), "\n{text}").ok();
}

/// Past the capture of the test harness, which would hide it.
fn skipped(reason: &str) {
    let thread = std::thread::current();
    writeln!(
        std::io::stderr(),
        "SKIPPED {}: {reason}",
        thread.name().unwrap_or("test")
    )
    .ok();
}
