//! What the worker may ask of the supervisor, and the answers: a closed list, decoded strictly.
//!
//! Bytes only. A request that is not on the list, or has a byte too many or too few, is refused; none carries bytes for
//! the kernel, so that nothing else can be sent in its name.

use crate::queue::Disposition;

/// Most verdicts of one request.
pub const MAX_VERDICTS: usize = 512;
/// Most queues that are handed over.
pub(super) const MAX_QUEUES: usize = 64;
/// Bytes of the longest message, either way.
pub(super) const MAX_MESSAGE: usize = 3 + MAX_VERDICTS * VERDICT;
/// Bytes of a verdict: packet id, code, mark, each a little-endian u32.
const VERDICT: usize = 12;

const READY: u8 = 1;
const BEAT: u8 = 2;
const VERDICTS: u8 = 3;
const DUMP: u8 = 4;
const RULES: u8 = 5;

const START: u8 = 1;
const DONE: u8 = 2;

/// What the worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// It has read its configuration and may be started; answered by [`Reply::Start`] when it is its turn.
    Ready,
    /// It is alive; not answered.
    Beat,
    /// Packets of one queue are decided; answered when the kernel has the verdicts.
    Verdicts {
        /// The queue.
        queue: u16,
        /// Packet ids and what becomes of them.
        verdicts: Vec<(u32, Disposition)>,
    },
    /// The connection table is to be read; answered with a socket from which it comes.
    Dump,
    /// The firewall's rules are to be listed; answered with a pipe from which they come.
    Rules,
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
    /// The queues, in the order of their sockets, which come first.
    pub queues: Vec<u16>,
    /// Whether the event socket comes after them, and whether its buffer was forced beyond the host's limit.
    pub events: Option<bool>,
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
            Self::Verdicts { queue, verdicts } => encode_verdicts(*queue, verdicts),
            Self::Dump => vec![DUMP],
            Self::Rules => vec![RULES],
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
            RULES => empty(Self::Rules),
            VERDICTS => decode_verdicts(body),
            _ => Err(Malformed::Kind(kind)),
        }
    }
}

/// Writes the request for verdicts without a copy of them; those beyond [`MAX_VERDICTS`] make it one that is refused.
pub(super) fn encode_verdicts(queue: u16, verdicts: &[(u32, Disposition)]) -> Vec<u8> {
    let mut message = Vec::with_capacity(3 + verdicts.len() * VERDICT);
    message.push(VERDICTS);
    message.extend_from_slice(&queue.to_le_bytes());
    for (packet_id, disposition) in verdicts {
        let (code, mark): (u32, u32) = match disposition {
            Disposition::Drop => (0, 0),
            Disposition::Accept { mark: None } => (1, 0),
            Disposition::Accept { mark: Some(mark) } => (2, *mark),
            Disposition::Repeat { mark: None } => (3, 0),
            Disposition::Repeat { mark: Some(mark) } => (4, *mark),
        };
        for number in [*packet_id, code, mark] {
            message.extend_from_slice(&number.to_le_bytes());
        }
    }
    message
}

fn decode_verdicts(body: &[u8]) -> Result<Request, Malformed> {
    let wrong = || wrong_length(VERDICTS, body);
    let (queue, records) = body.split_first_chunk::<2>().ok_or_else(wrong)?;
    let (records, rest) = records.as_chunks::<VERDICT>();
    if !rest.is_empty() || records.is_empty() || records.len() > MAX_VERDICTS {
        return Err(wrong());
    }
    let verdicts = records.iter().map(decode_verdict).collect::<Result<_, _>>()?;
    Ok(Request::Verdicts {
        queue: u16::from_le_bytes(*queue),
        verdicts,
    })
}

fn decode_verdict(record: &[u8; VERDICT]) -> Result<(u32, Disposition), Malformed> {
    let (numbers, _) = record.as_chunks::<4>();
    let number = |at: usize| {
        numbers
            .get(at)
            .copied()
            .map(u32::from_le_bytes)
            .unwrap_or_default()
    };
    let (packet_id, code, mark) = (number(0), number(1), number(2));
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
        _ => return Err(impossible(code)),
    };
    if matches!(code, 0 | 1 | 3) && mark != 0 {
        return Err(impossible(mark));
    }
    Ok((packet_id, disposition))
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
                for queue in &start.queues {
                    message.extend_from_slice(&queue.to_le_bytes());
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
                let (queues, rest) = rest.as_chunks::<2>();
                if !rest.is_empty() || queues.len() > MAX_QUEUES {
                    return Err(wrong());
                }
                Ok(Self::Start(Start {
                    parent: u32::from_le_bytes(*parent),
                    generation: u32::from_le_bytes(*generation),
                    queues: queues.iter().map(|queue| u16::from_le_bytes(*queue)).collect(),
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
