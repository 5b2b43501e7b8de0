//! Where log lines go: standard error, filtered by `NUFW_LOG`.
//!
//! One call at the start of a program; libraries only use `tracing`.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::os::linux::fs::MetadataExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

/// The environment variable with the filter, in the form of `RUST_LOG` (`debug`, `info,nufw_agent::queue=trace`).
pub const FILTER_VARIABLE: &str = "NUFW_LOG";

/// Longest filter that is taken at run time, bytes.
const MAX_FILTER: usize = 1024;

type Set = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The filter in force, and what replaces it.
struct Running {
    filter: Mutex<String>,
    set: Set,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// The filter in force; `None` before [`init`].
pub fn filter() -> Option<String> {
    let running = RUNNING.get()?;
    Some(
        running
            .filter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    )
}

/// Replaces the filter; what is wrong comes as a sentence.
pub fn set_filter(text: &str) -> Result<(), String> {
    let running = RUNNING.get().ok_or("nothing is logged by this program")?;
    if text.is_empty() || text.len() > MAX_FILTER {
        return Err(format!("a filter has 1 to {MAX_FILTER} bytes"));
    }
    let wanted = EnvFilter::try_new(text).map_err(|error| format!("\"{text}\" is not a filter: {error}"))?;
    (running.set)(wanted)?;
    text.clone_into(&mut running.filter.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn remember<S: 'static>(filter: String, handle: Handle<EnvFilter, S>) {
    let why = |error: &dyn Display| format!("the filter cannot be replaced: {error}");
    let set: Set = Box::new(move |filter| handle.reload(filter).map_err(|error| why(&error)));
    let filter = Mutex::new(filter);
    let _ = RUNNING.set(Running { filter, set });
}

/// Starts logging; `default_level` counts where `NUFW_LOG` is unset. A second call changes nothing.
pub fn init(default_level: &str) {
    init_quieted(default_level, None);
}

/// The same, with less from a library (`quieted`) than the filter says, unless that names it: what a peer can make a library say
/// must not fill the log.
pub fn init_quieted(default_level: &str, quieted: Option<&str>) {
    let with = |filter: String| match quieted {
        Some(target) if !filter.contains(target) => format!("{filter},{target}=error"),
        _ => filter,
    };
    let wanted = std::env::var(FILTER_VARIABLE)
        .ok()
        .filter(|filter| !filter.is_empty())
        .map(with);
    let usual = || {
        let usual = with(default_level.to_owned());
        (EnvFilter::new(&usual), usual)
    };
    let ((filter, text), refused) = match wanted.map(|text| (EnvFilter::try_new(&text), text)) {
        Some((Ok(filter), text)) => ((filter, text), None),
        Some((Err(error), _)) => (usual(), Some(error.to_string())),
        None => (usual(), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The journal stamps every line itself.
    let started = if stderr_is_journal() {
        let builder = builder
            .without_time()
            .with_env_filter(filter)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        builder.try_init().map(|()| remember(text, handle)).is_ok()
    } else {
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        builder.try_init().map(|()| remember(text, handle)).is_ok()
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
