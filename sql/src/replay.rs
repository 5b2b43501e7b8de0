//! What replaying the spool adds to applying changes: rows that were archived meanwhile are not made anew.
//!
//! No SQL. That a row is not archived between the look and the insertion is the back-ends' part.

use crate::StoreError;
use crate::change::{Change, OpenRow, State};
use crate::rows::{self, ExistingColumns};
use crate::spool::SpoolName;
use std::collections::HashSet;

/// How far a replay goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Note {
    pub(crate) spool: SpoolName,
    pub(crate) through: i64,
}

/// The new rows among changes.
pub(crate) fn inserted(changes: &[Change]) -> Vec<(&OpenRow, State)> {
    let rows = changes.iter().filter_map(|change| match change {
        Change::Open(row) => Some((&**row, State::Open)),
        Change::Drop(row) => Some((&**row, State::Drop)),
        _ => None,
    });
    rows.collect()
}

/// The seconds between which the new rows were received, which is how the archive is divided.
pub(crate) fn seconds(rows: &[(&OpenRow, State)]) -> (i64, i64) {
    let seconds = || {
        rows.iter()
            .map(|(row, _)| row.received.micros().div_euclid(1_000_000))
    };
    (seconds().min().unwrap_or(0), seconds().max().unwrap_or(0))
}

/// Leaves out the new rows that the archive has; they must be as they are there.
pub(crate) fn without_archived(
    changes: &mut Vec<Change>,
    archived: &[ExistingColumns],
) -> Result<(), StoreError> {
    if archived.is_empty() {
        return Ok(());
    }
    rows::expect_same(archived, &inserted(changes))?;
    let known: HashSet<i64> = archived.iter().map(|row| row.id).collect();
    changes.retain(|change| match change {
        Change::Open(row) | Change::Drop(row) => !known.contains(&row.id.get()),
        _ => true,
    });
    Ok(())
}
