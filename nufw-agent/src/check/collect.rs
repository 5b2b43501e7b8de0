//! Looks at the host for [`super::judge`].
//!
//! Reads files and runs the listing commands of iptables and nft; changes nothing. What cannot be seen stays unsaid.

use super::ruleset::{RuleFacts, scan_iptables, scan_nft};
use super::{AgentConfigView, HostFacts, Listings, TlsContent, TlsFile};
use crate::queue;
use caps::CapSet;
use nufw_common::privileges::{self, Capability};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::str::FromStr;

/// Looks at everything that [`super::judge`] wants to know.
pub fn collect(view: &AgentConfigView) -> HostFacts {
    let conntrack = |name: &str| sysctl(&format!("net/netfilter/nf_conntrack_{name}"));
    let listings = Listings::list();
    let (rules_v4, rules_v6) = listings.rules();
    HostFacts {
        net_admin: privileges::has(Capability::CAP_NET_ADMIN),
        queue_holder: queue::holder(view.queue),
        acct: conntrack("acct"),
        timestamp: conntrack("timestamp"),
        events: conntrack("events"),
        tcp_loose: conntrack("tcp_loose"),
        force_buffer: can_force_buffer(),
        rmem_max: sysctl("net/core/rmem_max"),
        rules_v4,
        rules_v6,
        helpers: helpers(
            &fs::read_to_string("/proc/modules").unwrap_or_default(),
            &listings,
        ),
        listings,
        listeners: queue::other_event_listeners(),
        files: view.files.iter().map(file_problem).collect(),
    }
}

/// Conntrack's helpers that are loaded as modules, or that a rule gives to connections.
fn helpers(modules: &str, listings: &Listings) -> Vec<String> {
    const NAMES: [&str; 8] = ["ftp", "sip", "irc", "h323", "tftp", "pptp", "amanda", "sane"];
    let tables = [&listings.v4, &listings.v6].into_iter().flatten();
    let by_rule = |name: &str| {
        tables
            .clone()
            .flat_map(|text| text.lines())
            .any(|line| line.contains(&format!("-j CT --helper {name}")))
            || listings.nft.as_ref().is_some_and(|text| {
                text.lines().any(|line| {
                    line.trim_start()
                        .starts_with(&format!("type \"{name}\" protocol"))
                })
            })
    };
    let loaded = |name: &str| {
        modules
            .lines()
            .any(|line| line.starts_with(&format!("nf_conntrack_{name} ")))
    };
    NAMES
        .into_iter()
        .filter(|name| loaded(name) || by_rule(name))
        .map(str::to_owned)
        .collect()
}

fn sysctl<T: FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(format!("/proc/sys/{path}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn can_force_buffer() -> bool {
    // The least that any socket has anyway.
    const SMALL: usize = 4096;
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .is_ok_and(|socket| sockopt::set_socket_recv_buffer_size_force(&socket, SMALL).is_ok())
}

/// Whether iptables keeps its tables in nftables, and understands what it finds in them.
pub(super) fn is_over_nft(saved: &str) -> bool {
    saved.contains("(nf_tables)") && !saved.contains("incompatible")
}

impl Listings {
    /// Runs the listing commands, which need `CAP_NET_ADMIN`.
    pub fn list() -> Self {
        Self {
            v4: listing("iptables-save", &[]),
            v6: listing("ip6tables-save", &[]),
            nft: listing("nft", &["list", "ruleset"]),
        }
    }

    /// The rules for IPv4 and for IPv6, as far as they can be seen.
    pub fn rules(&self) -> (Option<RuleFacts>, Option<RuleFacts>) {
        let of = |tables: &Option<String>, family| rules_of(self.nft.as_deref(), tables.as_deref(), family);
        (of(&self.v4, "ip"), of(&self.v6, "ip6"))
    }
}

/// Lends the capability, which a process that is not root would not hand on, to the commands that this thread starts; the
/// thread should end afterwards. If it fails, the rules cannot be seen.
pub fn lend_net_admin() {
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        if let Err(error) = caps::raise(None, set, Capability::CAP_NET_ADMIN) {
            tracing::debug!(%error, "the commands that list and load rules get no capability");
        }
    }
}

fn rules_of(nft: Option<&str>, tables: Option<&str>, family: &str) -> Option<RuleFacts> {
    let native = nft.map(|text| {
        let mut facts = scan_nft(text, &["inet", family]);
        // The tables are the same ones, unless iptables says that it does not understand them.
        if tables.is_some_and(is_over_nft) {
            facts.forget_iptables_chains();
        }
        facts
    });
    match (native, tables.map(scan_iptables)) {
        (Some(native), Some(tables)) => Some(native.and(tables)),
        (one, other) => one.or(other),
    }
}

/// What a command prints, if it is there and succeeds.
fn listing(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn file_problem(file: &TlsFile) -> Option<String> {
    let bytes = match fs::read(&file.path) {
        Ok(bytes) => bytes,
        Err(error) => return Some(error.to_string()),
    };
    let problem = match file.content {
        TlsContent::Certificates => match CertificateDer::pem_slice_iter(&bytes).next() {
            Some(Ok(_)) => None,
            _ => Some("holds no PEM certificate"),
        },
        TlsContent::RevocationList => match CertificateRevocationListDer::pem_slice_iter(&bytes).next() {
            Some(Ok(_)) => None,
            _ => Some("holds no PEM revocation list"),
        },
        TlsContent::Key => match PrivateKeyDer::from_pem_slice(&bytes) {
            Err(_) => Some("holds no PEM private key"),
            Ok(_) if readable_by_all(file) => Some("anybody can read it: chmod o-rwx"),
            Ok(_) => None,
        },
    };
    problem.map(str::to_owned)
}

fn readable_by_all(file: &TlsFile) -> bool {
    fs::metadata(&file.path).is_ok_and(|meta| meta.permissions().mode() & 0o007 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_found_among_modules_and_rules() {
        let none = Listings::default();
        let modules = "nf_nat_ftp 16384 0 - Live 0x0\nnf_conntrack_ftp 24576 1 nf_nat_ftp, Live 0x0\n";
        assert_eq!(helpers(modules, &none), ["ftp"]);
        let rules = Listings {
            v4: Some("*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp\nCOMMIT\n".to_owned()),
            nft: Some("table ip x {\n\tct helper s {\n\t\ttype \"sip\" protocol udp\n\t}\n}\n".to_owned()),
            ..Listings::default()
        };
        assert_eq!(helpers("", &rules), ["ftp", "sip"]);
        assert!(helpers("nf_conntrack 200704 1 - Live 0x0\n", &none).is_empty());
    }
}
