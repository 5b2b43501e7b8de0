//! Who does the steps: the running server where the log is a file of it, else this program.
//!
//! A worker that fails for the moment is replaced or tried again; none is ever forced on a server.

use super::Settings;
use nufw_common::control::{Client, ControlError, Verified};
use nufw_common::exit::{Exit, Failure};
use nulog::{Job, Keeper, StoreError, Upkeep, UpkeepDone};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server that has just gone, or is just coming, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
/// How often a step is tried that another program's lock broke.
const ATTEMPTS: u32 = 100;
/// Work on a file of nobody's until a server that wants to start gets its turn.
const BEFORE_GIVING_WAY: Duration = Duration::from_millis(500);
/// How long that turn lasts.
const GIVING_WAY: Duration = Duration::from_millis(100);
/// A step of upkeep may wait for its turn.
const STEP_PATIENCE: Duration = Duration::from_mins(1);

/// Who does the steps.
pub(crate) enum Worker {
    /// The running server.
    Server(Box<Client>),
    /// This program, on a file that no server has open.
    File(Box<FileWorker>),
    /// This program, beside whatever servers there are.
    Database(Box<Keeper>),
}

pub(crate) struct FileWorker {
    keeper: Keeper,
    worked: Duration,
}

impl Worker {
    /// Finds out who can do it, and takes the lock of all cleaners.
    pub(crate) async fn find(settings: &Settings) -> Result<Self, Failure> {
        let Some(path) = settings.location.file() else {
            let keeper = Keeper::open(&settings.location, Job::Clean).await?;
            return Ok(Self::Database(Box::new(keeper)));
        };
        if let Some(client) = server_of(path, &settings.socket).await? {
            return Ok(Self::Server(Box::new(client)));
        }
        let keeper = Keeper::open(&settings.location, Job::Clean).await?;
        Ok(Self::File(Box::new(FileWorker {
            keeper,
            worked: Duration::ZERO,
        })))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Server(_) => "server",
            Self::File(_) => "file",
            Self::Database(_) => "database",
        }
    }

    /// Does one step, whoever does it in the end.
    pub(crate) async fn step(&mut self, step: &Upkeep, settings: &Settings) -> Result<UpkeepDone, Failure> {
        let mut waited = Duration::ZERO;
        let mut attempts = 0;
        loop {
            let trouble = match self.attempt(step).await {
                Ok(done) => return Ok(done),
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Busy(failure) => {
                    attempts += 1;
                    if attempts >= ATTEMPTS {
                        return Err(failure);
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Trouble::Moved(failure) => {
                    // The lock of the job goes with the worker, so this one has to be gone before the next is found.
                    if waited >= PATIENCE {
                        return Err(failure);
                    }
                    tokio::time::sleep(RETRY).await;
                    waited += RETRY;
                    if let Ok(next) = self.replacement(settings).await {
                        *self = next;
                    }
                }
                Trouble::Fatal(failure) => return Err(failure),
            }
        }
    }

    /// The one who has the file at the moment.
    async fn replacement(&self, settings: &Settings) -> Result<Self, Failure> {
        match (self, settings.location.file()) {
            // The lock of all cleaners of the file is held on, and that of the server is taken beside it.
            (Self::File(_), Some(path)) => match server_of(path, &settings.socket).await? {
                Some(client) => Ok(Self::Server(Box::new(client))),
                None => Err(Failure::new(
                    Exit::Unavailable,
                    anyhow::anyhow!("no server answers"),
                )),
            },
            _ => Self::find(settings).await,
        }
    }

    async fn attempt(&mut self, step: &Upkeep) -> Result<UpkeepDone, Trouble> {
        match self {
            Self::Server(client) => client.maintain(step).await.map_err(|error| match error {
                ControlError::Lost { .. } | ControlError::Absent { .. } => Trouble::Moved(refused(error)),
                ControlError::Busy(_) => Trouble::Busy(refused(error)),
                error => Trouble::Fatal(refused(error)),
            }),
            Self::File(worker) => worker.step(step).await.map_err(|error| match error {
                StoreError::InUse { .. } => Trouble::Moved(error.into()),
                error => trouble(error),
            }),
            Self::Database(keeper) => keeper.upkeep(step).await.map_err(trouble),
        }
    }

    /// Leaves the log in order.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Server(_) => Ok(()),
            Self::File(worker) => Ok(worker.keeper.close().await?),
            Self::Database(keeper) => Ok(keeper.close().await?),
        }
    }
}

impl FileWorker {
    async fn step(&mut self, step: &Upkeep) -> Result<UpkeepDone, StoreError> {
        if self.worked >= BEFORE_GIVING_WAY {
            self.worked = Duration::ZERO;
            self.keeper.give_way().await?;
            tokio::time::sleep(GIVING_WAY).await;
        }
        let began = nufw_common::clock::mono();
        let done = self.keeper.upkeep(step).await;
        self.worked += nufw_common::clock::mono().saturating_duration_since(began);
        done
    }
}

/// Why a step was not done.
enum Trouble {
    /// It may be done in a moment.
    Busy(Failure),
    /// Somebody else has the file now.
    Moved(Failure),
    /// It will not be done.
    Fatal(Failure),
}

fn trouble(error: StoreError) -> Trouble {
    match error {
        StoreError::Busy(_) => Trouble::Busy(error.into()),
        error => Trouble::Fatal(error.into()),
    }
}

fn refused(error: ControlError) -> Failure {
    let exit = match &error {
        ControlError::Busy(_) => Exit::TempFail,
        ControlError::Denied(_) | ControlError::Forbidden { .. } => Exit::NoPerm,
        _ => Exit::Unavailable,
    };
    Failure::new(exit, error)
}

/// The running server, with the lock of all cleaners taken, if it is this file's.
async fn server_of(path: &Path, socket: &Path) -> Result<Option<Client>, Failure> {
    let mut client = match Client::connect(socket).await {
        Ok(client) => client.with_patience(STEP_PATIENCE),
        Err(ControlError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let status = client.status().await.map_err(refused)?;
    let its = status.database.strip_prefix("sqlite:").map(PathBuf::from);
    let same = |its: &Path| match (its.canonicalize(), path.canonicalize()) {
        (Ok(its), Ok(ours)) => its == ours,
        // Its directory may be closed to us, and it need not be open.
        _ => its == path,
    };
    if !its.is_some_and(|its| same(&its)) {
        return Ok(None);
    }
    client.lock(Job::Clean.name()).await.map_err(refused)?;
    Ok(Some(client))
}

/// Has the server's gateways show their tables, or only says which are there; `None` when no server answers.
pub(crate) async fn verify(socket: &Path, gateways: Vec<String>, dry_run: bool) -> Option<Verified> {
    let asked = async {
        let mut client = Client::connect(socket).await?;
        if !dry_run {
            return client.verify(gateways).await;
        }
        let there = client.status().await?.gateways;
        let (asked, absent) = gateways.into_iter().partition(|name| there.contains(name));
        Ok(Verified {
            asked,
            absent,
            ..Verified::default()
        })
    };
    match asked.await {
        Ok(verified) => Some(verified),
        Err(error) => {
            let error: ControlError = error;
            tracing::info!(%error, "the server was not asked to check old rows");
            None
        }
    }
}
