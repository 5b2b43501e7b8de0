//! Which socket a packet came from, on rows of our own making.

use super::*;
use crate::owner::diag::SYN_SENT;
use nufw_proto::{IcmpKey, Ports};

fn end(text: &str) -> End {
    let at: std::net::SocketAddr = text.parse().unwrap();
    End {
        addr: at.ip().into(),
        port: at.port(),
    }
}

fn row(state: u8, local: &str, remote: &str, uid: u32, inode: u32) -> SocketRow {
    SocketRow {
        local: end(local),
        remote: end(remote),
        state,
        uid,
        is_v6_only: false,
        inode,
    }
}

fn tuple(of: fn(Ports) -> Transport, src: &str, dst: &str) -> Tuple {
    let (src, dst) = (end(src), end(dst));
    let ports = Ports {
        src: src.port,
        dst: dst.port,
    };
    Tuple::new(src.addr, dst.addr, of(ports)).unwrap()
}

#[test]
fn a_listening_socket_sends_no_packet() {
    let asked = tuple(Transport::Tcp, "10.0.0.5:80", "10.1.1.1:443");
    let listener = row(LISTEN, "10.0.0.5:80", "0.0.0.0:0", 1000, 7);
    assert_eq!(fit(&asked, &listener), Fit::No);
    assert_eq!(choose(&asked, [&listener]), None);
}

#[test]
fn a_connection_in_time_wait_is_nobodys() {
    let asked = tuple(Transport::Tcp, "10.0.0.5:4000", "10.1.1.1:443");
    let old = row(TIME_WAIT, "10.0.0.5:4000", "10.1.1.1:443", 0, 0);
    assert_eq!(fit(&asked, &old), Fit::No);
    assert_eq!(choose(&asked, [&old]), None);
}

#[test]
fn the_only_socket_with_the_port_answers_with_its_own_destination() {
    let asked = tuple(Transport::Tcp, "10.0.0.5:4000", "10.82.0.2:80");
    let socket = row(SYN_SENT, "10.0.0.5:4000", "10.81.0.1:8080", 1000, 7);
    let owner = choose(&asked, [&socket]).unwrap();
    assert_eq!(
        owner.seen,
        tuple(Transport::Tcp, "10.0.0.5:4000", "10.81.0.1:8080")
    );
}

#[test]
fn two_destinations_from_one_port_are_ambiguous_unless_one_is_exact() {
    let asked = tuple(Transport::Tcp, "10.0.0.5:4000", "10.82.0.2:80");
    let one = row(SYN_SENT, "10.0.0.5:4000", "10.81.0.1:8080", 1000, 7);
    let two = row(SYN_SENT, "10.0.0.5:4000", "10.81.0.1:8081", 1000, 8);
    assert_eq!(choose(&asked, [&one, &two]), None);
    let exact = row(SYN_SENT, "10.0.0.5:4000", "10.82.0.2:80", 1000, 9);
    assert_eq!(choose(&asked, [&one, &two, &exact]).unwrap().inode, 9);
}

#[test]
fn another_address_of_the_host_is_another_socket() {
    let asked = tuple(Transport::Tcp, "10.0.0.5:4000", "10.82.0.2:80");
    let other = row(SYN_SENT, "10.0.0.6:4000", "10.81.0.1:8080", 1000, 7);
    assert_eq!(choose(&asked, [&other]), None);
}

#[test]
fn a_bound_datagram_socket_shared_by_two_users_is_not_claimed() {
    let asked = tuple(Transport::Udp, "10.0.0.5:5353", "224.0.0.251:5353");
    let mine = row(CLOSE, "0.0.0.0:5353", "0.0.0.0:0", 1000, 7);
    let also_mine = row(CLOSE, "[::]:5353", "[::]:0", 1000, 8);
    let other = row(CLOSE, "0.0.0.0:5353", "0.0.0.0:0", 1001, 9);
    assert_eq!(fit(&asked, &mine), Fit::Bound);
    assert_eq!(choose(&asked, [&mine, &also_mine]).unwrap().uid, 1000);
    assert_eq!(choose(&asked, [&mine, &also_mine, &other]), None);
}

#[test]
fn an_ipv6_only_socket_is_no_rival_for_ipv4() {
    let asked = tuple(Transport::Udp, "10.0.0.5:53", "10.1.1.1:53");
    let mine = row(CLOSE, "0.0.0.0:53", "0.0.0.0:0", 1000, 7);
    let mut other = row(CLOSE, "[::]:53", "[::]:0", 1001, 9);
    assert_eq!(choose(&asked, [&mine, &other]), None);
    other.is_v6_only = true;
    assert_eq!(choose(&asked, [&mine, &other]).unwrap().inode, 7);
}

#[test]
fn an_ipv4_socket_sends_no_ipv6() {
    let asked = tuple(Transport::Udp, "[fd00::5]:53", "[fd00::1]:53");
    let v4 = row(CLOSE, "0.0.0.0:53", "0.0.0.0:0", 1000, 7);
    assert_eq!(choose(&asked, [&v4]), None);
}

fn echo_request(id: u16) -> Tuple {
    let key = IcmpKey { kind: 8, code: 0, id };
    let (src, dst) = ("10.0.0.5".parse().unwrap(), "10.1.1.1".parse().unwrap());
    Tuple::new(src, dst, Transport::Icmp(key)).unwrap()
}

#[test]
fn an_echo_request_is_its_echo_sockets() {
    let echo = [
        row(CLOSE, "0.0.0.0:7", "0.0.0.0:0", 1001, 1),
        row(CLOSE, "0.0.0.0:42", "0.0.0.0:0", 1000, 2),
    ];
    let raw = [row(CLOSE, "0.0.0.0:1", "0.0.0.0:0", 0, 3)];
    assert_eq!(choose_icmp(&echo_request(42), &echo, &raw).unwrap().inode, 2);
    assert_eq!(choose_icmp(&echo_request(43), &echo, &raw).unwrap().inode, 3);
}

#[test]
fn raw_sockets_of_two_users_are_ambiguous() {
    let one = row(CLOSE, "0.0.0.0:1", "0.0.0.0:0", 0, 3);
    let two = row(CLOSE, "0.0.0.0:255", "0.0.0.0:0", 1000, 4);
    let elsewhere = row(CLOSE, "0.0.0.0:1", "10.9.9.9:0", 1001, 5);
    let udp = row(CLOSE, "0.0.0.0:17", "0.0.0.0:0", 1001, 6);
    assert_eq!(choose_icmp(&echo_request(1), &[], &[one, two]), None);
    assert_eq!(
        choose_icmp(&echo_request(1), &[], &[one, elsewhere, udp])
            .unwrap()
            .inode,
        3
    );
}
