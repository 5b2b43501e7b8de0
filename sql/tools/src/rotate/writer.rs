//! Who changes a log in a file: the server that has it, else this process.
//!
//! Steps alone; what is too old is found by others.

use super::config::Config;
use nufw_common::exit::{Exit, Failure};
use nulog::rotate::Kept;

/// The way to change the file.
pub(super) struct File {}

impl File {
    /// `None` where the log is not a file.
    #[expect(clippy::unused_async, reason = "steps are not there yet")]
    pub(super) async fn of(config: &Config) -> Result<Option<Self>, Failure> {
        match config.database.file() {
            Some(_) => Err(Failure::new(
                Exit::Unavailable,
                anyhow::anyhow!("logs in files cannot be rotated yet {}", config.socket.display()),
            )),
            None => Ok(None),
        }
    }

    #[expect(clippy::unused_async, reason = "steps are not there yet")]
    pub(super) async fn forget(&mut self, _: Kept, _: i64, _: &[i64]) -> Result<u64, Failure> {
        Ok(0)
    }

    #[expect(clippy::unused_async, reason = "steps are not there yet")]
    pub(super) async fn shrink(&mut self) -> Result<(u64, bool), Failure> {
        Ok((0, false))
    }

    #[expect(clippy::unused_async, reason = "steps are not there yet")]
    pub(super) async fn close(self) -> Result<(), Failure> {
        Ok(())
    }
}
