//! Files that are whole or absent: written beside their place, synced, and moved there.
//!
//! Knows nothing of what is in them.

use super::PkiError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Mode of a private key.
pub(super) const SECRET: u32 = 0o600;
/// Mode of everything else.
pub(super) const PUBLIC: u32 = 0o644;

/// Reads a file as text.
pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|e| failed("cannot read", path, &e))
}

/// Refuses to replace a file unless forced; tells whether there was one.
pub(super) fn may_write(path: &Path, force: bool) -> Result<bool, PkiError> {
    let exists = path
        .try_exists()
        .map_err(|e| failed("cannot look for", path, &e))?;
    if exists && !force {
        return Err(PkiError::Exists(path.to_owned()));
    }
    Ok(exists)
}

/// Replaces a file by `text`, or leaves it as it was.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let written = try_replace(path, text, mode);
    written.map_err(|e| failed("cannot write", path, &e))
}

fn try_replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let temporary = dir.join(format!(".{:016x}.tmp", rand::random::<u64>()));
    // Exclusive, and with its final mode from the first byte on: nobody else ever has the key open.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    let moved = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if moved.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    moved?;
    File::open(dir)?.sync_all()
}

/// Makes the directory if it is not there.
pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(|e| failed("cannot make directory", dir, &e))
}

pub(super) fn failed(what: &'static str, path: &Path, why: &impl ToString) -> PkiError {
    PkiError::File {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}
