//! A group of changes as the bytes that lie in the spool.
//!
//! Compact rather than readable: an hour without the database is millions of rows. Strict: bytes that are not exactly a group
//! are an error.

use crate::change::Change;

pub(super) fn encode(changes: &[Change]) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(changes).map_err(|error| format!("a change cannot be put into the spool: {error}"))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Change>, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((changes, [])) => Ok(changes),
        Ok(_) => Err("it is followed by bytes that belong to nothing".to_owned()),
        Err(error) => Err(format!("it is not a group of changes: {error}")),
    }
}
