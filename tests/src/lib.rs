//! The lab: a client, a gateway and a server host in network namespaces, with the real daemons on them.
//!
//! The end-to-end tests, the demonstration and the measurements stand on it. It never touches the network of the
//! machine it runs on: namespaces have no names, are held by descriptors, and vanish with the process.

mod accept_all;
mod bench;
mod cleanup;
mod command;
mod crowd;
mod daemons;
mod demo;
mod flood;
mod kdc;
mod load;
mod net;
mod netns;
mod options;
mod package;
mod process;
mod rows;
mod shape;
mod slapd;
mod sockets;
mod staging;
mod test;
mod traffic;
mod wait;
mod watching;

pub use accept_all::accept_all;
pub use bench::{BenchOptions, bench, bench_client, bench_gateway, bench_log, bench_policy};
pub use command::{binary, checked, fed, in_path, missing_tools};
pub use crowd::{CrowdOptions, CrowdReport, crowd};
pub use daemons::Lab;
pub use demo::{DemoOptions, demo};
pub use flood::{FloodOptions, FloodReport, flood};
pub use kdc::Kdc;
pub use load::{Closing, LoadOptions, LoadReport, Pace, load};
pub use net::{Net, addr};
pub use netns::NetNs;
pub use options::{Options, User};
pub use package::packages;
pub use process::{Proc, Spec};
pub use rows::{Row, State};
pub use rustix::process::Signal;
pub use shape::{become_root, can_make_namespaces};
pub use slapd::{Slapd, alice_has_scram_keys, asking_slapd, dora};
pub use sockets::sockets;
pub use staging::{DatabaseLock, Trace, make_private};
pub use test::{lab_possible, missing_strace, show, two_users_possible, with_lab};
pub use traffic::{Attempt, Outcome, TcpService, Tried, UdpService, sink, udp_probe};
pub use wait::{now, wait_for, wait_some};
pub use watching::{http_get, scrape};
