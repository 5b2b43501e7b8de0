//! The ticket that the server gave for the next login: kept in memory, and in a file if one is named.
//!
//! Never sent to another server or for another user than it was given for; a file that others may read is not believed.

use nufw_common::clock;
use nufw_proto::SecretBytes;
use nufw_proto::client::Ticket;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest file that is read.
const MAX_FILE: u64 = 32 * 1024;

/// For whom a ticket is, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    server: String,
    user: Option<String>,
    /// Microseconds since 1970.
    until: i64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    label: Label,
    ticket: String,
}

/// The ticket of one client.
#[derive(Debug)]
pub(crate) struct Tickets {
    server: String,
    user: Option<String>,
    file: Option<PathBuf>,
    current: Option<(SecretBytes, i64)>,
}

impl Tickets {
    /// The ticket of an earlier run is taken from the file, if it is there and still counts.
    pub(crate) fn open(server: String, user: Option<String>, file: Option<PathBuf>) -> Self {
        let mut tickets = Self {
            server,
            user,
            file,
            current: None,
        };
        if let Some(file) = &tickets.file {
            match tickets.read(file) {
                Ok(current) => tickets.current = current,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "the ticket is not used");
                }
            }
        }
        tickets
    }

    fn read(&self, file: &Path) -> io::Result<Option<(SecretBytes, i64)>> {
        let open = std::fs::File::open(file)?;
        let meta = open.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        if meta.permissions().mode() & 0o077 != 0 || meta.uid() != own || meta.len() > MAX_FILE {
            return Err(io::Error::other(
                "it must be a small file that only its owner can read, who is you",
            ));
        }
        let text = Zeroizing::new(io::read_to_string(open)?);
        let Ok(kept) = serde_json::from_str::<Kept>(&text) else {
            return Err(io::Error::other("it is no ticket"));
        };
        let ticket = unhex(&kept.ticket).and_then(|bytes| SecretBytes::new(bytes).ok());
        let fits = kept.label.server == self.server && kept.label.user == self.user;
        Ok(ticket.filter(|_| fits).map(|ticket| (ticket, kept.label.until)))
    }

    /// The ticket, while it counts.
    pub(crate) fn current(&self) -> Option<&SecretBytes> {
        let (ticket, until) = self.current.as_ref()?;
        (clock::wall().micros() < *until).then_some(ticket)
    }

    pub(crate) fn keep(&mut self, ticket: Ticket) {
        let until = clock::wall()
            .micros()
            .saturating_add(i64::from(ticket.lifetime_ms).saturating_mul(1000));
        self.current = Some((ticket.ticket, until));
        if let Some(file) = &self.file
            && let Err(error) = self.write(file)
        {
            tracing::warn!(file = %file.display(), %error, "the ticket is kept in memory alone");
        }
    }

    /// It counts no more, or shall not.
    pub(crate) fn forget(&mut self) {
        self.current = None;
        if let Some(file) = &self.file
            && let Err(error) = std::fs::remove_file(file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "an old ticket cannot be removed");
        }
    }

    /// Whole or not at all; what was there may have been somebody else's.
    fn write(&self, file: &Path) -> io::Result<()> {
        let Some((ticket, until)) = &self.current else {
            return Ok(());
        };
        let kept = Kept {
            label: Label {
                server: self.server.clone(),
                user: self.user.clone(),
                until: *until,
            },
            ticket: hex(ticket.expose()),
        };
        let text = Zeroizing::new(serde_json::to_string(&kept).map_err(io::Error::from)?);
        let mut next = file.as_os_str().to_owned();
        next.push(".next");
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut open = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        open.write_all(text.as_bytes())?;
        std::fs::rename(&next, file)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(file: &Path, server: &str, user: &str) -> Tickets {
        Tickets::open(server.to_owned(), Some(user.to_owned()), Some(file.to_path_buf()))
    }

    fn given(lifetime_ms: u32) -> Ticket {
        let ticket = SecretBytes::new((0..=255).collect()).unwrap();
        Ticket { ticket, lifetime_ms }
    }

    #[test]
    fn a_ticket_outlives_the_program_for_its_server_and_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ticket");
        let mut first = tickets(&file, "fw:4129", "alice");
        assert!(first.current().is_none());
        first.keep(given(60_000));
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = tickets(&file, "fw:4129", "alice");
        assert_eq!(second.current(), Some(&given(0).ticket));
        assert!(tickets(&file, "other:4129", "alice").current().is_none());
        assert!(tickets(&file, "fw:4129", "bob").current().is_none());
        first.forget();
        assert!(first.current().is_none() && !file.exists());
    }

    #[test]
    fn what_others_may_read_or_what_is_over_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ticket");
        let mut first = tickets(&file, "fw:4129", "alice");
        first.keep(given(0));
        assert!(first.current().is_none() && tickets(&file, "fw:4129", "alice").current().is_none());
        first.keep(given(60_000));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(tickets(&file, "fw:4129", "alice").current().is_none());
        for wrong in [
            "",
            "{}",
            "{\"server\":\"fw:4129\",\"user\":\"alice\",\"until\":9e18,\"ticket\":\"zz\"}",
        ] {
            std::fs::write(&file, wrong).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(tickets(&file, "fw:4129", "alice").current().is_none(), "{wrong}");
        }
    }
}
