//! The log as the server holds it, whatever the database.
//!
//! Chooses the back-end and says what each promises; how it is kept is theirs. When to write what is the journal's business.

use crate::Work;
use crate::change::{ActiveRow, Change};
#[cfg(feature = "bare")]
use crate::change::{Close, Established, OpenRow, State};
use crate::ids::{IdBlock, MAX_SERVER_NUMBER};
use crate::location::Kind;
use crate::mysql::MySql;
use crate::postgres::Postgres;
use crate::rows::Acknowledged;
use crate::spool::SpoolName;
use crate::sqlite::Sqlite;
use crate::{Location, StoreError, Upkeep, UpkeepDone, ids, replay};
use std::path::Path;
use std::time::Duration;

/// How long a statement waits for a lock that another program holds on the file of `SQLite`, before it is an error.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes to which the write-ahead log is cut when it starts again; a long reader makes it grow above that.
pub const WAL_SIZE_LIMIT: u32 = 64 * 1024 * 1024;

/// What applying changes came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Updates whose row is neither in the log nor in the archive, or is a DROP row: they changed nothing.
    pub missing: u64,
}

/// The open log. There is one at a time for a server number of a database, in all processes and on all machines; on
/// `SQLite` there is one for a file.
#[derive(Debug)]
pub struct Store(Inner);

#[derive(Debug)]
enum Inner {
    Sqlite(Box<Sqlite>),
    Postgres(Box<Postgres>),
    MySql(Box<MySql>),
}

/// The same call on whichever back-end it is.
macro_rules! each {
    ($inner:expr, $store:ident => $call:expr) => {
        match $inner {
            Inner::Sqlite($store) => $call,
            Inner::Postgres($store) => $call,
            Inner::MySql($store) => $call,
        }
    };
}

impl Store {
    /// Opens the log of server `server_number`. A file of `SQLite` is created and brought up to date; another database
    /// must have the schema of this version ([`crate::migrate`]).
    ///
    /// Client sessions that a crash left open are marked as ended: `end_reason` is `server-restart`, and `end_time` stays
    /// NULL, since nobody knows it.
    pub fn open(location: &Location, server_number: u16) -> Work<'_, Result<Self, StoreError>> {
        Box::pin(async move {
            if !(1..=MAX_SERVER_NUMBER).contains(&server_number) {
                return Err(StoreError::ServerNumber(server_number));
            }
            let inner = match &location.kind {
                Kind::Sqlite(path) => Inner::Sqlite(Box::new(Sqlite::open(path, server_number).await?)),
                Kind::Postgres(options) => {
                    Inner::Postgres(Box::new(Postgres::open(options, location, server_number).await?))
                }
                Kind::MySql(options) => {
                    Inner::MySql(Box::new(MySql::open(options, location, server_number).await?))
                }
            };
            Ok(Self(inner))
        })
    }

    /// The database file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Inner::Sqlite(store) => Some(store.path()),
            Inner::Postgres(_) | Inner::MySql(_) => None,
        }
    }

    /// Reserves `count` ids. They are durably taken before this returns: whatever happens, nobody gets them again.
    pub fn reserve_ids(&mut self, count: u32) -> Work<'_, Result<IdBlock, StoreError>> {
        Box::pin(async move { each!(&mut self.0, store => store.reserve_ids(count).await) })
    }

    /// Every row of this server in state OPEN or ESTABLISHED, of all gateways, in the order of their ids.
    pub fn active_rows(&mut self) -> Work<'_, Result<Vec<ActiveRow>, StoreError>> {
        Box::pin(async move { each!(&mut self.0, store => store.active_rows().await) })
    }

    /// Up to where each gateway's events are in the log: its last boot, and the last event of it.
    pub fn acknowledged(&mut self) -> Work<'_, Result<Acknowledged, StoreError>> {
        Box::pin(async move { each!(&mut self.0, store => store.acknowledged().await) })
    }

    /// Applies `changes` in one durable transaction. After an error none of them is applied, unless the error came from
    /// the commit itself or from a lost connection: then they may be, and applying them again is harmless. A connection
    /// that was lost is made anew by the next call.
    pub fn apply<'a>(&'a mut self, changes: &'a [Change]) -> Work<'a, Result<Applied, StoreError>> {
        Box::pin(async move { each!(&mut self.0, store => store.apply(changes).await) })
    }

    /// Applies what lay in the spool up to a position and, in the same transaction, notes that position. A new row that is
    /// in the log or in the archive already stays as it is there; from `changes` those may be taken out.
    pub fn replay<'a>(
        &'a mut self,
        spool: SpoolName,
        through: i64,
        changes: &'a mut Vec<Change>,
    ) -> Work<'a, Result<Applied, StoreError>> {
        Box::pin(async move {
            let note = replay::Note { spool, through };
            each!(&mut self.0, store => store.replay(note, changes).await)
        })
    }

    /// Up to where the rows of a spool are in the log.
    pub fn spooled(&mut self, spool: SpoolName) -> Work<'_, Result<i64, StoreError>> {
        Box::pin(async move {
            let noted: Option<(i64, i64)> = each!(&mut self.0, store => store.spooled().await)?;
            Ok(noted
                .filter(|(name, _)| *name == spool.0)
                .map_or(0, |(_, through)| through))
        })
    }

    /// Marks the sessions as ended that a crash left open and that came from the spool since [`Self::open`].
    pub fn end_open_sessions(&mut self) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move { each!(&mut self.0, store => store.end_open_sessions().await) })
    }

    /// Gives out no id below this one, whatever the database says: it may be an older copy of what was there.
    pub fn skip_ids(&mut self, end: i64) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let sequence = ids::sequence(end);
            match &mut self.0 {
                Inner::Sqlite(store) => store.skip_ids(sequence).await,
                Inner::Postgres(store) => {
                    store.skip_ids(sequence);
                    Ok(())
                }
                Inner::MySql(store) => {
                    store.skip_ids(sequence);
                    Ok(())
                }
            }
        })
    }

    /// What measurements compare with: the three statements of a connection's life in one durable transaction, and nothing
    /// else. Nobody sorts, fences or compares; the rows must be new, and those that are changed must be there.
    #[cfg(feature = "bare")]
    pub fn bare<'a>(
        &'a mut self,
        opened: &'a [OpenRow],
        established: &'a [Established],
        closed: &'a [Close],
    ) -> Work<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let opened: Vec<_> = opened.iter().map(|row| (row, State::Open)).collect();
            let established: Vec<_> = established.iter().collect();
            let closed: Vec<_> = closed.iter().collect();
            each!(&mut self.0, store => store.bare(&opened, &established, &closed).await)
        })
    }

    /// Does what keeps the log healthy and may wait until nobody waits for a commit. Cheap when there is nothing to do.
    pub fn tend(&mut self) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(store) => store.tend().await,
                // These servers look after themselves.
                Inner::Postgres(_) | Inner::MySql(_) => Ok(()),
            }
        })
    }

    /// Does one step of upkeep on a file of `SQLite`, whose one writer is this. On a database server, whoever does upkeep
    /// connects by itself.
    pub fn upkeep<'a>(&'a mut self, step: &'a Upkeep) -> Work<'a, Result<UpkeepDone, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(store) => store.upkeep(step).await,
                Inner::Postgres(_) | Inner::MySql(_) => Err(StoreError::NotAFile),
            }
        })
    }

    /// Closes the log in order; a file of `SQLite` is complete without its write-ahead log afterwards.
    pub fn close(self) -> Work<'static, Result<(), StoreError>> {
        Box::pin(async move { each!(self.0, store => store.close().await) })
    }
}
