//! What the claims about ended connections have in common: connections with both of their ends in hand.

use anyhow::{Context, Result};
use lab::{Attempt, Lab, NetNs, Options, Outcome, now, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Users of the client host with clients of their own: name, uid.
pub(crate) const ALICE: (&str, u32) = ("alice", 31_001);
pub(crate) const BOB: (&str, u32) = ("bob", 31_002);
/// A bit of the connection's mark beside alice's number: what the kernel shows of an ended connection of hers.
pub(crate) const ENDED: &str = " mark=33555433 ";

/// How long the system may take to do what it is told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Both ends of a TCP connection.
pub(crate) struct Both {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) port: u16,
}

pub(crate) fn listen(host: &NetNs, port: u16) -> Result<TcpListener> {
    Ok(host.enter(|| TcpListener::bind(SocketAddr::from(([0_u16; 8], port))))??)
}

/// Connects as a user, to where the listener may be reached by translation only.
pub(crate) fn connect(
    lab: &Lab,
    (_, uid): (&str, u32),
    to: (IpAddr, u16),
    listener: &TcpListener,
) -> Result<Both> {
    let mut tried = Attempt::to(to.0, to.1).as_user(uid).run(&lab.net.client)?;
    anyhow::ensure!(tried.outcome == Outcome::Connected, "{:?}", tried.outcome);
    let client = tried.stream.take().context("no stream")?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut both = Both {
        client,
        server,
        port: tried.port,
    };
    both.talk()?;
    Ok(both)
}

impl Both {
    /// Something passes in both directions.
    pub(crate) fn talk(&mut self) -> Result<()> {
        let mut buffer = [0; 5];
        self.client.write_all(b"there")?;
        self.server.read_exact(&mut buffer)?;
        self.server.write_all(b"again")?;
        self.client.read_exact(&mut buffer)?;
        Ok(())
    }

    /// Each end learns of the end within a second of its next packet.
    pub(crate) fn both_are_reset(&self) -> Result<()> {
        for (end, mut stream) in [("client", &self.client), ("server", &self.server)] {
            stream.write_all(b"late")?;
            let written = now();
            let error = stream.read(&mut [0; 8]).err().map(|error| error.kind());
            assert_eq!(error, Some(ErrorKind::ConnectionReset), "{end}");
            assert!(
                written.elapsed() < Duration::from_secs(1),
                "{end}: {:?}",
                written.elapsed()
            );
        }
        Ok(())
    }

    /// The column of its row by which it is found.
    pub(crate) fn condition(&self) -> String {
        format!("tcp_sport = {}", self.port)
    }
}

/// Waits until the gateway refuses so many entries of alice's.
pub(crate) fn wait_refused(lab: &Lab, count: usize) -> Result<()> {
    wait_for("alice's connections to be refused", PATIENCE, || {
        let entries = lab.net.conntrack()?;
        Ok(entries.iter().filter(|entry| entry.contains(ENDED)).count() == count)
    })
}

/// A lab whose users log in with clients of their own.
pub(crate) fn users(mut options: Options) -> Options {
    options.logged_in.clear();
    options
}

pub(crate) fn log_in(lab: &mut Lab, (name, uid): (&str, u32)) -> Result<()> {
    let spec = lab.client_as(name, uid)?;
    lab.log_in_with(name, spec)
}

pub(crate) fn log_out(lab: &mut Lab, (name, _): (&str, u32)) -> Result<()> {
    let mut client = lab.clients.remove(name).context("nobody of that name")?;
    client.terminate()?;
    Ok(())
}
