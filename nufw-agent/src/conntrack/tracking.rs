//! By what this kernel tells connections of a protocol apart.
//!
//! Where a kernel has no tracker for a protocol, all that two hosts say to each other with it is one entry without ports.
//! A packet is asked for as what its entry will be; else an access list would promise what the kernel does not keep.

use std::path::Path;

const SYSCTLS: &str = "/proc/sys/net/netfilter";

/// The protocols whose tracker a kernel may lack, and whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracking {
    /// DCCP, whose tracker Linux 6.16 removed.
    pub dccp: bool,
    /// SCTP (`CONFIG_NF_CT_PROTO_SCTP`).
    pub sctp: bool,
    /// GRE (`CONFIG_NF_CT_PROTO_GRE`).
    pub gre: bool,
}

impl Tracking {
    /// Every tracker.
    pub const ALL: Self = Self {
        dccp: true,
        sctp: true,
        gre: true,
    };

    /// What the running kernel has: each tracker comes with timeouts that can be set. Where these cannot be seen at all,
    /// everything is taken to be there.
    pub fn of_kernel() -> Self {
        Self::in_directory(Path::new(SYSCTLS))
    }

    fn in_directory(sysctls: &Path) -> Self {
        if !sysctls.join("nf_conntrack_generic_timeout").exists() {
            return Self::ALL;
        }
        let has = |timeout: &str| sysctls.join(timeout).exists();
        Self {
            dccp: has("nf_conntrack_dccp_timeout_request"),
            sctp: has("nf_conntrack_sctp_timeout_closed"),
            gre: has("nf_conntrack_gre_timeout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_known_by_its_timeouts() {
        let sysctls = tempfile::tempdir().unwrap();
        assert_eq!(Tracking::in_directory(sysctls.path()), Tracking::ALL);
        for timeout in ["nf_conntrack_generic_timeout", "nf_conntrack_sctp_timeout_closed"] {
            std::fs::write(sysctls.path().join(timeout), "10").unwrap();
        }
        let expected = Tracking {
            dccp: false,
            sctp: true,
            gre: false,
        };
        assert_eq!(Tracking::in_directory(sysctls.path()), expected);
    }
}
