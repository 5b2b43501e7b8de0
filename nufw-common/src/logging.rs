//! Where log lines go: standard error, filtered by `NUFW_LOG`.
//!
//! One call at the start of a program; libraries only use `tracing`.

use std::io::IsTerminal as _;
use std::os::linux::fs::MetadataExt as _;
use tracing_subscriber::EnvFilter;

/// The environment variable with the filter, in the form of `RUST_LOG` (`debug`, `info,nufw_agent::queue=trace`).
pub const FILTER_VARIABLE: &str = "NUFW_LOG";

/// Starts logging; `default_level` counts where `NUFW_LOG` is unset. A second call changes nothing.
pub fn init(default_level: &str) {
    let wanted = std::env::var(FILTER_VARIABLE)
        .ok()
        .filter(|filter| !filter.is_empty());
    let (filter, refused) = match wanted.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default_level), Some(error.to_string())),
        None => (EnvFilter::new(default_level), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The journal stamps every line itself.
    let started = if stderr_is_journal() {
        builder.without_time().try_init().is_ok()
    } else {
        builder.try_init().is_ok()
    };
    if let (true, Some(error)) = (started, refused) {
        tracing::warn!(
            error,
            default_level,
            "{FILTER_VARIABLE} is not a filter; using the default"
        );
    }
}

/// systemd names device and inode of the journal's socket; a pipe in between makes it something else.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|meta| stream == format!("{}:{}", meta.st_dev(), meta.st_ino()))
}
