//! Framed messages over any byte stream: many decoded from one read, many sent with one write.
//!
//! Knows frames, limits and deadlines; what a message means, and who may send it when, is the caller's business.

use crate::clock;
use nufw_proto::{Decoded, EncodeError, FRAME_HEADER, Message, WireError, decode, encode};
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A frame that has begun must be complete after so long; a peer that trickles is cut off.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that may wait to be sent; a peer that does not read is cut off above.
pub const MAX_BACKLOG: usize = 8 * 1024 * 1024;
/// What a reader starts with: most peers are idle clients, and there may be ten thousand of them.
const FIRST_READ: usize = 512;
/// By how much it grows when a peer fills it.
const GROWTH: usize = 4;
/// A send buffer above this size is given back once it is empty.
const KEPT_WRITE: usize = 256 * 1024;

/// Why a link must be ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// The peer sent what is no message.
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    /// A message of our own does not fit.
    #[error("a message to the peer cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// The stream ended within a frame.
    #[error("the peer ended the connection in the middle of a frame")]
    Truncated,
    /// The peer is gone without ending the TLS session: killed, or cut off by somebody between.
    #[error("the connection was cut without a TLS end")]
    Cut,
    /// A frame was begun and not completed.
    #[error("the peer took more than {0:?} to send one frame")]
    Slow(Duration),
    /// The peer does not read what is sent to it.
    #[error("the peer does not read: {waiting} bytes wait to be sent, {max} may")]
    Backlog {
        /// Bytes waiting, the refused message not counted.
        waiting: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// At least one message was appended.
    Messages,
    /// The peer ended the stream between two frames.
    Closed,
}

/// Decodes messages from a byte stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    buffer: Vec<u8>,
    /// The unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    max_body: usize,
    deadline: Duration,
    started: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `max_body` bytes.
    pub fn new(inner: R, max_body: usize) -> Self {
        Self {
            inner,
            buffer: vec![0; FIRST_READ],
            start: 0,
            end: 0,
            max_body,
            deadline: FRAME_DEADLINE,
            started: None,
        }
    }

    /// Changes the largest body, as when a peer has logged in; counts for what is decoded from here on.
    pub fn set_limit(&mut self, max_body: usize) {
        self.max_body = max_body;
    }

    /// Changes how long a frame may take.
    pub fn set_frame_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// When the first byte of the frame came that is not complete yet.
    pub fn frame_started_at(&self) -> Option<Instant> {
        self.started
    }

    /// Waits for at least one message, then appends every message that is there to `out`.
    ///
    /// Cancel-safe. An error behind good messages is returned by the next call. Frames that may be ignored are
    /// skipped. Costs one read system call where the peer's batch fits the buffer, which grows to the largest
    /// frame only for peers that fill it.
    pub async fn read_batch<M: Message>(&mut self, out: &mut Vec<M>) -> Result<Read, LinkError> {
        let before = out.len();
        loop {
            let decoded = self.decode_buffered(out);
            if out.len() > before {
                return Ok(Read::Messages);
            }
            let needed = decoded?;
            self.make_room(needed);
            if self.fill().await? == 0 {
                return if self.start == self.end {
                    Ok(Read::Closed)
                } else {
                    Err(LinkError::Truncated)
                };
            }
        }
    }

    /// Decodes whole frames; the size that the first incomplete one needs in the buffer.
    fn decode_buffered<M: Message>(&mut self, out: &mut Vec<M>) -> Result<usize, WireError> {
        let mut consumed = false;
        let needed = loop {
            match decode(&self.buffer[self.start..self.end], self.max_body)? {
                Decoded::Message(message, used) => {
                    self.start += used;
                    out.push(message);
                }
                Decoded::Skipped(used) => self.start += used,
                Decoded::NeedBytes(needed) => break needed,
            }
            consumed = true;
        };
        if self.start == self.end {
            self.started = None;
        } else if consumed || self.started.is_none() {
            self.started = Some(clock::mono());
        }
        Ok(needed)
    }

    fn make_room(&mut self, needed: usize) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
    }

    async fn fill(&mut self) -> Result<usize, LinkError> {
        let room = &mut self.buffer[self.end..];
        let whole = room.len();
        let read = self.inner.read(room);
        let n = match self.started {
            None => read.await?,
            Some(started) => {
                let limit = tokio::time::Instant::from_std(started + self.deadline);
                tokio::time::timeout_at(limit, read)
                    .await
                    .map_err(|_| LinkError::Slow(self.deadline))??
            }
        };
        self.end += n;
        let largest = FRAME_HEADER + self.max_body;
        if n == whole && self.buffer.len() < largest {
            let bigger = (self.buffer.len() * GROWTH).min(largest);
            self.buffer.resize(bigger, 0);
        }
        Ok(n)
    }
}

/// Encodes messages and sends many at once.
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    buffer: Vec<u8>,
    sent: usize,
    max_backlog: usize,
    kept: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames; at most [`MAX_BACKLOG`] bytes wait.
    pub fn new(inner: W) -> Self {
        Self::with_backlog(inner, MAX_BACKLOG)
    }

    /// Writes frames; at most `max_backlog` bytes wait.
    pub fn with_backlog(inner: W, max_backlog: usize) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            sent: 0,
            max_backlog,
            kept: KEPT_WRITE,
        }
    }

    /// Changes how large a buffer is kept for the next messages once it is empty: none is best where few are sent and peers are
    /// many.
    pub fn set_kept(&mut self, kept: usize) {
        self.kept = kept;
    }

    /// Adds a message to what the next [`flush`](Self::flush) sends.
    ///
    /// On an error nothing of this message was queued.
    pub fn queue<M: Message>(&mut self, message: &M) -> Result<(), LinkError> {
        let before = self.buffer.len();
        encode(message, &mut self.buffer)?;
        if self.waiting() > self.max_backlog {
            self.buffer.truncate(before);
            return Err(LinkError::Backlog {
                waiting: self.waiting(),
                max: self.max_backlog,
            });
        }
        Ok(())
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.sent
    }

    /// Sends everything that is queued. Cancel-safe: what was sent is not sent again, what was not stays queued.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while self.sent < self.buffer.len() {
            let n = self.inner.write(&self.buffer[self.sent..]).await?;
            if n == 0 {
                return Err(LinkError::Io(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.buffer.clear();
        self.sent = 0;
        self.buffer.shrink_to(self.kept);
        self.inner.flush().await?;
        Ok(())
    }

    /// Sends everything that is queued and ends our direction of the stream.
    pub async fn close(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        self.inner.shutdown().await?;
        Ok(())
    }
}

/// When to send a heartbeat and when to give a silent peer up. Pure: the time is a parameter.
#[derive(Debug, Clone)]
pub struct Liveness {
    dead_after: Duration,
    heard: Instant,
    spoke: Instant,
}

impl Liveness {
    /// A peer that is alive `now` and dead after so long a silence.
    pub fn new(dead_after: Duration, now: Instant) -> Self {
        Self {
            dead_after,
            heard: now,
            spoke: now,
        }
    }

    /// Changes the silence that means death, as when the peer said how long it is.
    pub fn set_dead_after(&mut self, dead_after: Duration) {
        self.dead_after = dead_after;
    }

    /// Something came from the peer.
    pub fn on_traffic(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Something was sent to the peer.
    pub fn on_sent(&mut self, now: Instant) {
        self.spoke = now;
    }

    /// Whether a heartbeat is due: nothing was sent for a third of the dead-peer time.
    pub fn due_to_send(&self, now: Instant) -> bool {
        now >= self.spoke + self.dead_after / 3
    }

    /// Whether the peer has been silent for too long.
    pub fn is_dead(&self, now: Instant) -> bool {
        now >= self.heard + self.dead_after
    }

    /// When the next heartbeat is due if nothing else is sent.
    pub fn next_send(&self) -> Instant {
        self.spoke + self.dead_after / 3
    }

    /// When one of the two answers changes at the latest, for a timer.
    pub fn next_check(&self) -> Instant {
        (self.spoke + self.dead_after / 3).min(self.heard + self.dead_after)
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
