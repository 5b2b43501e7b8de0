//! The wire: every message that gateway agent, authentication server and client exchange, and how it is framed.
//!
//! Pure data: no I/O, no clock, no policy. `docs/protocol.md` is the prose of this crate; the two must agree.

#![forbid(unsafe_code)]

mod address;
pub mod client;
mod conntrack;
mod error;
mod frame;
pub mod gateway;
mod ids;
pub mod protocol;
mod text;
mod tuple;

pub use address::{Addr, MappedAddress};
pub use conntrack::{Count, Counters, CtEntry, CtEvent, CtEventKind, CtStatus, Removal, TcpState};
pub use error::{EncodeError, WireError};
pub use frame::{
    Decoded, FRAME_HEADER, Flags, MAX_BODY, MAX_GREETING_BODY, MAX_TICKET_BODY, Message, decode, encode,
    encode_ignorable,
};
pub use ids::{AskId, BadConnId, BootId, ClaimId, ConnId, DumpId, EventSeq, Mark, SessionId, Timestamp};
pub use text::{BadText, Batch, BatchTooLarge, LoginBytes, MAX_BATCH, Secret, SecretBytes, Text};
pub use tuple::{FamilyMismatch, IcmpKey, Ports, Transport, Tuple};

/// TCP port on which the server waits for gateway agents (IANA: nufw).
pub const GATEWAY_PORT: u16 = 4128;
/// TCP port on which the server waits for users' clients (IANA: nuauth).
pub const CLIENT_PORT: u16 = 4129;
/// ALPN protocol name of the gateway port: protocol and major version.
pub const GATEWAY_ALPN: &[u8] = b"nufw-gateway/1";
/// ALPN protocol name of the client port: protocol and major version.
pub const CLIENT_ALPN: &[u8] = b"nuauth-client/1";
