//! When the connection table is full the kernel makes room by removing connections that were never answered: their rows are
//! closed as `evicted`, what finds no room has no row that stays, and rows and table agree at the end.

use anyhow::{Context, Result};
use lab::{Lab, Options, UdpService, addr, checked, udp_probe, wait_for, with_lab};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that may be removed. The kernel looks at eight places of its table for one.
const FLOWS: usize = 2000;
/// Packets that need room.
const FURTHER: usize = 600;

#[test]
fn claim() {
    with_lab(Options::default().agent("conntrack.marked-only", true), |lab| {
        lab.net
            .gateway
            .sysctl("net.netfilter.nf_conntrack_udp_timeout", 600)?;
        let most: usize = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?
            .trim()
            .parse()?;
        if most > 600_000 {
            // The limit is the machine's and cannot be set here; filling more than this takes too long.
            return Ok(());
        }
        let _silent = UdpService::silent(&lab.net.server, 5001)?;
        let mut sockets = probes(lab, FLOWS)?;
        let open = "select count(*) from conntrack_ulog where state = 1";
        wait_for("the rows", Duration::from_mins(2), || {
            Ok(lab.count(open)? >= i64::try_from(FLOWS)? - 20)
        })?;

        fill(lab, most)?;
        sockets.extend(probes(lab, FURTHER)?);
        let evicted = "select count(*) from conntrack_ulog where close_reason = 'evicted'";
        wait_for("a row that is closed as evicted", Duration::from_mins(2), || {
            Ok(lab.count(evicted)? > 0)
        })?;
        let counted = format!("{evicted} and packets_in >= 1 and end_timestamp is not null");
        wait_for("rows and table to agree", Duration::from_mins(2), || {
            let entries = checked(
                lab.net
                    .gateway
                    .command("conntrack")
                    .args(["-L", "-p", "udp", "--dport", "5001"]),
            )?;
            let entries = entries.lines().filter(|line| line.contains("dport=5001")).count();
            Ok(lab.count(open)? == i64::try_from(entries)?)
        })?;
        assert_eq!(lab.count(&counted)?, lab.count(evicted)?);
        let others = "select count(*) from conntrack_ulog where state = 3 and close_reason not in ('evicted', 'never-confirmed')";
        assert_eq!(lab.count(others)?, 0);
        drop(sockets);
        Ok(())
    });
}

fn probes(lab: &Lab, count: usize) -> Result<Vec<std::net::UdpSocket>> {
    let target = SocketAddr::new(addr::SERVER4, 5001);
    (0..count)
        .map(|_| Ok(udp_probe(&lab.net.client, addr::CLIENT4, target, 1, Duration::ZERO)?.0))
        .collect()
}

/// Fills the table with connections that the kernel keeps.
fn fill(lab: &Lab, most: usize) -> Result<()> {
    let mut lines = String::new();
    for n in 0..most + 1000 {
        let (host, port) = (n / 60_000, 1024 + n % 60_000);
        writeln!(
            lines,
            "-A -s 10.99.0.{host} -d 10.98.0.1 -p tcp --sport {port} --dport 80 --state ESTABLISHED \
             -u ASSURED,SEEN_REPLY -t 600"
        )?;
    }
    let file = lab.dir().join("entries");
    std::fs::write(&file, lines)?;
    let output = lab
        .net
        .gateway
        .command("conntrack")
        .arg("-R")
        .arg(&file)
        .output()
        .context("conntrack")?;
    anyhow::ensure!(!output.status.success(), "the table was not full at the end");
    Ok(())
}
