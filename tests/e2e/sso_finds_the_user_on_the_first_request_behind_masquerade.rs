//! A web server behind masquerade, or behind DNAT, asks who its visitor is with the first byte of the first request, and
//! gets the name.

use anyhow::{Context, Result};
use lab::{Lab, Options, Proc, Spec, addr, binary, with_lab};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn masquerade() {
    with_lab(Options::default(), |lab| {
        lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        visits(lab, addr::SERVER4, 80, addr::GATEWAY_OUTER4)
    });
}

#[test]
fn masquerade_of_ipv6() {
    with_lab(Options::default(), |lab| {
        lab.net.ip6tables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        visits(lab, addr::SERVER6, 80, addr::GATEWAY_OUTER6)
    });
}

#[test]
fn dnat() {
    with_lab(Options::default(), |lab| {
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 10.82.0.2:80",
        )?;
        visits(lab, addr::GATEWAY4, 8080, addr::CLIENT4)
    });
}

#[test]
fn dnat_with_masquerade() {
    with_lab(Options::default(), |lab| {
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 10.82.0.2:80",
        )?;
        lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        visits(lab, addr::GATEWAY4, 8080, addr::GATEWAY_OUTER4)
    });
}

/// Twenty first requests, each named; a connection that never went through the gateway is nobody's.
fn visits(lab: &Lab, to: IpAddr, port: u16, seen: IpAddr) -> Result<()> {
    let (_sso, socket) = start_sso(lab)?;
    let listener = lab
        .net
        .server
        .enter(|| TcpListener::bind(if to.is_ipv4() { "0.0.0.0:80" } else { "[::]:80" }))??;
    for visit in 0..20 {
        let mut stream = lab
            .net
            .client
            .enter(|| TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE))??;
        stream.write_all(b"GET /")?;
        let (mut served, peer) = listener.accept()?;
        served.read_exact(&mut [0; 5])?;
        assert_eq!(peer.ip().to_canonical(), seen);
        let answer = ask(&socket, peer, served.local_addr()?)?;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nx-remote-user: alice\r\n"),
            "visit {visit} from {peer}: {answer}"
        );
    }
    let stranger = SocketAddr::new(seen, 9);
    let answer = ask(&socket, stranger, SocketAddr::new(addr::SERVER4, 80));
    assert!(!answer?.starts_with("HTTP/1.1 200"));
    Ok(())
}

fn start_sso(lab: &Lab) -> Result<(Proc, PathBuf)> {
    let socket = lab.dir().join("sso.sock");
    let spec = Spec::new("nu-sso", &lab.net.gateway, binary("nu-sso")?, lab.dir());
    let mut sso = spec
        .args([
            "--database".into(),
            format!("sqlite:{}", lab.database().display()),
        ])
        .args([
            "serve".into(),
            "--listen".into(),
            format!("unix:{}", socket.display()),
        ])
        .start()?;
    sso.wait_log("ready")?;
    Ok((sso, socket))
}

/// As a web server asks: its visitor, and itself.
fn ask(socket: &PathBuf, peer: SocketAddr, own: SocketAddr) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("nu-sso does not listen")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /lookup HTTP/1.1\r\nHost: x\r\nX-NuFW-Src: {}\r\nX-NuFW-Src-Port: {}\r\nX-NuFW-Dst: {}\r\n\
         X-NuFW-Dst-Port: {}\r\nConnection: close\r\n\r\n",
        peer.ip(),
        peer.port(),
        own.ip(),
        own.port()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
