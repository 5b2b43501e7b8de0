//! The demonstration: what the whole system does with a handful of connections, for somebody who has never seen it.
//!
//! It shows what the log says; it checks nothing.

mod show;

use crate::command::missing_tools;
use crate::daemons::Lab;
use crate::net::addr;
use crate::options::Options;
use crate::rows::{Row, State};
use crate::shape::in_user_namespace;
use crate::traffic::{Attempt, Outcome, TcpService, UdpService, udp_probe};
use crate::wait::now;
use anyhow::{Result, bail};
use show::Show;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long the end of every connection is waited for.
const LAST_ROW: Duration = Duration::from_secs(45);
/// How long a packet that is dropped is waited for.
const SILENCE: Duration = Duration::from_millis(1500);
/// Ports of the services behind the gateway, and of the one that its NAT offers.
const WEB: u16 = 80;
const TICKETS: u16 = 5000;
const MAIL: u16 = 25;
const PUBLISHED: u16 = 8080;

/// How to show it.
#[derive(Debug, Clone, Copy)]
pub struct DemoOptions {
    /// Leaves the lab up.
    pub keep: bool,
    /// The final rows only.
    pub json: bool,
}

/// Shows it.
pub fn demo(options: DemoOptions, out: &mut impl Write) -> Result<()> {
    let missing = missing_tools();
    if !missing.is_empty() {
        bail!("tools are missing: run `apt-get install {}`", missing.join(" "));
    }
    let mut show = Show::new(options.json);
    show.title(
        out,
        "Three hosts: client 10.81.0.2 and fd81::2, gateway, server 10.82.0.2 and fd82::2",
    )?;
    if in_user_namespace() {
        show.note(
            out,
            "not root: the event socket's receive buffer is bounded by net.core.rmem_max",
        )?;
    }
    let mut lab = Lab::start(Options::default())?;
    publish(&lab)?;
    let _services = (
        TcpService::echo(&lab.net.server, WEB)?,
        TcpService::echo(&lab.net.server, MAIL)?,
        UdpService::echo(&lab.net.server, TICKETS)?,
    );
    show.note(out, "alice is logged in, with one client for IPv4 and IPv6; web (tcp 80) and tickets (udp 5000) are allowed")?;

    for (from, to) in [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)] {
        show.title(out, &format!("alice opens the web page of {to}: allowed"))?;
        tcp(&lab, &mut show, out, from, to, WEB)?;
        show.title(out, &format!("alice asks {to} for a ticket over UDP: allowed"))?;
        udp(&lab, &mut show, out, from, to, TICKETS)?;
        show.title(
            out,
            &format!("alice sends mail through {to} (tcp 25): no rule allows it"),
        )?;
        tcp(&lab, &mut show, out, from, to, MAIL)?;
    }
    show.title(
        out,
        "alice opens 10.81.0.1:8080, which the gateway translates to 10.82.0.2:80 and masquerades",
    )?;
    tcp(&lab, &mut show, out, addr::CLIENT4, addr::GATEWAY4, PUBLISHED)?;

    show.title(
        out,
        "alice logs out; whoever sits there opens the web page: nobody is known to ask",
    )?;
    for client in lab.clients.values_mut() {
        client.terminate()?;
    }
    tcp(&lab, &mut show, out, addr::CLIENT4, addr::SERVER4, WEB)?;
    udp(&lab, &mut show, out, addr::CLIENT6, addr::SERVER6, TICKETS)?;

    show.title(
        out,
        "the kernel forgets the connections, and their rows are closed",
    )?;
    let began = now();
    while began.elapsed() < LAST_ROW {
        lab.net.conntrack()?;
        let rows = show.progress(&lab, out)?;
        if !rows
            .iter()
            .any(|row| matches!(row.state(), State::Open | State::Established))
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    show.end(&lab, out)?;
    if options.keep {
        lab.log_in("alice")?;
        keep(&lab, out)?;
    }
    Ok(())
}

/// The web page is offered on the gateway's own address too.
fn publish(lab: &Lab) -> Result<()> {
    let target = SocketAddr::new(addr::SERVER4, WEB);
    lab.net.iptables(&format!(
        "-t nat -A PREROUTING -i lan -p tcp --dport {PUBLISHED} -j DNAT --to-destination {target}"
    ))?;
    lab.net
        .iptables("-t nat -A POSTROUTING -o wan -p tcp -m conntrack --ctstate DNAT -j MASQUERADE")
}

fn tcp(lab: &Lab, show: &mut Show, out: &mut impl Write, from: IpAddr, to: IpAddr, port: u16) -> Result<()> {
    let mut tried = Attempt::to(to, port)
        .from(from, 0)
        .within(SILENCE)
        .run(&lab.net.client)?;
    let came = tried.outcome == Outcome::Connected;
    if came {
        tried.talk("hello\n")?;
    }
    show.wait_for(lab, out, &format!("tcp_sport = {}", tried.port))?;
    show.answer(out, if came { "the page came" } else { "no answer" })
}

fn udp(lab: &Lab, show: &mut Show, out: &mut impl Write, from: IpAddr, to: IpAddr, port: u16) -> Result<()> {
    let (socket, answers) = udp_probe(&lab.net.client, from, SocketAddr::new(to, port), 1, SILENCE)?;
    show.wait_for(lab, out, &format!("udp_sport = {}", socket.local_addr()?.port()))?;
    show.answer(
        out,
        if answers == 1 {
            "the ticket came"
        } else {
            "no answer"
        },
    )
}

fn keep(lab: &Lab, out: &mut impl Write) -> Result<()> {
    let user = if in_user_namespace() {
        format!(
            "--preserve-credentials --target {} --user --mount ",
            std::process::id()
        )
    } else {
        String::new()
    };
    writeln!(
        out,
        "\nThe lab stays up, and alice is logged in again. Look around from another terminal:"
    )?;
    for (name, ns) in [
        ("client", &lab.net.client),
        ("gateway", &lab.net.gateway),
        ("server", &lab.net.server),
    ] {
        writeln!(out, "  {name:<8} nsenter {user}--net={} sh", ns.path().display())?;
    }
    writeln!(out, "  files    {}", lab.dir().display())?;
    writeln!(
        out,
        "  rows     sqlite3 -readonly {} 'select * from conntrack_ulog'",
        lab.database().display()
    )?;
    writeln!(out, "End it with Ctrl-C here, or: kill {}", std::process::id())?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

/// A row's values that the demonstration shows.
fn traffic_of(row: &Row) -> String {
    let number = |column| row.int(column).map_or_else(|| "?".to_owned(), |n| n.to_string());
    format!(
        "{} bytes out, {} bytes back",
        number("bytes_in"),
        number("bytes_out")
    )
}
