//! Gives up every capability and the user that are not needed, and shows what a process holds.
//!
//! Linux keeps capabilities per thread: call [`keep_only`] before any other thread starts, the runtime's included.

mod held;
mod peers;
mod user;

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};
pub use held::{Held, HeldError, print};
pub use peers::{group_number, peer_groups};
pub use user::{UserError, become_user};

/// The kernel refused to change or to show the capabilities.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} capabilities: {cause}")]
pub struct PrivilegeError {
    action: &'static str,
    cause: String,
}

impl PrivilegeError {
    fn new(action: &'static str) -> impl FnOnce(caps::errors::CapsError) -> Self {
        move |cause| Self {
            action,
            cause: cause.to_string(),
        }
    }
}

/// Drops everything but `keep` from the calling thread, for good; what it does not have it does not get.
///
/// Where the bounding set may be changed, it is emptied too, so that no program started later can regain anything.
pub fn keep_only(keep: &[Capability]) -> Result<(), PrivilegeError> {
    let wanted: CapsHashSet = keep.iter().copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(PrivilegeError::new("clear the ambient"))?;
    if has(Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)
            .map_err(PrivilegeError::new("read the bounding"))?
            .difference(&wanted)
        {
            caps::drop(None, CapSet::Bounding, *capability)
                .map_err(PrivilegeError::new("drop the bounding"))?;
        }
    }
    let permitted = caps::read(None, CapSet::Permitted).map_err(PrivilegeError::new("read the permitted"))?;
    let kept: CapsHashSet = permitted.intersection(&wanted).copied().collect();
    // Effective must be a subset of permitted at every step.
    caps::set(None, CapSet::Effective, &kept).map_err(PrivilegeError::new("drop the effective"))?;
    caps::clear(None, CapSet::Inheritable).map_err(PrivilegeError::new("clear the inheritable"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(PrivilegeError::new("drop the permitted"))
}

/// Tells whether the calling thread may use `capability` at this moment.
pub fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_capability_is_left() {
        // A thread of its own: capabilities are per thread, and the other tests may need theirs.
        std::thread::spawn(|| {
            let had_admin = has(Capability::CAP_NET_ADMIN);
            keep_only(&[Capability::CAP_NET_ADMIN]).unwrap();
            assert_eq!(has(Capability::CAP_NET_ADMIN), had_admin);
            assert!(!has(Capability::CAP_SYS_ADMIN));
            assert!(!has(Capability::CAP_DAC_OVERRIDE));
            let left = caps::read(None, CapSet::Permitted).unwrap();
            assert!(left.iter().all(|c| *c == Capability::CAP_NET_ADMIN), "{left:?}");
            assert!(caps::read(None, CapSet::Inheritable).unwrap().is_empty());
            keep_only(&[]).unwrap();
            assert!(!has(Capability::CAP_NET_ADMIN));
        })
        .join()
        .unwrap();
    }
}
