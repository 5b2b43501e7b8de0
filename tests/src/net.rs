//! The three hosts: client — gateway — server, joined by veth pairs, IPv4 and IPv6.
//!
//! Addresses, routes and sysctls; no firewall rule and no daemon.

use crate::command::{checked, fed};
use crate::netns::NetNs;
use anyhow::{Result, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of the lab.
pub mod addr {
    use super::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// The client's first address.
    pub const CLIENT4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 0, 2));
    /// The client's IPv6 address.
    pub const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd81, 0, 0, 0, 0, 0, 0, 2));
    /// The gateway, as the client sees it.
    pub const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 0, 1));
    /// The gateway, as the client sees it.
    pub const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd81, 0, 0, 0, 0, 0, 0, 1));
    /// The gateway, as the server host sees it.
    pub const GATEWAY_OUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 82, 0, 1));
    /// The gateway, as the server host sees it.
    pub const GATEWAY_OUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd82, 0, 0, 0, 0, 0, 0, 1));
    /// The server host.
    pub const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 82, 0, 2));
    /// The server host.
    pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd82, 0, 0, 0, 0, 0, 0, 2));

    /// Further IPv4 address of the client, from 0.
    pub fn client4(index: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 81, 0, 10 + index))
    }
}

/// Conntrack timeouts that let a connection's end be seen soon, seconds. Those of live connections are the kernel's.
const SHORT_TIMEOUTS: [(&str, u32); 8] = [
    ("nf_conntrack_tcp_timeout_close", 1),
    ("nf_conntrack_tcp_timeout_time_wait", 1),
    ("nf_conntrack_tcp_timeout_fin_wait", 2),
    ("nf_conntrack_tcp_timeout_close_wait", 2),
    ("nf_conntrack_tcp_timeout_last_ack", 2),
    ("nf_conntrack_udp_timeout", 2),
    ("nf_conntrack_icmp_timeout", 2),
    ("nf_conntrack_icmpv6_timeout", 2),
];

/// The hosts.
#[derive(Debug, Clone)]
pub struct Net {
    /// Where users work.
    pub client: NetNs,
    /// Between the two.
    pub gateway: NetNs,
    /// Where services are.
    pub server: NetNs,
}

impl Net {
    /// Makes the hosts; the client gets `extra` further IPv4 addresses.
    pub fn new(extra: u8) -> Result<Self> {
        let net = Self {
            client: NetNs::new()?,
            gateway: NetNs::new()?,
            server: NetNs::new()?,
        };
        for host in [&net.client, &net.gateway, &net.server] {
            host.sysctl("net.ipv6.conf.all.accept_dad", 0)?;
            host.sysctl("net.ipv6.conf.default.accept_dad", 0)?;
        }
        net.join(&net.client, "lan")?;
        net.join(&net.server, "wan")?;
        net.gateway.sysctl("net.ipv4.ip_forward", 1)?;
        net.gateway.sysctl("net.ipv6.conf.all.forwarding", 1)?;
        for name in [
            "nf_conntrack_acct",
            "nf_conntrack_timestamp",
            "nf_conntrack_events",
        ] {
            net.gateway.sysctl(&format!("net.netfilter.{name}"), 1)?;
        }
        for (name, seconds) in SHORT_TIMEOUTS {
            net.gateway.sysctl(&format!("net.netfilter.{name}"), seconds)?;
        }
        let mut hosts = vec![
            (&net.client, "eth0", addr::CLIENT4, addr::CLIENT6),
            (&net.gateway, "lan", addr::GATEWAY4, addr::GATEWAY6),
            (&net.gateway, "wan", addr::GATEWAY_OUTER4, addr::GATEWAY_OUTER6),
            (&net.server, "eth0", addr::SERVER4, addr::SERVER6),
        ];
        for (host, device, v4, v6) in hosts.drain(..) {
            ip(
                host,
                &format!(
                    "link set {device} up\naddr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad\n"
                ),
            )?;
        }
        net.add_client_addresses(extra)?;
        for (host, v4, v6) in [
            (&net.client, addr::GATEWAY4, addr::GATEWAY6),
            (&net.server, addr::GATEWAY_OUTER4, addr::GATEWAY_OUTER6),
        ] {
            ip(
                host,
                &format!("route add default via {v4}\nroute add ::/0 via {v6}\n"),
            )?;
        }
        Ok(net)
    }

    fn join(&self, host: &NetNs, device: &str) -> Result<()> {
        checked(
            self.gateway
                .command("ip")
                .args([
                    "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns",
                ])
                .arg(host.path()),
        )
        .map(drop)
    }

    fn add_client_addresses(&self, extra: u8) -> Result<()> {
        if extra > 200 {
            bail!("the client can have at most 200 further addresses, not {extra}");
        }
        let lines: Vec<_> = (0..extra)
            .map(|index| format!("addr add {}/24 dev eth0\n", addr::client4(index)))
            .collect();
        ip(&self.client, &lines.concat())
    }

    /// Gives the client one more address, [`addr::client4`].
    pub fn add_client_address(&self, index: u8) -> Result<()> {
        ip(
            &self.client,
            &format!("addr add {}/24 dev eth0\n", addr::client4(index)),
        )
    }

    /// Runs `iptables` on the gateway with the words of `rule`.
    pub fn iptables(&self, rule: &str) -> Result<()> {
        checked(
            self.gateway
                .command("iptables")
                .arg("-w")
                .args(rule.split_whitespace()),
        )
        .map(drop)
    }

    /// Runs `ip6tables` on the gateway with the words of `rule`.
    pub fn ip6tables(&self, rule: &str) -> Result<()> {
        checked(
            self.gateway
                .command("ip6tables")
                .arg("-w")
                .args(rule.split_whitespace()),
        )
        .map(drop)
    }

    /// Lists the gateway's conntrack table, one entry a line. Reading it makes the kernel end entries that have expired.
    pub fn conntrack(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let text = checked(self.gateway.command("conntrack").args(["-L", "-f", family]))?;
            lines.extend(text.lines().map(str::to_owned));
        }
        Ok(lines)
    }

    /// Empties the gateway: rules and conntrack entries.
    pub fn reset(&self) -> Result<()> {
        for tool in ["iptables", "ip6tables"] {
            for table in ["raw", "mangle", "nat", "filter"] {
                checked(self.gateway.command(tool).args(["-w", "-t", table, "-F"]))?;
                checked(self.gateway.command(tool).args(["-w", "-t", table, "-X"]))?;
            }
        }
        checked(self.gateway.command("conntrack").arg("-F")).map(drop)
    }
}

/// Runs lines of `ip -batch` on a host.
fn ip(host: &NetNs, lines: &str) -> Result<()> {
    fed(host.command("ip").args(["-batch", "-"]), lines).map(drop)
}
