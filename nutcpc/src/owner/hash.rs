//! SHA-256 of program files, for access lists that ask for it.
//!
//! Each file is read once and again when it has changed; what is too large is not read. The server takes the hash for a claim.

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Larger files have no hash: reading one must not hold up answers for long.
const LARGEST: u64 = 64 << 20;
/// Files whose hashes are remembered; at the bound all are forgotten.
const REMEMBERED: usize = 512;

/// By what a file is known to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl From<&Metadata> for Look {
    fn from(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// Hashes of files.
#[derive(Debug, Default)]
pub(super) struct Hashes(HashMap<PathBuf, (Look, [u8; 32])>);

impl Hashes {
    /// The hash of a file, if it is one, can be read, and is not too large.
    pub(super) fn of(&mut self, path: &Path) -> Option<[u8; 32]> {
        // A pipe in its place would never be opened otherwise.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .ok()?;
        let meta = file.metadata().ok()?;
        let look = Look::from(&meta);
        if let Some((_, hash)) = self.0.get(path).filter(|(known, _)| *known == look) {
            return Some(*hash);
        }
        if !meta.is_file() || meta.len() > LARGEST {
            return None;
        }
        let hash = read(file)?;
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(path.to_owned(), (look, hash));
        Some(hash)
    }
}

fn read(file: File) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    // It may grow meanwhile.
    let mut file = file.take(LARGEST);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_program_is_hashed_anew_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "abc").unwrap();
        let mut hashes = Hashes::default();
        let first = hashes.of(&path).unwrap();
        // FIPS 180-4's example.
        assert_eq!(first[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(hashes.of(&path), Some(first));
        fs::write(dir.path().join("new"), "abd").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(hashes.of(&path), Some(first));
        assert_eq!(hashes.0.len(), 1);
    }

    #[test]
    fn what_is_no_file_or_too_large_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut hashes = Hashes::default();
        assert_eq!(hashes.of(dir.path()), None);
        assert_eq!(hashes.of(&dir.path().join("none")), None);
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        assert_eq!(hashes.of(&large), None);
    }
}
