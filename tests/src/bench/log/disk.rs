//! How long the disk itself takes to make a little durable while something is measured: no commit waits less than that.
//!
//! Writes in place to a file of its own beside the database, as a log that is used again does. Knows nothing of databases.

use crate::wait::now;
use anyhow::{Context as _, Result, anyhow};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two writes: rare enough to cost the database little, often enough to be there when the disk is slow.
const EVERY: Duration = Duration::from_millis(20);
/// Bytes of a write, and of the file.
const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;

/// A thread that writes until it is asked what it saw.
pub(super) struct Disk {
    stop: Sender<()>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Disk {
    /// Begins, in a directory on the disk that is meant.
    pub(super) fn watch(dir: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir).context("the disk cannot be watched")?;
        file.write_all_at(&vec![0; BLOCK * usize::try_from(BLOCKS)?], 0)?;
        file.sync_all()?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                took.push(write(&file, took.len() as u64 % BLOCKS)?);
            }
            took.sort_unstable();
            Ok(took)
        });
        Ok(Self { stop, thread })
    }

    /// How long each write took, the shortest first.
    pub(super) fn seen(self) -> Result<Vec<Duration>> {
        drop(self.stop);
        self.thread
            .join()
            .map_err(|_| anyhow!("the disk's thread panicked"))?
    }
}

fn write(file: &File, block: u64) -> Result<Duration> {
    let began = now();
    file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
    file.sync_data()?;
    Ok(began.elapsed())
}
