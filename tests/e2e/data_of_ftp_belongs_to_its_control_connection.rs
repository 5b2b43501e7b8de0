//! FTP data is never asked for: it passes as RELATED, and has a row of its own with the user of the control connection, its
//! row as parent, and an end with counters.

use anyhow::{Context, Result, ensure};
use lab::{Attempt, Lab, Options, Outcome, Row, State, TcpService, addr, with_lab};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A port that no ephemeral one is.
const DATA: u16 = 2049;

const POLICY: &str = r#"
[[rule]]
name = "ftp"
protocol = "tcp"
ports = [21]
decision = "accept"
"#;

fn only_ftp() -> Options {
    let mut options = Options::default();
    POLICY.clone_into(&mut options.policy);
    options
}

#[test]
fn passive() {
    with_lab(only_ftp(), |lab| {
        let _data = TcpService::echo(&lab.net.server, DATA)?;
        let (mut control, _server) = control(lab)?;
        let port = control.stream.local_addr()?.port();
        control.say("PASV")?;
        ensure!(control.hear()?.starts_with("227 "), "the server does not answer");
        // Nobody may open it unasked but by what the kernel expects.
        let mut data = Attempt::to(addr::SERVER4, DATA).run(&lab.net.client)?;
        ensure!(data.outcome == Outcome::Connected, "{:?}", data.outcome);
        data.talk("a directory")?;
        let condition = format!("tcp_sport = {}", data.port);
        drop(data);
        let row = lab.wait_row(&condition, State::Close)?;
        belongs(lab, &row, port)?;
        assert_eq!(row.text("ip_saddr"), Some("10.81.0.2"));
        assert!(row.ended_in_order(), "{row:?}");
        assert!(
            row.int("packets_in") >= Some(4) && row.int("bytes_out") > Some(100),
            "{row:?}"
        );
        drop(control);
        Ok(())
    });
}

#[test]
fn active() {
    with_lab(only_ftp(), |lab| {
        let (mut control, server) = control(lab)?;
        let port = control.stream.local_addr()?.port();
        let listener = lab
            .net
            .client
            .enter(|| TcpListener::bind(SocketAddr::new(addr::CLIENT4, 0)))??;
        let here = listener.local_addr()?.port();
        // The helper reads a line only if it has seen the end of the one before.
        control.say("USER alice")?;
        ensure!(control.hear()?.starts_with("331 "), "the server does not answer");
        control.say(&format!("PORT 10,81,0,2,{},{}", here >> 8, here & 0xff))?;
        ensure!(control.hear()?.starts_with("200 "), "the server does not answer");
        // The server opens it, from outside, where nobody is logged in.
        let mut data = Attempt::to(addr::CLIENT4, here).run(&lab.net.server)?;
        ensure!(data.outcome == Outcome::Connected, "{:?}", data.outcome);
        let (mut accepted, _) = listener.accept()?;
        std::thread::spawn(move || std::io::copy(&mut accepted.try_clone()?, &mut accepted));
        data.talk("a file")?;
        let condition = format!("tcp_dport = {here}");
        let live = lab.wait_row(&condition, State::Established)?;
        belongs(lab, &live, port)?;
        assert_eq!(live.text("ip_saddr"), Some("10.82.0.2"));
        drop(data);
        lab.wait_row(&condition, State::Close)?;
        drop((control, server));
        Ok(())
    });
}

/// The kernel expects nothing of a connection that is no FTP.
#[test]
fn what_nobody_announced_is_asked_for() {
    with_lab(only_ftp(), |lab| {
        let _data = TcpService::echo(&lab.net.server, 25)?;
        let (control, _server) = control(lab)?;
        let tried = Attempt::to(addr::SERVER4, 25)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_ne!(tried.outcome, Outcome::Connected);
        let row = lab.wait_row("tcp_dport = 25", State::Drop)?;
        assert!(row.is_null("parent_id"), "{row:?}");
        drop(control);
        Ok(())
    });
}

fn belongs(lab: &Lab, row: &Row, control_port: u16) -> Result<()> {
    let parent = lab.wait_row(&format!("tcp_sport = {control_port}"), State::Established)?;
    assert_eq!(row.int("parent_id"), parent.int("id"), "{row:?}");
    assert_eq!(row.text("username"), Some("alice"));
    assert_eq!(row.int("user_id"), Some(1001));
    assert_eq!(row.int("oob_mark"), Some(1001));
    assert_eq!(row.int("ct_mark"), Some(1001));
    assert_eq!(row.text("client_app"), parent.text("client_app"));
    assert_eq!(row.text("acl"), Some("(related)"));
    assert!(parent.is_null("parent_id"), "{parent:?}");
    // The control connection alone was asked for.
    assert_eq!(lab.queued()?, 1);
    Ok(())
}

struct Control {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Control {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let lines = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, lines })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        // In one segment: the helper reads lines, not streams.
        Ok(self.stream.write_all(format!("{line}\r\n").as_bytes())?)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("nothing is said")?;
        Ok(line)
    }
}

/// A control connection through the gateway, whose FTP helper watches it, and the thread that serves it.
fn control(lab: &Lab) -> Result<(Control, std::thread::JoinHandle<Result<()>>)> {
    // The first rule of the table that has a CT target counts.
    lab.net.iptables(
        "-t raw -I PREROUTING -p tcp --dport 21 -j CT --helper ftp --ctevents new,related,reply,destroy",
    )?;
    let listener = lab
        .net
        .server
        .enter(|| TcpListener::bind(SocketAddr::new(addr::SERVER4, 21)))??;
    let server = std::thread::spawn(move || -> Result<()> {
        let mut control = Control::new(listener.accept()?.0)?;
        control.say("220 ready")?;
        loop {
            let line = control.hear()?;
            match line.split_whitespace().next() {
                Some("PASV") => {
                    control.say(&format!(
                        "227 Entering Passive Mode (10,82,0,2,{},{})",
                        DATA >> 8,
                        DATA & 0xff
                    ))?;
                }
                Some("USER") => control.say("331 Password required")?,
                Some("PORT") => control.say("200 PORT command successful")?,
                _ => return Ok(()),
            }
        }
    });
    let tried = Attempt::to(addr::SERVER4, 21).run(&lab.net.client)?;
    let mut control = Control::new(tried.stream.context("the control connection does not open")?)?;
    ensure!(control.hear()?.starts_with("220 "), "no greeting");
    Ok((control, server))
}
