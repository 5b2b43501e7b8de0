//! With `sessions.on-end = "kill"` a logout ends the user's live connections: both ends are told, the rows say so and have
//! their counters, translated connections too; what she tries next is refused, and another user notices nothing.

use crate::ended::{ALICE, BOB, PATIENCE, connect, listen, log_in, log_out, users, wait_refused};
use lab::{Attempt, Options, Outcome, State, UdpService, addr, now, two_users_possible, with_lab};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

#[test]
fn claim() {
    if !two_users_possible() {
        return;
    }
    let options = Options::default().nuauth("sessions.on-end", "kill");
    with_lab(users(options), |lab| {
        let listener = listen(&lab.net.server, 8022)?;
        let _tickets = UdpService::echo(&lab.net.server, 5000)?;
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 10.82.0.2:8022",
        )?;
        lab.net
            .iptables("-t nat -A POSTROUTING -o wan -p tcp -j MASQUERADE")?;
        log_in(lab, ALICE)?;
        log_in(lab, BOB)?;

        let hers = [
            connect(lab, ALICE, (addr::SERVER4, 8022), &listener)?,
            connect(lab, ALICE, (addr::SERVER6, 8022), &listener)?,
            connect(lab, ALICE, (addr::GATEWAY4, 8080), &listener)?,
        ];
        let mut his = connect(lab, BOB, (addr::SERVER4, 8022), &listener)?;
        let ask = |socket: &UdpSocket| {
            socket.send(b"?")?;
            socket.recv(&mut [0; 8])
        };
        let tickets = lab
            .net
            .client
            .enter_as(Some(ALICE.1), || -> std::io::Result<_> {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(SocketAddr::new(addr::SERVER4, 5000))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                ask(&socket)?;
                Ok(socket)
            })??;
        let datagrams = format!("udp_sport = {}", tickets.local_addr()?.port());
        for both in &hers {
            lab.wait_row(&both.condition(), State::Established)?;
        }
        lab.wait_row(&datagrams, State::Established)?;

        log_out(lab, ALICE)?;
        wait_refused(lab, 4)?;
        let sent = now();
        assert_eq!(
            ask(&tickets).err().map(|error| error.kind()),
            Some(ErrorKind::HostUnreachable)
        );
        assert!(sent.elapsed() < Duration::from_secs(1));
        for both in &hers {
            both.both_are_reset()?;
            let row = lab.wait_row(&both.condition(), State::Close)?;
            assert_eq!(row.text("close_reason"), Some("killed-session"), "{row:?}");
            assert_eq!(row.text("username"), Some("alice"));
            assert!(
                row.int("packets_in") >= Some(4) && row.int("packets_out") >= Some(3),
                "{row:?}"
            );
        }
        let row = lab.wait_row(&datagrams, State::Close)?;
        assert_eq!(row.text("close_reason"), Some("killed-session"), "{row:?}");
        assert!(row.int("packets_in") >= Some(2), "{row:?}");

        let next = Attempt::to(addr::SERVER4, 8022)
            .as_user(ALICE.1)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(next.outcome, Outcome::TimedOut);
        his.talk()?;
        assert_eq!(
            lab.wait_row(&his.condition(), State::Established)?
                .text("username"),
            Some("bob")
        );
        Ok(())
    });
}

/// Nothing is ended unless the configuration says so.
#[test]
fn not_by_default() {
    if !two_users_possible() {
        return;
    }
    with_lab(users(Options::default()), |lab| {
        let listener = listen(&lab.net.server, 8022)?;
        log_in(lab, ALICE)?;
        let mut hers = connect(lab, ALICE, (addr::SERVER4, 8022), &listener)?;
        log_out(lab, ALICE)?;
        lab.server.wait_log("client gone")?;
        std::thread::sleep(Duration::from_secs(2));
        hers.talk()?;
        Ok(())
    });
}

/// A connection to the gateway itself ends in both directions, too.
#[test]
fn to_the_gateway_itself() {
    if !two_users_possible() {
        return;
    }
    let options = Options::default().nuauth("sessions.on-end", "kill");
    with_lab(users(options), |lab| {
        let listener = listen(&lab.net.gateway, 8022)?;
        lab.apply_input_rules()?;
        log_in(lab, ALICE)?;
        let hers = [
            connect(lab, ALICE, (addr::GATEWAY4, 8022), &listener)?,
            connect(lab, ALICE, (addr::GATEWAY6, 8022), &listener)?,
        ];
        lab.agent.signal(lab::Signal::HUP)?;
        log_out(lab, ALICE)?;
        wait_refused(lab, 2)?;
        for both in &hers {
            both.both_are_reset()?;
            let row = lab.wait_row(&both.condition(), State::Close)?;
            assert_eq!(row.text("close_reason"), Some("killed-session"), "{row:?}");
        }
        Ok(())
    });
}
