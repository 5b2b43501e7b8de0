//! A program with many open connections within its host, which opens and closes some when it is told: for measuring how
//! soon their owner is found.
//!
//! One word a line on standard input, one line for each on standard output: the ports of the connection that was opened.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// Serves until standard input ends. Each connection is two sockets.
pub fn sockets(connections: u32, input: impl BufRead, out: &mut impl Write) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = listener.local_addr()?;
    let mut held = VecDeque::new();
    let open = |out: &mut dyn Write| -> Result<(TcpStream, TcpStream)> {
        let stream = TcpStream::connect(to).context("no further connection")?;
        let (other, _) = listener.accept()?;
        writeln!(out, "{} {}", stream.local_addr()?.port(), to.port())?;
        Ok((stream, other))
    };
    for _ in 0..connections {
        held.push_back(open(out)?);
    }
    out.flush()?;
    // A walk that reaches every place, and knows no chance: runs can be compared.
    let mut place = 0_usize;
    for line in input.lines() {
        match line?.as_str() {
            "open" => {}
            "replace" if !held.is_empty() => {
                place = (place + 7919) % held.len();
                held.swap_remove_back(place);
            }
            other => bail!("{other:?} is neither \"open\" nor \"replace\""),
        }
        held.push_back(open(out)?);
        out.flush()?;
    }
    Ok(())
}
