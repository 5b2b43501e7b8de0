//! On a gateway that is a bridge the row says which of its ports the first packet came in by and would leave by, for IPv4 and
//! IPv6; what is for the gateway itself has no way out.

use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, checked, show, with_lab};
use std::net::IpAddr;
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::prepared(), |lab| {
        if !bridged_packets_pass_the_rules(lab)? {
            show(
                "SKIPPED bridge_ports_are_in_the_row: this kernel has no br_netfilter (modprobe br_netfilter)",
            );
            return Ok(());
        }
        // The server host is in the client's network, on the other port.
        let (v4, v6): (IpAddr, IpAddr) = ("10.81.0.9".parse()?, "fd81::9".parse()?);
        for line in [
            "link add bridge type bridge",
            "link set lan master bridge",
            "link set wan master bridge",
            "addr flush dev lan",
            "addr flush dev wan",
            "addr add 10.81.0.1/24 dev bridge",
            "addr add fd81::1/64 dev bridge nodad",
            "link set bridge up",
        ] {
            checked(lab.net.gateway.command("ip").args(line.split(' ')))?;
        }
        for line in [
            format!("addr add {v4}/24 dev eth0"),
            format!("addr add {v6}/64 dev eth0 nodad"),
        ] {
            checked(lab.net.server.command("ip").args(line.split(' ')))?;
        }
        lab.start_all()?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for to in [v4, v6] {
            let mut tried = Attempt::to(to, 80).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected, "{to}");
            tried.talk("hello")?;
            let row = lab.wait_row(&format!("ip_daddr = '{to}'"), State::Established)?;
            assert_eq!(
                (row.text("oob_in"), row.text("oob_out")),
                (Some("bridge"), Some("bridge"))
            );
            assert_eq!(
                (row.text("phys_in"), row.text("phys_out")),
                (Some("lan"), Some("wan"))
            );
            drop(tried);
            let row = lab.wait_row(&format!("ip_daddr = '{to}'"), State::Close)?;
            assert!(row.ended_in_order(), "{row:?}");
        }
        // What is refused has them, too; what is for the gateway itself leaves by no port.
        lab.apply_input_rules()?;
        let _own = TcpService::echo(&lab.net.gateway, 8080)?;
        assert_eq!(
            Attempt::to(addr::GATEWAY4, 8080).run(&lab.net.client)?.outcome,
            Outcome::Connected
        );
        let row = lab.wait_row("tcp_dport = 8080", State::Close)?;
        assert_eq!(
            (row.text("phys_in"), row.is_null("phys_out")),
            (Some("lan"), true)
        );
        Attempt::to(v4, 22)
            .within(Duration::from_secs(1))
            .run(&lab.net.client)?;
        let row = lab.wait_row("tcp_dport = 22", State::Drop)?;
        assert_eq!(
            (row.text("phys_in"), row.text("phys_out")),
            (Some("lan"), Some("wan"))
        );
        Ok(())
    });
}

/// Lets the gateway's rules see what its bridges carry; `false` where the kernel cannot.
fn bridged_packets_pass_the_rules(lab: &Lab) -> Result<bool> {
    let _ = std::process::Command::new("modprobe")
        .args(["-q", "br_netfilter"])
        .status();
    if !lab
        .net
        .gateway
        .enter(|| std::path::Path::new("/proc/sys/net/bridge").exists())?
    {
        return Ok(false);
    }
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        lab.net.gateway.sysctl(&format!("net.bridge.{name}"), 1)?;
    }
    Ok(true)
}
