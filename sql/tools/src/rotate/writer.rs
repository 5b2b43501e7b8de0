//! Who changes a log in a file: the server that has it, else this process.
//!
//! Steps alone; what is too old is found by others.

use super::config::Config;
use nufw_common::control::{Client, ControlError};
use nufw_common::exit::{Exit, Failure};
use nulog::rotate::{Archive, Kept, MOST_IDS};
use nulog::{Store, StoreError, Upkeep, UpkeepDone};
use std::path::Path;
use std::time::Duration;

/// The name of the lock that a server keeps for one run at a time.
const LOCK: &str = "rotate";
/// A step may wait for its turn between commits.
const STEP_PATIENCE: Duration = Duration::from_mins(1);
/// How often a step is tried again that the server had no place for, and how long after.
const ATTEMPTS: u32 = 50;
const RETRY: Duration = Duration::from_millis(100);

/// The way to change the file.
pub(super) enum File {
    /// The server that has it.
    Server(Box<Client>),
    /// No server has it.
    Own(Box<Store>),
}

impl File {
    /// `None` where the log is not a file.
    pub(super) async fn of(config: &Config, archive: &mut Archive) -> Result<Option<Self>, Failure> {
        let Some(path) = config.database.file() else {
            return Ok(None);
        };
        if let Some(client) = server(&config.socket, path).await? {
            return Ok(Some(Self::Server(Box::new(client))));
        }
        let number = archive.server_number().await.map_err(Failure::from)?;
        // A file without a number was never written by a server, so there is nothing in it.
        let store = Store::open(&config.database, number.unwrap_or(1)).await;
        match store {
            Ok(store) => Ok(Some(Self::Own(Box::new(store)))),
            Err(error @ StoreError::InUse { .. }) => Err(Failure::new(
                Exit::TempFail,
                anyhow::anyhow!(
                    "{error}, and no server of this log answers on {} (key log.server-socket)",
                    config.socket.display()
                ),
            )),
            Err(error) => Err(error.into()),
        }
    }

    async fn step(&mut self, step: &Upkeep) -> Result<UpkeepDone, Failure> {
        let client = match self {
            Self::Own(store) => {
                let done = store.upkeep(step).await.map_err(Failure::from)?;
                store.tend().await.map_err(Failure::from)?;
                return Ok(done);
            }
            Self::Server(client) => client,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            match client.maintain(step).await {
                Err(ControlError::Busy(_)) if attempts < ATTEMPTS => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(refused(error)),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Drops these rows if they are over and older than `before`; how many it dropped.
    pub(super) async fn forget(&mut self, kept: Kept, before: i64, ids: &[i64]) -> Result<u64, Failure> {
        let (mut rest, mut dropped) = (ids, 0);
        while !rest.is_empty() {
            let (now, _) = rest.split_at(rest.len().min(MOST_IDS));
            let step = Upkeep::Forget {
                kept,
                before,
                ids: now.to_vec(),
            };
            let done = self.step(&step).await?;
            dropped += done.moved;
            let seen = usize::try_from(done.seen).unwrap_or(usize::MAX).min(now.len());
            if seen == 0 {
                break;
            }
            rest = rest.get(seen..).unwrap_or_default();
        }
        Ok(dropped)
    }

    /// Gives some space back; how many pages, and whether there may be more.
    pub(super) async fn shrink(&mut self) -> Result<(u64, bool), Failure> {
        let done = self.step(&Upkeep::Shrink).await?;
        Ok((done.moved, done.more))
    }

    pub(super) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Server(_) => Ok(()),
            Self::Own(store) => store.close().await.map_err(Failure::from),
        }
    }
}

/// The server that has this file, with the lock of one run.
async fn server(socket: &Path, file: &Path) -> Result<Option<Client>, Failure> {
    let client = match Client::connect(socket).await {
        Ok(client) => client,
        Err(ControlError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let mut client = client.with_patience(STEP_PATIENCE);
    let status = client.status().await.map_err(refused)?;
    let theirs = status.database.strip_prefix("sqlite:").map(Path::new);
    let same = |theirs: &Path| std::fs::canonicalize(theirs).ok() == std::fs::canonicalize(file).ok();
    if !theirs.is_some_and(same) {
        return Ok(None);
    }
    client.lock(LOCK).await.map_err(refused)?;
    Ok(Some(client))
}

fn refused(error: ControlError) -> Failure {
    let exit = match &error {
        ControlError::Busy(_) => Exit::TempFail,
        ControlError::Denied(_) => Exit::NoPerm,
        ControlError::Refused { .. } => Exit::Software,
        ControlError::Absent { .. } | ControlError::Lost { .. } | ControlError::TimedOut { .. } => {
            Exit::Unavailable
        }
    };
    Failure::new(exit, error)
}
