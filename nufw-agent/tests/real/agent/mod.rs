//! The agent as a process against a peer that speaks the protocol: real queue, real conntrack, real TLS.

mod events;
mod hostile;
mod keeper;
mod killed;
mod life;
mod observed;
mod packets;
mod rejected;

use crate::support::netns::Lab;
use crate::support::peer::{Peer, Session};
use crate::support::process::Agent;
use nufw_agent::rules::{Format, RulesOptions, render};
use std::time::Duration;

pub(super) const SOON: Duration = Duration::from_secs(5);
pub(super) const SERVER: &str = "10.2.0.2:80";

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits until both sides have the link: a datagram sent earlier would be dropped, and nobody repeats it.
pub(super) async fn linked(peer: &Peer, agent: &mut Agent) -> Session {
    let text = "linked to the server";
    let before = agent.log().matches(text).count();
    let link = peer.welcome(0).await;
    agent.wait_for_logs(text, before + 1);
    link
}

/// A lab with the rules that the agent itself prints.
pub(super) fn lab() -> Result<Lab, String> {
    let lab = Lab::new()?;
    lab.gateway
        .sh(&render(Format::Iptables, &RulesOptions::default()));
    lab.gateway.sh("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_close=1 net.netfilter.nf_conntrack_tcp_timeout_time_wait=1");
    Ok(lab)
}

/// Connects from the client in a thread of its own.
pub(super) fn connecting(
    lab: &Lab,
    timeout: Duration,
) -> std::thread::JoinHandle<std::io::Result<std::net::TcpStream>> {
    lab.client.run(move || {
        std::thread::spawn(move || std::net::TcpStream::connect_timeout(&SERVER.parse().unwrap(), timeout))
    })
}

/// Packets that the kernel holds for the agent.
pub(super) fn waiting(lab: &Lab) -> u64 {
    let line = lab
        .gateway
        .sh("cat /proc/thread-self/net/netfilter/nfnetlink_queue");
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// Datagrams from the client to many ports of `to`, which are many connections.
pub(super) fn datagrams(lab: &Lab, to: &'static str, ports: std::ops::Range<u16>) {
    lab.client.run(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in ports {
            // A port that answered "unreachable" before makes the next send fail once.
            let _ = socket.send_to(b"x", (to, port));
        }
    });
}
