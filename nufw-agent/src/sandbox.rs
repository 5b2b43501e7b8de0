//! What the agent may do, as profiles: one for a process that does it all, and two for a supervisor and its worker.
//!
//! Says what is needed; the kernel's part is in `nufw_common::sandbox`. A worker that is started under a supervisor's
//! profile can do no more than both allow, so the supervisor's contains the worker's.

use crate::config::Config;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::listen::Place;
use nufw_common::privileges::{self, Capability};
use nufw_common::sandbox::{Family, Profile};
use std::net::IpAddr;

/// The commands that list the firewall's rules.
const LISTING: [&str; 3] = ["iptables-save", "ip6tables-save", "nft"];
/// The commands that load them again, beside `nft`, where that is configured (`rules.reapply`).
const LOADING: [&str; 2] = ["iptables-restore", "ip6tables-restore"];

/// Gives up everything but `CAP_NET_ADMIN`, and becomes the configured user.
pub fn own_user(config: &Config) -> Result<(), Failure> {
    let keep = [Capability::CAP_NET_ADMIN];
    match &config.privileges.user {
        Some(user) => privileges::become_user(user, &keep)
            .map_err(Failure::from)
            .and_then(|_| privileges::keep_only(&keep).or_exit(Exit::OsErr)),
        None => privileges::keep_only(&keep).or_exit(Exit::OsErr),
    }
}

/// What parses packets and speaks TLS, once its sockets are open: reads certificates and the kernel's counters, connects to
/// the server, asks for names. No capability, no netlink, no program, no file that it could write or remove.
pub fn agent_worker(config: &Config) -> Profile {
    watching(base("nufw-agent worker", config)).shares_sockets()
}

/// What holds the sockets and starts workers: `CAP_NET_ADMIN`, netlink, the listing commands and this very program, also
/// after an upgrade has replaced it.
pub fn agent_supervisor(config: &Config) -> Profile {
    let profile = holding(base("nufw-agent supervisor", config), config)
        // Each worker has its own directory there.
        .read("/proc")
        .confines_children();
    match std::env::current_exe()
        .ok()
        .as_deref()
        .and_then(|program| program.parent())
    {
        Some(directory) => profile.execute_beneath(directory),
        None => profile,
    }
}

/// One process that does both.
pub fn agent_alone(config: &Config) -> Profile {
    watching(holding(base("nufw-agent", config), config))
}

/// Of each thread: one tells what is watched.
fn watching(profile: Profile) -> Profile {
    profile.read("/proc/self/net").read("/proc/self/task")
}

/// What goes with the sockets: the capability, rules and how to list them, the service manager, and the names in the file
/// system by which the agent is asked, which are removed at the end.
fn holding(profile: Profile, config: &Config) -> Profile {
    let places = config.places();
    let sockets = [places.status, places.metrics.and_then(Place::socket)];
    let profile = sockets
        .iter()
        .flatten()
        .filter_map(|socket| socket.parent())
        .fold(profile, Profile::sockets);
    let loading = config.rules.reapply.then_some(LOADING);
    LISTING
        .iter()
        .chain(loading.iter().flatten())
        .fold(profile, |profile, program| profile.execute(program))
        // They share a capability with what starts them, and read names of protocols and interfaces.
        .capability(Capability::CAP_NET_ADMIN)
        .family(Family::Netlink)
        .family(Family::Unix)
        .read("/etc")
        .read("/usr/share/iproute2")
        .read("/proc/net")
}

fn base(name: &'static str, config: &Config) -> Profile {
    let tls = &config.tls;
    let files = [&config.file, &tls.ca, &tls.certificate, &tls.key];
    let mut profile = files
        .into_iter()
        .chain(&tls.crl)
        .fold(Profile::new(name), |profile, file| profile.read_replaceable(file))
        .read(config.file.with_extension("d"))
        // How large the table of connections is, and what it counts.
        .read("/proc/sys/net/netfilter")
        .family(Family::Internet);
    for (host, port) in config.server.addresses() {
        profile = profile.connect(port);
        if host.parse::<IpAddr>().is_err() {
            profile = profile.resolver();
        }
    }
    profile
}
