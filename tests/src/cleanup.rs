//! What must be removed when the process ends by a signal, which runs no destructor.
//!
//! Processes and namespaces need nothing here: the kernel ends them with this process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// Exit status after an interruption, as shells report it.
const INTERRUPTED: i32 = 130;

/// Removes the directory if the process is interrupted, ended or hung up on. The process then exits.
pub(crate) fn remove_on_signal(directory: &Path) {
    lock().push(directory.to_path_buf());
    WATCH.call_once(|| {
        std::thread::spawn(watch);
    });
}

/// The directory is gone by itself.
pub(crate) fn forget(directory: &Path) {
    lock().retain(|known| known != directory);
}

fn lock() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::exit,
    reason = "the signal asked the process to end; destructors of other threads cannot run"
)]
fn watch() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let came = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        std::io::Result::Ok(())
    });
    if came.is_ok() {
        for directory in lock().drain(..) {
            std::fs::remove_dir_all(directory).ok();
        }
        std::process::exit(INTERRUPTED);
    }
}
