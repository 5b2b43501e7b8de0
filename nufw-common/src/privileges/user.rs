//! Becoming the daemon's own user, for one that was started as root.
//!
//! Capabilities that are kept survive the change; everything else that root had is gone for good.

use super::{PrivilegeError, keep_only};
use crate::exit::{Exit, Failure};
use caps::{CapSet, Capability};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::io;

/// Why the daemon is not its own user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none of that name.
    #[error(
        "there is no user {0} (privileges.user): make it with systemd-sysusers or `useradd --system {0}`, or name another"
    )]
    Unknown(String),
    /// Only root becomes another user.
    #[error(
        "only root can become {0} (privileges.user), and this is user {1}: start as root, or leave the key out"
    )]
    NotRoot(String, u32),
    /// The kernel refused.
    #[error("cannot become the user {0}: {1}")]
    Refused(String, #[source] io::Error),
    /// Capabilities could not be kept or given up.
    #[error(transparent)]
    Capabilities(#[from] PrivilegeError),
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        let exit = match &error {
            UserError::Unknown(_) => Exit::Config,
            UserError::NotRoot(..) => Exit::NoPerm,
            UserError::Refused(..) | UserError::Capabilities(_) => Exit::OsErr,
        };
        Self::new(exit, error)
    }
}

/// Becomes the user `name` with its groups, keeping `keep` of the capabilities; returns whether anything was changed.
///
/// Nothing happens when the process is that user already. Call it before any other thread starts.
pub fn become_user(name: &str, keep: &[Capability]) -> Result<bool, UserError> {
    let user = uzers::get_user_by_name(name).ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    let now = geteuid();
    if now.as_raw() == user.uid() {
        return Ok(false);
    }
    if !now.is_root() {
        return Err(UserError::NotRoot(name.to_owned(), now.as_raw()));
    }
    let groups: Vec<Gid> = user
        .groups()
        .iter()
        .flatten()
        .map(|group| Gid::from_raw(group.gid()))
        .collect();
    let refused = |error: rustix::io::Errno| UserError::Refused(name.to_owned(), error.into());
    // Everything but what the change itself needs, so that the bounding set is emptied while that is allowed.
    let mut for_now = keep.to_vec();
    for_now.extend([
        Capability::CAP_SETUID,
        Capability::CAP_SETGID,
        Capability::CAP_SETPCAP,
    ]);
    keep_only(&for_now)?;
    caps::securebits::set_keepcaps(true).map_err(PrivilegeError::new("keep"))?;
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.primary_group_id()));
    set_thread_groups(&groups).map_err(refused)?;
    set_thread_res_gid(gid, gid, gid).map_err(refused)?;
    set_thread_res_uid(uid, uid, uid).map_err(refused)?;
    // Leaving root empties the effective set alone; the rest is given up in order.
    let permitted = caps::read(None, CapSet::Permitted).map_err(PrivilegeError::new("read the permitted"))?;
    caps::set(None, CapSet::Effective, &permitted).map_err(PrivilegeError::new("raise the effective"))?;
    keep_only(keep)?;
    Ok(true)
}
