//! Rulesets as the programs that make them write them.

use super::*;

/// mask, reject bit and blind bit.
const RESERVED: u32 = 0x05ff_ffff;

fn of_iptables(text: &str) -> Escapes {
    let mut escapes = Escapes::default();
    escapes.iptables("iptables", text, RESERVED);
    escapes
}

fn of_nft(text: &str) -> Escapes {
    let mut escapes = Escapes::default();
    escapes.nft(text, RESERVED, |_, _| false);
    escapes
}

/// Docker 28 with one bridge, as `iptables-save -t filter` shows it; before it somebody's queue in the same chain.
const DOCKER: &str = r"*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 0
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
COMMIT
";

#[test]
fn dockers_accept_before_the_queue_is_named_with_the_way_to_it() {
    let found = of_iptables(DOCKER).before_the_queue;
    assert_eq!(
        found,
        ["iptables -t filter FORWARD: \"-j DOCKER-FORWARD\" → \"-i docker0 -j ACCEPT\""]
    );
    // With the queue in mangle, as ours is, the same chains let nothing escape it.
    let ours = DOCKER.replace(
        "-A FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 0\n",
        "",
    ) + "*mangle\n-A FORWARD -j NUFW_FORWARD\n-A NUFW_FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 0\nCOMMIT\n";
    assert_eq!(of_iptables(&ours), Escapes::default());
}

#[test]
fn an_accept_before_the_jump_to_our_chain_is_named_and_one_for_what_is_established_is_not() {
    let text = r"*mangle
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -s 192.0.2.9/32 -j ACCEPT
-A FORWARD -j NUFW_FORWARD
-A FORWARD -s 192.0.2.10/32 -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -j NUFW_INPUT
-A NUFW_FORWARD -d 192.0.2.1/32 -p tcp -m tcp --dport 4128 -j RETURN
-A NUFW_FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-balance 0:3 --queue-bypass
-A NUFW_INPUT -m conntrack --ctstate NEW -j NFQUEUE --queue-num 0
COMMIT
";
    assert_eq!(
        of_iptables(text).before_the_queue,
        ["iptables -t mangle FORWARD: \"-s 192.0.2.9/32 -j ACCEPT\""]
    );
}

/// fwmark policy routing without a mask (wg-quick and many how-tos), Kubernetes' kube-proxy and Tailscale with theirs.
#[test]
fn only_users_of_marks_whose_bits_are_ours_are_named() {
    let text = r"*mangle
-A PREROUTING -i eth1 -j MARK --set-xmark 0x2/0xffffffff
-A PREROUTING -p udp -m comment --comment wg-quick -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A POSTROUTING -j CONNMARK --save-mark
-A FORWARD -i tailscale0 -j MARK --set-xmark 0x40000000/0xff000000
-A NUFW_RESTORE -j CONNMARK --restore-mark --nfmask 0xffffff --ctmask 0xffffff
COMMIT
*nat
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A OTHER -j MARK --set-xmark 0x80000000/0x80000000
COMMIT
";
    let found = of_iptables(text).marks;
    let is_named = |part: &str| found.iter().any(|line| line.contains(part));
    for part in [
        "0x2/0xffffffff",
        "wg-quick",
        "POSTROUTING: \"-j CONNMARK --save-mark\"",
        "KUBE-MARK-MASQ",
        "tailscale0",
    ] {
        assert!(is_named(part), "{part} in {found:#?}");
    }
    // 0xff000000 holds the reserved bits 0x01000000 and 0x04000000; 0x80000000 is nobody's here.
    assert_eq!(found.len(), 5, "{found:#?}");
}

/// firewalld, and a hand-written nftables.conf with a flowtable.
const NFT: &str = r#"table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state vmap { established : accept, related : accept }
		reject with icmpx admin-prohibited
	}
}
table inet own {
	flowtable ft {
		hook ingress priority filter
		devices = { eth0, eth1 }
	}
	chain before {
		type filter hook prerouting priority raw; policy accept;
		udp dport 53 notrack
		meta mark set 0x00000001
		meta mark set meta mark | 0x80000000
		meta mark set meta mark & 0xff00ffff | 0x00010000
		ct mark set meta mark
		ct mark set meta mark & 0x000000ff
		ct mark set ct mark | 0x80000000
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		tcp dport 22 accept
		ip protocol { tcp, udp } flow add @ft
		ct state new queue to 0
		tcp dport 23 accept
	}
}
table inet nufw {
	chain save {
		ct mark set meta mark & 0x00ffffff
	}
}
"#;

#[test]
fn nft_rulesets_are_read_alike() {
    let found = of_nft(NFT);
    assert_eq!(
        found.before_the_queue,
        ["nft inet own forward: \"tcp dport 22 accept\""]
    );
    assert_eq!(found.untracked, ["nft inet own before: \"udp dport 53 notrack\""]);
    assert_eq!(
        found.offloaded,
        ["nft inet own forward: \"ip protocol { tcp, udp } flow add @ft\""]
    );
    assert_eq!(
        found.marks,
        [
            "nft inet own before: \"meta mark set 0x00000001\"",
            "nft inet own before: \"meta mark set meta mark & 0xff00ffff | 0x00010000\"",
            "nft inet own before: \"ct mark set meta mark\"",
            "nft inet own before: \"ct mark set meta mark & 0x000000ff\"",
        ]
    );
}

#[test]
fn what_conntrack_does_not_follow_is_named() {
    let text = "*raw\n-A PREROUTING -p udp -m udp --dport 53 -j CT --notrack\n-A OUTPUT -s 192.0.2.1/32 -j NOTRACK\n\
                -A NUFW_EVENTS -j CT --ctevents new,reply,destroy\nCOMMIT\n";
    let found = of_iptables(text).untracked;
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(
        of_iptables("*filter\n-A FORWARD -j FLOWOFFLOAD\nCOMMIT\n")
            .offloaded
            .len(),
        1
    );
}

#[test]
fn a_long_list_is_cut() {
    let rules: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(named(&rules), "0; 1; 2; 3; 4; 5; 6; 7; and 2 more");
}
