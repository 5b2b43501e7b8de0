//! Whether files have changed since they were read.
//!
//! Looks at inode, size and times, and where a file is so young that two edits could look alike, at what is in it. A change
//! counts when a second look finds it as it was: nobody should act on half a file.

use nufw_common::clock;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often files are looked at.
pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// A file that was changed so lately, in seconds, may change again without looking other: clocks of file systems tick slowly.
const YOUNG: i64 = 3;
/// What is read of a file; changes behind it are seen by its size and times alone.
const MOST_READ: u64 = 64 << 20;

/// How a file looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    size: u64,
    changed: (i64, i64, i64, i64),
}

/// What is in it.
type Content = Option<[u8; 32]>;

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    look: Option<Look>,
    /// What was acted on last.
    acted_on: Content,
    /// What the last look found.
    content: Content,
}

/// Files that are watched.
#[derive(Debug, Default)]
pub(crate) struct Watch(Vec<Watched>);

fn look(path: &Path) -> Option<(Look, bool)> {
    let meta = std::fs::metadata(path).ok()?;
    let look = Look {
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()),
    };
    // One from the future may be as young as can be.
    let settled =
        clock::wall().micros().div_euclid(1_000_000) > meta.mtime().max(meta.ctime()).saturating_add(YOUNG);
    Some((look, settled))
}

fn content(path: &Path) -> Content {
    let mut hash = Sha256::new();
    let mut file = File::open(path).ok()?.take(MOST_READ);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(hash.finalize().into()),
            Ok(read) => hash.update(&buffer[..read]),
            Err(_) => return None,
        }
    }
}

impl Watch {
    /// Watches these files; what they hold at this moment is not a change. Ask before they are read, so that what changes
    /// meanwhile is found.
    pub(crate) fn on(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let watched = |path: PathBuf| {
            let content = content(&path);
            Watched {
                look: None,
                acted_on: content,
                content,
                path,
            }
        };
        Self(paths.into_iter().map(watched).collect())
    }

    /// Further files, as they are at this moment.
    pub(crate) fn add(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            if !self.0.iter().any(|watched| watched.path == path) {
                self.0.extend(Self::on([path]).0);
            }
        }
    }

    /// Whether one of them is other than when it was last acted on, and the same as at the last look. From then on it counts as
    /// acted on.
    pub(crate) fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for watched in &mut self.0 {
            let before = watched.content;
            match look(&watched.path) {
                Some((look, old)) if old && watched.look == Some(look) => {}
                Some((look, _)) => {
                    // First how it looks, so that what changes between the two is seen the next time.
                    watched.look = Some(look);
                    watched.content = content(&watched.path);
                }
                // Between two renames it may not be there.
                None => watched.look = None,
            }
            if watched.content != watched.acted_on && watched.content == before {
                watched.acted_on = watched.content;
                changed = true;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_counts_when_it_has_settled_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = Watch::on([path.clone()]);
        assert!(!watch.has_changed() && !watch.has_changed());
        fs::write(&path, "b").unwrap();
        assert!(!watch.has_changed(), "it may be half of what is to come");
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
        // Two edits of one instant and one size: in place, and by a rename.
        fs::write(&path, "c").unwrap();
        fs::write(&path, "d").unwrap();
        assert!(!watch.has_changed());
        fs::write(dir.path().join("new"), "e").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert!(!watch.has_changed(), "it is another one again");
        assert!(watch.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed() && !watch.has_changed());
        fs::write(&path, "e").unwrap();
        assert!(
            !watch.has_changed() && !watch.has_changed(),
            "what was acted on is back"
        );
        fs::write(&path, "f").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
    }

    #[test]
    fn an_edit_of_the_same_moment_and_size_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set");
        let mut watch = Watch::default();
        fs::write(&path, "1").unwrap();
        watch.add([path.clone(), path.clone()]);
        assert_eq!(watch.0.len(), 1);
        for text in ["2", "3", "4"] {
            fs::write(&path, text).unwrap();
            watch.has_changed();
            assert!(watch.has_changed(), "{text}");
        }
    }
}
