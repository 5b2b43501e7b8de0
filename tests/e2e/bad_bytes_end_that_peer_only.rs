//! Whoever sends rubbish, too much, too slowly or nothing at all is cut off within a bounded time, before and after login
//! and on both ports, and nobody else notices.

use crate::peer::{Peer, plain, plain_is_cut_within};
use anyhow::{Result, bail};
use lab::{Attempt, Lab, Options, Outcome, TcpService, User, addr, checked, with_lab};
use nufw_proto::{
    BootId, CLIENT_ALPN, EventSeq, FRAME_HEADER, GATEWAY_ALPN, LoginBytes, MAX_BODY, MAX_GREETING_BODY, Text,
    client, gateway,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every limit on a peer that does not get on with it lies below this.
const BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
enum Port {
    Gateways,
    Clients,
}

impl Port {
    fn number(self) -> u16 {
        match self {
            Self::Gateways => nufw_proto::GATEWAY_PORT,
            Self::Clients => nufw_proto::CLIENT_PORT,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Bad {
    /// Bytes that are no frame: an unknown type that may not be skipped, reserved flags.
    Rubbish,
    /// A length above what is allowed at that point.
    Oversized,
    /// A frame that never becomes complete.
    Trickle,
    /// A frame that is right and a message that makes no sense at that point.
    OutOfOrder,
}

const BAD: [Bad; 4] = [Bad::Rubbish, Bad::Oversized, Bad::Trickle, Bad::OutOfOrder];

#[test]
fn before_tls() {
    with_lab(prepared(), |lab| {
        let host = lab.net.client.clone();
        in_peace(lab, move |_| {
            let runs: Vec<_> = [Port::Gateways, Port::Clients]
                .into_iter()
                .flat_map(|port| {
                    [
                        (port, &b"GET / HTTP/1.0\r\n\r\n"[..]),
                        (port, &[0xff; 300][..]),
                        (port, &[][..]),
                    ]
                })
                .collect();
            all(runs, |(port, bytes)| {
                let stream = plain(&host, addr::GATEWAY4, port.number())?;
                Ok((
                    format!("{} bytes on {port:?}", bytes.len()),
                    plain_is_cut_within(stream, BOUND, bytes)?,
                ))
            })
        })
    });
}

#[test]
fn without_a_protocol_name() {
    with_lab(prepared(), |lab| {
        let host = lab.net.client.clone();
        in_peace(lab, move |pki| {
            all(
                vec![(Port::Gateways, "gw2"), (Port::Clients, "bob")],
                |(port, name)| {
                    let stream = plain(&host, addr::GATEWAY4, port.number())?;
                    let cut = match Peer::connect(stream, pki, Some(name), None) {
                        Ok(mut peer) => peer.is_cut_within(BOUND, &[])?,
                        Err(_) => true,
                    };
                    Ok((format!("{port:?}"), cut))
                },
            )
        })
    });
}

#[test]
fn before_login() {
    with_lab(prepared(), |lab| {
        let host = lab.net.client.clone();
        in_peace(lab, move |pki| {
            let runs: Vec<_> = BAD
                .iter()
                .flat_map(|bad| [(Port::Gateways, *bad), (Port::Clients, *bad)])
                .collect();
            all(runs, |(port, bad)| {
                let stream = plain(&host, addr::GATEWAY4, port.number())?;
                let mut peer = connect(stream, pki, port)?;
                Ok((
                    format!("{bad:?} on {port:?}"),
                    offend(&mut peer, port, bad, MAX_GREETING_BODY)?,
                ))
            })
        })
    });
}

#[test]
fn silent_before_login() {
    with_lab(prepared(), |lab| {
        let host = lab.net.client.clone();
        in_peace(lab, move |pki| {
            all(vec![Port::Gateways, Port::Clients], |port| {
                let stream = plain(&host, addr::GATEWAY4, port.number())?;
                let mut peer = connect(stream, pki, port)?;
                Ok((format!("{port:?}"), peer.is_cut_within(BOUND, &[])?))
            })
        })
    });
}

#[test]
fn after_login() {
    with_lab(prepared(), |lab| {
        let host = lab.net.client.clone();
        in_peace(lab, move |pki| {
            for bad in BAD {
                all(vec![Port::Gateways, Port::Clients], |port| {
                    let stream = plain(&host, addr::GATEWAY4, port.number())?;
                    let mut peer = connect(stream, pki, port)?;
                    log_in(&mut peer, port)?;
                    Ok((
                        format!("{bad:?} on {port:?}"),
                        offend(&mut peer, port, bad, MAX_BODY)?,
                    ))
                })?;
            }
            Ok(())
        })
    });
}

/// A second gateway exists, so that one can misbehave while the other works.
fn prepared() -> Options {
    Options::prepared().nuauth("gateways.names", vec!["gw1", "gw2"])
}

/// Runs `disturb` while alice opens connections, none of which may suffer.
fn in_peace(lab: &mut Lab, disturb: impl FnOnce(&Path) -> Result<()> + Send) -> Result<()> {
    checked(&mut lab.pki(&["gateway", "gw2"])?)?;
    let _web = TcpService::echo(&lab.net.server, 80)?;
    lab.start_all()?;
    lab.wait_passes(80)?;
    let pki: PathBuf = lab.dir().join("pki");
    std::thread::scope(|scope| -> Result<()> {
        let disturbing = scope.spawn(|| disturb(&pki));
        while !disturbing.is_finished() {
            let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected, "alice was disturbed");
            tried.talk("undisturbed")?;
            std::thread::sleep(Duration::from_millis(50));
        }
        disturbing
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    assert!(lab.server.exited()?.is_none() && lab.agent.exited()?.is_none());
    logged_once(&lab.server.log()?)?;
    assert_eq!(lab.rows("state = 0 and username is not null")?.len(), 0);
    Ok(())
}

/// No peer may fill the log.
fn logged_once(log: &str) -> Result<()> {
    let mut peers: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("peer=")))
        .collect();
    let lines = peers.len();
    anyhow::ensure!(lines > 0, "nobody who was cut off is in the log");
    peers.sort_unstable();
    peers.dedup();
    anyhow::ensure!(peers.len() == lines, "somebody was logged more than once");
    Ok(())
}

/// Runs them at the same time; each says what it was and whether it was cut off.
fn all<T: Send>(runs: Vec<T>, run: impl Fn(T) -> Result<(String, bool)> + Sync) -> Result<()> {
    let run = &run;
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = runs
            .into_iter()
            .map(|what| scope.spawn(move || run(what)))
            .collect();
        threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    for result in results {
        let (what, cut) = result.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        if !cut {
            bail!("not cut off within {BOUND:?}: {what}");
        }
    }
    Ok(())
}

fn connect(stream: std::net::TcpStream, pki: &Path, port: Port) -> Result<Peer> {
    match port {
        Port::Gateways => Peer::connect(stream, pki, Some("gw2"), Some(GATEWAY_ALPN)),
        Port::Clients => Peer::connect(stream, pki, None, Some(CLIENT_ALPN)),
    }
}

fn gateway_hello() -> gateway::ToServer {
    gateway::ToServer::Hello(gateway::Hello {
        software: Text::lossy("test"),
        boot: BootId(42),
        capabilities: gateway::Capabilities::default(),
        packet_timeout_ms: 15_000,
        relays_events: true,
        marked_only: false,
        sets_marks: true,
        first_held: EventSeq(1),
    })
}

fn client_hello() -> client::ToServer {
    client::ToServer::Hello(client::Hello {
        software: Text::lossy("test"),
        capabilities: gateway::Capabilities::default(),
        os: client::OsInfo::default(),
        system: false,
    })
}

fn log_in(peer: &mut Peer, port: Port) -> Result<()> {
    match port {
        Port::Gateways => {
            peer.send(&gateway_hello())?;
            while !matches!(peer.receive()?, gateway::ToAgent::Welcome(_)) {}
        }
        Port::Clients => {
            peer.send(&client_hello())?;
            while !matches!(peer.receive()?, client::ToClient::Welcome(_)) {}
            let plain = format!("\0bob\0{}", User::PASSWORD).into_bytes();
            peer.send(&client::ToServer::Login(client::Login {
                mechanism: Text::lossy("PLAIN"),
                response: LoginBytes::new(plain)?,
            }))?;
            while !matches!(peer.receive()?, client::ToClient::LoggedIn(_)) {}
        }
    }
    Ok(())
}

fn offend(peer: &mut Peer, port: Port, bad: Bad, limit: usize) -> Result<bool> {
    let header = |length: usize, kind: u16, flags: u16| -> Result<Vec<u8>> {
        let mut bytes = u32::try_from(length)?.to_be_bytes().to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        assert_eq!(bytes.len(), FRAME_HEADER);
        Ok(bytes)
    };
    match bad {
        Bad::Rubbish => peer.write(&header(3, 0x7777, 0x8000)?)?,
        Bad::Oversized => peer.write(&header(limit + 1, 1, 0)?)?,
        Bad::Trickle => return peer.is_cut_within(BOUND, &[header(1000, 1, 0)?, vec![0; 1000]].concat()),
        Bad::OutOfOrder => match port {
            // Before hello an event, after it a second hello.
            Port::Gateways if limit == MAX_GREETING_BODY => {
                peer.send(&gateway::ToServer::Heartbeat(gateway::Heartbeat))?;
            }
            Port::Gateways => peer.send(&gateway_hello())?,
            Port::Clients if limit == MAX_GREETING_BODY => {
                peer.send(&client::ToServer::Claims(nufw_proto::Batch::default()))?;
            }
            Port::Clients => peer.send(&client_hello())?,
        },
    }
    peer.is_cut_within(BOUND, &[])
}
