//! Access lists of the past, in their normal form: what the versions in rows stand for.
//!
//! Files beside the spool, one a version, so that they are there whatever the database. As many as [`MOST`]; of a further one the
//! oldest is forgotten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Versions that are kept.
pub(crate) const MOST: usize = 1024;

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    /// The one beside a spool.
    pub(crate) fn beside(spool: &Path) -> Self {
        Self(spool.parent().unwrap_or(Path::new("")).join("policies"))
    }

    fn file(&self, version: &str) -> PathBuf {
        self.0.join(format!("{version}.toml"))
    }

    /// Keeps a version, and makes it the youngest.
    pub(crate) fn keep(&self, version: &str, normal: &str) -> io::Result<()> {
        // The confined server makes no directory: it did at its start.
        if !self.0.is_dir() {
            fs::create_dir_all(&self.0)?;
        }
        let whole = self.0.join("new");
        fs::write(&whole, normal)?;
        fs::rename(&whole, self.file(version))?;
        self.forget_oldest()
    }

    /// A version, if it is kept. The text may come from a row, so it is looked at before it is part of a path.
    pub(crate) fn find(&self, version: &str) -> io::Result<Option<String>> {
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        match fs::read_to_string(self.file(version)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(MOST);
        files
            .iter()
            .take(surplus)
            .try_for_each(|(_, file)| fs::remove_file(file))
    }
}

/// The rule of that name in a normal form.
pub(crate) fn rule_in<'a>(normal: &'a str, name: &str) -> Option<&'a str> {
    let line = format!("name = {}", serde_json::Value::from(name));
    normal
        .split("\n\n")
        .map(str::trim_end)
        .find(|section| section.starts_with("[[rule]]") && section.lines().any(|other| other == line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_again_and_the_oldest_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::beside(&dir.path().join("spool.db"));
        for number in 0..MOST {
            fs::create_dir_all(dir.path().join("policies")).unwrap();
            let file = dir.path().join(format!("policies/{number:012x}.toml"));
            fs::write(&file, "").unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64 + 1);
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        kept.keep("ffffffffffff", "order = \"first-match\"\n").unwrap();
        assert_eq!(kept.find("000000000000").unwrap(), None);
        assert!(kept.find("000000000001").unwrap().is_some());
        assert_eq!(
            kept.find("ffffffffffff").unwrap().as_deref(),
            Some("order = \"first-match\"\n")
        );
        assert_eq!(kept.find("../spool").unwrap(), None, "a row may say anything");
    }

    #[test]
    fn a_rule_is_found_by_its_name_alone() {
        let normal = "order = \"first-match\"\n\n[[set]]\nname = \"b\"\n\n[[rule]]\nname = \"a\"\nlog-prefix = \"b\"\n\n\
                      [[rule]]\nname = \"b\"\ndecision = \"drop\"\n";
        assert_eq!(
            rule_in(normal, "b"),
            Some("[[rule]]\nname = \"b\"\ndecision = \"drop\"")
        );
        assert_eq!(rule_in(normal, "c"), None);
    }
}
