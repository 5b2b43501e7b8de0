//! Who changes a log in a file: the server that has it, else this process.
//!
//! Steps alone; what is too old is found by others.

use super::config::Config;
use nufw_common::clock;
use nufw_common::control::{Client, ControlError};
use nufw_common::exit::{Exit, Failure};
use nulog::rotate::{Kept, MOST_IDS};
use nulog::{Job, Keeper, StoreError, Upkeep, UpkeepDone};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Work on a file of nobody's until a server that wants to start gets its turn, and how long that lasts.
const BEFORE_GIVING_WAY: Duration = Duration::from_millis(500);
const GIVING_WAY: Duration = Duration::from_millis(100);
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
    Own {
        keeper: Box<Keeper>,
        /// When a server was last given the chance to have it.
        since: Instant,
        socket: PathBuf,
    },
}

impl File {
    /// `None` where the log is not a file. One run at a time has one.
    pub(super) async fn of(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(path) = config.database.file() else {
            return Ok(None);
        };
        if let Some(client) = server(&config.socket, path).await? {
            return Ok(Some(Self::Server(Box::new(client))));
        }
        let keeper = Keeper::open(&config.database, Job::Rotate)
            .await
            .map_err(Failure::from)?;
        Ok(Some(Self::Own {
            keeper: Box::new(keeper),
            since: clock::mono(),
            socket: config.socket.clone(),
        }))
    }

    async fn step(&mut self, step: &Upkeep) -> Result<UpkeepDone, Failure> {
        let client = match self {
            Self::Own {
                keeper,
                since,
                socket,
            } => {
                if clock::mono().saturating_duration_since(*since) >= BEFORE_GIVING_WAY {
                    keeper.give_way().await.map_err(Failure::from)?;
                    tokio::time::sleep(GIVING_WAY).await;
                    *since = clock::mono();
                }
                return keeper.upkeep(step).await.map_err(|error| match error {
                    StoreError::InUse { .. } => Failure::new(
                        Exit::TempFail,
                        anyhow::anyhow!(
                            "{error}; it did not answer on {} (key log.server-socket) when this run began: the next one goes on",
                            socket.display()
                        ),
                    ),
                    error => error.into(),
                });
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
            Self::Own { keeper, .. } => keeper.close().await.map_err(Failure::from),
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
    client.lock(Job::Rotate.name()).await.map_err(refused)?;
    Ok(Some(client))
}

fn refused(error: ControlError) -> Failure {
    let exit = match &error {
        ControlError::Busy(_) => Exit::TempFail,
        ControlError::Denied(_) | ControlError::Forbidden { .. } => Exit::NoPerm,
        ControlError::Refused { .. } => Exit::Software,
        ControlError::Absent { .. } | ControlError::Lost { .. } | ControlError::TimedOut { .. } => {
            Exit::Unavailable
        }
    };
    Failure::new(exit, error)
}
