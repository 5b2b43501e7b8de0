//! The floor to compare with: a queue loop that accepts everything and sets one mark.
//!
//! It asks nobody and writes nothing; it runs as a process of its own, like the agent.

use anyhow::{Context, Result};
use nfq::{Queue, Verdict};
use std::io::Write;

/// Accepts every packet of the queue with the mark, for ever.
pub fn accept_all(queue: u16, mark: u32, out: &mut impl Write) -> Result<()> {
    let mut socket = Queue::open().context("cannot open a queue socket (CAP_NET_ADMIN is needed)")?;
    socket
        .bind(queue)
        .with_context(|| format!("cannot bind queue {queue}"))?;
    socket.set_copy_range(queue, 256)?;
    socket.set_queue_max_len(queue, 8192)?;
    writeln!(out, "ready")?;
    out.flush()?;
    loop {
        let mut packet = socket.recv().context("cannot read the queue")?;
        packet.set_nfmark(mark);
        packet.set_verdict(Verdict::Accept);
        socket.verdict(packet).context("cannot send a verdict")?;
    }
}
