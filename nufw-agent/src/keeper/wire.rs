//! What the worker may ask of the supervisor, and the answers: a closed list, decoded strictly.
//!
//! Bytes only. A request that is not on the list, or has a byte too many or too few, is refused; none carries bytes for
//! the kernel, so that nothing else can be sent in its name.

use crate::conntrack::{IN_FLIGHT, Order, Target};
use crate::queue::Disposition;
use std::ops::RangeInclusive;

/// Most verdicts of one request.
pub const MAX_VERDICTS: usize = 512;
/// Most queues that are handed over.
pub(super) const MAX_QUEUES: usize = 64;
/// Bytes of the longest message, either way.
pub(super) const MAX_MESSAGE: usize = 1 + MAX_VERDICTS * VERDICT;
/// Bytes of a verdict: queue and code, each a little-endian u16, then packet id and mark, each a little-endian u32.
const VERDICT: usize = 12;

const READY: u8 = 1;
const BEAT: u8 = 2;
const VERDICTS: u8 = 3;
const DUMP: u8 = 4;
const RULES: u8 = 5;
const MEND: u8 = 6;
const CONTROL: u8 = 7;

const START: u8 = 1;
const DONE: u8 = 2;

/// What the worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// It has read its configuration and may be started; answered by [`Reply::Start`] when it is its turn.
    Ready,
    /// It is alive; not answered.
    Beat,
    /// Packets are decided: queues, packet ids, and what becomes of them; answered when the kernel has the verdicts.
    Verdicts(Vec<(u16, u32, Disposition)>),
    /// The connection table is to be read; answered with a socket from which it comes.
    Dump,
    /// The firewall's rules are to be listed; answered with a pipe from which they come.
    Rules {
        /// Whether they are to be loaded before, where that is configured.
        mend: bool,
    },
    /// Single entries of the connection table are to be looked at, marked with the bit of ended connections, limited in time, or deleted, at
    /// most [`IN_FLIGHT`]; answered with a socket from which the kernel's answers come, by their tokens.
    Control(Vec<(u32, Target, Order)>),
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Begin; the descriptors come with it.
    Start(Start),
    /// It is done (0), or the kernel refused it (errno).
    Done(i32),
}

/// What a worker begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The supervisor's process id; a worker whose parent is another one is too late.
    pub parent: u32,
    /// How many workers there were before it.
    pub generation: u32,
    /// The numbers of the queues of each socket, in the order of the sockets, which come first.
    pub queues: Vec<RangeInclusive<u16>>,
    /// Whether the event socket comes after them, and whether its buffer was forced beyond the host's limit.
    pub events: Option<bool>,
    /// What comes after the memory: where the agent is watched.
    pub open: Open,
}

/// Which places are open at which the agent is watched; their sockets come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Open {
    /// Metrics and health.
    pub metrics: bool,
    /// The status.
    pub status: bool,
}

/// A message that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("an empty message")]
    Empty,
    /// Of no known kind.
    #[error("a message of unknown kind {0}")]
    Kind(u8),
    /// Too long or too short.
    #[error("a message of kind {kind} with {found} bytes")]
    Length {
        /// Its kind.
        kind: u8,
        /// Bytes after the kind.
        found: usize,
    },
    /// Something in it that has no meaning.
    #[error("a message of kind {kind} with the impossible value {found}")]
    Value {
        /// Its kind.
        kind: u8,
        /// The value.
        found: u32,
    },
}

impl Request {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready => vec![READY],
            Self::Beat => vec![BEAT],
            Self::Verdicts(verdicts) => encode_verdicts(verdicts),
            Self::Dump => vec![DUMP],
            Self::Rules { mend: false } => vec![RULES],
            Self::Rules { mend: true } => vec![MEND],
            Self::Control(wanted) => encode_control(wanted),
        }
    }

    /// Reads one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (&kind, body) = message.split_first().ok_or(Malformed::Empty)?;
        let empty = |request| match body {
            [] => Ok(request),
            _ => Err(wrong_length(kind, body)),
        };
        match kind {
            READY => empty(Self::Ready),
            BEAT => empty(Self::Beat),
            DUMP => empty(Self::Dump),
            RULES => empty(Self::Rules { mend: false }),
            MEND => empty(Self::Rules { mend: true }),
            VERDICTS => decode_verdicts(body),
            CONTROL => decode_control(body),
            _ => Err(Malformed::Kind(kind)),
        }
    }
}

/// Writes the request for verdicts without a copy of them; those beyond [`MAX_VERDICTS`] make it one that is refused.
pub(super) fn encode_verdicts(verdicts: &[(u16, u32, Disposition)]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + verdicts.len() * VERDICT);
    message.push(VERDICTS);
    for (queue, packet_id, disposition) in verdicts {
        let (code, mark): (u16, u32) = match disposition {
            Disposition::Drop => (0, 0),
            Disposition::Accept { mark: None } => (1, 0),
            Disposition::Accept { mark: Some(mark) } => (2, *mark),
            Disposition::Repeat { mark: None } => (3, 0),
            Disposition::Repeat { mark: Some(mark) } => (4, *mark),
        };
        message.extend_from_slice(&queue.to_le_bytes());
        message.extend_from_slice(&code.to_le_bytes());
        for number in [*packet_id, mark] {
            message.extend_from_slice(&number.to_le_bytes());
        }
    }
    message
}

fn decode_verdicts(body: &[u8]) -> Result<Request, Malformed> {
    let wrong = || wrong_length(VERDICTS, body);
    let (records, rest) = body.as_chunks::<VERDICT>();
    if !rest.is_empty() || records.is_empty() || records.len() > MAX_VERDICTS {
        return Err(wrong());
    }
    let verdicts = records.iter().map(decode_verdict).collect::<Result<_, _>>()?;
    Ok(Request::Verdicts(verdicts))
}

fn decode_verdict(record: &[u8; VERDICT]) -> Result<(u16, u32, Disposition), Malformed> {
    let short = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
    let long = |at: usize| u32::from(short(at)) | u32::from(short(at + 2)) << 16;
    let (queue, code, packet_id, mark) = (short(0), short(2), long(4), long(8));
    let impossible = |found| Malformed::Value {
        kind: VERDICTS,
        found,
    };
    let disposition = match code {
        0 => Disposition::Drop,
        1 => Disposition::Accept { mark: None },
        2 => Disposition::Accept { mark: Some(mark) },
        3 => Disposition::Repeat { mark: None },
        4 => Disposition::Repeat { mark: Some(mark) },
        _ => return Err(impossible(code.into())),
    };
    if matches!(code, 0 | 1 | 3) && mark != 0 {
        return Err(impossible(mark));
    }
    Ok((queue, packet_id, disposition))
}

/// Writes the request about single entries; more than [`IN_FLIGHT`] make it one that is refused.
pub(super) fn encode_control(wanted: &[(u32, Target, Order)]) -> Vec<u8> {
    // Plain data, which can always be written; if it were not, what is left is a request that is refused.
    postcard::to_extend(wanted, vec![CONTROL]).unwrap_or_default()
}

fn decode_control(body: &[u8]) -> Result<Request, Malformed> {
    let wrong = || wrong_length(CONTROL, body);
    let wanted: Vec<(u32, Target, Order)> = postcard::from_bytes(body).map_err(|_| wrong())?;
    if wanted.is_empty() || wanted.len() > IN_FLIGHT {
        return Err(wrong());
    }
    // In the one form that it has: no byte too many, no number in a longer form.
    if encode_control(&wanted).get(1..) != Some(body) {
        return Err(wrong());
    }
    Ok(Request::Control(wanted))
}

impl Reply {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start(start) => {
                let mut message = vec![START];
                message.extend_from_slice(&start.parent.to_le_bytes());
                message.extend_from_slice(&start.generation.to_le_bytes());
                message.push(match start.events {
                    None => 0,
                    Some(false) => 1,
                    Some(true) => 2,
                });
                message.push(u8::from(start.open.metrics) | u8::from(start.open.status) << 1);
                for queues in &start.queues {
                    message.extend_from_slice(&queues.start().to_le_bytes());
                    message.extend_from_slice(&queues.end().to_le_bytes());
                }
                message
            }
            Self::Done(errno) => {
                let mut message = vec![DONE];
                message.extend_from_slice(&errno.to_le_bytes());
                message
            }
        }
    }

    /// Reads one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (&kind, body) = message.split_first().ok_or(Malformed::Empty)?;
        let wrong = || wrong_length(kind, body);
        match kind {
            DONE => Ok(Self::Done(i32::from_le_bytes(
                body.try_into().map_err(|_| wrong())?,
            ))),
            START => {
                let (parent, rest) = body.split_first_chunk::<4>().ok_or_else(wrong)?;
                let (generation, rest) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
                let (&events, rest) = rest.split_first().ok_or_else(wrong)?;
                let (&open, rest) = rest.split_first().ok_or_else(wrong)?;
                let (queues, rest) = rest.as_chunks::<4>();
                if open > 3 {
                    let found = open.into();
                    return Err(Malformed::Value { kind, found });
                }
                if !rest.is_empty() || queues.len() > MAX_QUEUES {
                    return Err(wrong());
                }
                Ok(Self::Start(Start {
                    parent: u32::from_le_bytes(*parent),
                    generation: u32::from_le_bytes(*generation),
                    queues: queues
                        .iter()
                        .map(|&[a, b, c, d]| u16::from_le_bytes([a, b])..=u16::from_le_bytes([c, d]))
                        .collect(),
                    open: Open {
                        metrics: open & 1 != 0,
                        status: open & 2 != 0,
                    },
                    events: match events {
                        0 => None,
                        1 => Some(false),
                        2 => Some(true),
                        _ => {
                            return Err(Malformed::Value {
                                kind,
                                found: events.into(),
                            });
                        }
                    },
                }))
            }
            _ => Err(Malformed::Kind(kind)),
        }
    }
}

fn wrong_length(kind: u8, body: &[u8]) -> Malformed {
    Malformed::Length {
        kind,
        found: body.len(),
    }
}

#[cfg(test)]
mod tests;
