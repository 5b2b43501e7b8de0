//! `[reject]`: what no rule allows, what nobody answers for and what comes from nobody is dropped silently, or refused at
//! once where the configuration says so; the rows are the same.

use lab::{Attempt, Options, Outcome, Signal, State, TcpService, addr, with_lab};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Outcome and row of a connection to a forbidden port, of one that the client leaves unanswered, and of one of nobody.
fn tried(options: Options, expected: Outcome) {
    let options = options
        .agent("queue.packet-timeout", "3s")
        .nuauth("clients.ask-margin", "1s");
    with_lab(options, |lab| {
        let _services = [
            TcpService::echo(&lab.net.server, 8022)?,
            TcpService::echo(&lab.net.server, 7000)?,
        ];
        let attempt = |to, port| {
            Attempt::to(to, port)
                .within(Duration::from_secs(8))
                .run(&lab.net.client)
        };
        for to in [addr::SERVER4, addr::SERVER6] {
            let tried = attempt(to, 7000)?;
            assert_eq!(tried.outcome, expected, "no rule");
            let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
            assert_eq!(row.text("acl"), Some("default"));
        }
        lab.clients["alice"].signal(Signal::STOP)?;
        let silent = attempt(addr::SERVER4, 8022)?;
        lab.clients["alice"].signal(Signal::CONT)?;
        assert_eq!(silent.outcome, expected, "no answer");
        let row = lab.wait_row(&format!("tcp_sport = {}", silent.port), State::Drop)?;
        assert_eq!(row.text("acl"), Some("(timeout)"));
        lab.clients
            .get_mut("alice")
            .map(lab::Proc::terminate)
            .transpose()?;
        let nobody = attempt(addr::SERVER4, 8022)?;
        assert_eq!(nobody.outcome, expected, "nobody");
        let row = lab.wait_row(&format!("tcp_sport = {}", nobody.port), State::Drop)?;
        assert_eq!(row.text("acl"), Some("(nobody)"));
        Ok(())
    });
}

#[test]
fn rejected() {
    let options = Options::default()
        .nuauth("reject.on-default", "reject")
        .nuauth("reject.on-timeout", "reject")
        .nuauth("reject.on-nobody", "reject");
    tried(options, Outcome::Refused);
}

#[test]
fn dropped_by_default() {
    tried(Options::default(), Outcome::TimedOut);
}

/// Under destination translation and masquerade the sender is told in the words that it used.
#[test]
fn under_translation() {
    let options = Options::default().nuauth("reject.on-default", "reject");
    with_lab(options, |lab| {
        let places = [
            (addr::GATEWAY4, "10.82.0.2:7000", ErrorKind::HostUnreachable),
            (addr::GATEWAY6, "[fd82::2]:7000", ErrorKind::PermissionDenied),
        ];
        for protocol in ["tcp", "udp"] {
            for (to, inner, _) in places {
                let rule = format!(
                    "-t nat -A PREROUTING -i lan -p {protocol} --dport 7001 -j DNAT --to-destination {inner}"
                );
                let masquerade = "-t nat -A POSTROUTING -o wan -j MASQUERADE";
                if to.is_ipv4() {
                    lab.net.iptables(&rule)?;
                    lab.net.iptables(masquerade)?;
                } else {
                    lab.net.ip6tables(&rule)?;
                    lab.net.ip6tables(masquerade)?;
                }
            }
        }
        for (to, _, prohibited) in places {
            let tried = Attempt::to(to, 7001).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Refused, "{to}");
            let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
            assert_eq!(
                (row.text("acl"), row.text("username")),
                (Some("default"), Some("alice"))
            );
            let told = lab.net.client.enter(move || -> std::io::Result<_> {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(SocketAddr::new(to, 7001))?;
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                socket.send(b"?")?;
                Ok(socket.recv(&mut [0; 8]).err().map(|error| error.kind()))
            })??;
            assert_eq!(told, Some(prohibited), "{to}");
        }
        Ok(())
    });
}
