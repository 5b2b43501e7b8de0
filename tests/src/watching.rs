//! Asks the daemons of a lab for what they tell of themselves over HTTP.
//!
//! A plain request over a plain socket, as a monitoring system sends it.

use crate::netns::NetNs;
use anyhow::{Context, Result};
use nufw_common::observe::Scrape;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Status and body of an answer from a port of a host's loopback.
pub fn http_get(host: &NetNs, port: u16, path: &str) -> Result<(u16, String)> {
    let text = host.enter(|| -> Result<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The metrics that a port of a host's loopback tells.
pub fn scrape(host: &NetNs, port: u16) -> Result<Scrape> {
    let (status, body) = http_get(host, port, "/metrics")?;
    anyhow::ensure!(status == 200, "the metrics are not told: {status} {body}");
    Scrape::parse(&body).with_context(|| format!("port {port} tells what cannot be read"))
}
