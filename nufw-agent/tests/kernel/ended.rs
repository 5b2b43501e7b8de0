//! Connections with the kill bit on a real kernel: the rules of both languages refuse them in both directions, and no
//! others.

use crate::rules::Lab;
use crate::support::{Netns, PATIENCE, permitted};
use nufw_agent::rules::{Format, QueueHook, RulesOptions, render};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

const PORT: u16 = 8001;

fn load(lab: &Lab, format: Format) {
    let options = RulesOptions {
        queues: 3.into(),
        hooks: vec![QueueHook::Forward, QueueHook::Input],
        ..RulesOptions::default()
    };
    let text = render(format, &options);
    // Nobody reads the queue here.
    match format {
        Format::Iptables => {
            lab.gateway
                .sh(&text.replace("-j NFQUEUE --queue-num 3", "-j RETURN"));
        }
        Format::Nft => {
            let text = text.replace("ct state new queue num 3\n", "ct state new return\n");
            lab.gateway.sh(&format!("nft -f - <<'END'\n{text}END\n"));
        }
    }
}

fn connect(lab: &Lab, host: &Netns, to: SocketAddr) -> [TcpStream; 2] {
    let listener = host.run(move || TcpListener::bind((to.ip(), 0)).unwrap());
    let to = SocketAddr::new(to.ip(), listener.local_addr().unwrap().port());
    let client = lab
        .client
        .run(move || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    [client, server]
}

fn refused_in_both_directions(format: Format) {
    if !permitted() {
        return;
    }
    let lab = Lab::new();
    load(&lab, format);
    for (host, address) in [
        (&lab.server, "10.9.2.2"),
        (&lab.server, "fd09:2::2"),
        (&lab.gateway, "10.9.1.1"),
        (&lab.gateway, "fd09:1::1"),
    ] {
        let to = SocketAddr::new(address.parse().unwrap(), PORT);
        let ended = connect(&lab, host, to);
        let mut other = connect(&lab, host, to);
        let port = ended[0].local_addr().unwrap().port();
        let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
        lab.gateway.sh(&format!(
            "conntrack -U -f {family} -p tcp --sport {port} --mark 0x2000000/0x2000000 2>/dev/null"
        ));
        for (end, mut stream) in ["client", "server"].into_iter().zip(&ended) {
            stream.write_all(b"late").unwrap();
            let error = stream.read(&mut [0; 8]).unwrap_err().kind();
            assert_eq!(error, ErrorKind::ConnectionReset, "{end} at {address}");
        }
        other[0].write_all(b"hello").unwrap();
        other[1].read_exact(&mut [0; 5]).unwrap();
    }
}

#[test]
fn the_iptables_rules_refuse_an_ended_connection_in_both_directions() {
    refused_in_both_directions(Format::Iptables);
}

#[test]
fn the_nft_ruleset_refuses_an_ended_connection_in_both_directions() {
    refused_in_both_directions(Format::Nft);
}
