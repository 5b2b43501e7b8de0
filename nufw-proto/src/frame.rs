//! Framing: length, type, flags, body. The only place that knows how bytes become messages.
//!
//! A frame is an 8-byte header (body length u32, type u16, flags u16, all big-endian) and the body (postcard 1,
//! <https://postcard.jamesmunns.com/wire-format>). Reading from a socket is the caller's part.

use crate::{EncodeError, LoginBytes, WireError};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 8;
/// Most bytes in the body of a frame between peers that know each other.
pub const MAX_BODY: usize = 256 * 1024;
/// Most bytes in the body of a frame from a peer that has not logged in or said hello.
pub const MAX_GREETING_BODY: usize = 8 * 1024;
/// The same of the login of a client that was offered Kerberos, whose tickets are long.
pub const MAX_TICKET_BODY: usize = LoginBytes::MAX + 1024;

/// The flags of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A receiver that does not know the frame's type skips it instead of ending the connection.
    pub const IGNORABLE: Self = Self(1);

    fn from_bits(bits: u16) -> Result<Self, WireError> {
        if bits & !Self::IGNORABLE.0 != 0 {
            Err(WireError::ReservedFlags(bits))
        } else {
            Ok(Self(bits))
        }
    }
}

/// The messages of one direction of one protocol.
pub trait Message: Sized {
    /// Protocol and direction, for errors.
    const NAME: &'static str;

    /// The frame type of this message.
    fn frame_type(&self) -> u16;

    /// The flags that its frame is sent with.
    fn flags(&self) -> Flags {
        Flags::NONE
    }

    /// Appends the body to `out`.
    fn write_body(&self, out: &mut Vec<u8>);

    /// Reads the body of a frame; `None` when the type is not known.
    fn read_body(frame_type: u16, body: &[u8]) -> Option<Result<Self, WireError>>;
}

/// What [`decode`] found at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<M> {
    /// The frame is not complete: at least this many bytes must be in the buffer.
    NeedBytes(usize),
    /// A message, and the bytes that its frame took.
    Message(M, usize),
    /// A frame of unknown type that may be skipped, and the bytes that it took.
    Skipped(usize),
}

/// Appends `message` to `out` as one frame.
pub fn encode<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode_with(message, message.flags(), out)
}

/// Appends `message` to `out` as a frame that an older receiver may skip, whatever it is.
pub fn encode_ignorable<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode_with(message, Flags::IGNORABLE, out)
}

fn encode_with<M: Message>(message: &M, flags: Flags, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    message.write_body(out);
    let found = out.len() - start - FRAME_HEADER;
    let too_large = EncodeError { found, max: MAX_BODY };
    let Ok(length) = u32::try_from(found) else {
        out.truncate(start);
        return Err(too_large);
    };
    if found > MAX_BODY {
        out.truncate(start);
        return Err(too_large);
    }
    let header = &mut out[start..start + FRAME_HEADER];
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..6].copy_from_slice(&message.frame_type().to_be_bytes());
    header[6..].copy_from_slice(&flags.0.to_be_bytes());
    Ok(())
}

/// Reads the first frame of `buffer`, refusing bodies above `max_body` before they are complete.
pub fn decode<M: Message>(buffer: &[u8], max_body: usize) -> Result<Decoded<M>, WireError> {
    let Some((header, rest)) = buffer.split_first_chunk::<FRAME_HEADER>() else {
        return Ok(Decoded::NeedBytes(FRAME_HEADER));
    };
    let [l0, l1, l2, l3, t0, t1, f0, f1] = *header;
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let frame_type = u16::from_be_bytes([t0, t1]);
    let flags = Flags::from_bits(u16::from_be_bytes([f0, f1]))?;
    if length > max_body {
        return Err(WireError::TooLarge {
            found: length,
            max: max_body,
        });
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Decoded::NeedBytes(FRAME_HEADER + length));
    };
    let used = FRAME_HEADER + length;
    match M::read_body(frame_type, body) {
        Some(message) => Ok(Decoded::Message(message?, used)),
        None if flags == Flags::IGNORABLE => Ok(Decoded::Skipped(used)),
        None => Err(WireError::UnknownType(frame_type)),
    }
}

/// Appends to a borrowed buffer, which postcard itself wants to own.
struct Tail<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends one body. Writing fails only for types that postcard cannot hold (a map or list of unknown length), which
/// no message has; the round-trip tests of every message prove it.
pub(crate) fn write_postcard<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let written = postcard::serialize_with_flavor(value, Tail(out));
    debug_assert!(written.is_ok(), "a message of ours cannot be serialised");
}

pub(crate) fn read_postcard<T: DeserializeOwned>(
    message: &'static str,
    frame_type: u16,
    body: &[u8],
) -> Result<T, WireError> {
    let (value, left) = postcard::take_from_bytes(body).map_err(|error| WireError::Malformed {
        message,
        frame_type,
        fault: fault(&error),
    })?;
    if left.is_empty() {
        Ok(value)
    } else {
        Err(WireError::TrailingBytes {
            message,
            frame_type,
            left: left.len(),
        })
    }
}

/// What a refused body did wrong. Our own checks (limits, ranges, families) come as serde's custom error, of which
/// postcard keeps no text.
fn fault(error: &postcard::Error) -> &'static str {
    use postcard::Error;
    match error {
        Error::DeserializeUnexpectedEnd => "it ends before its message does",
        Error::DeserializeBadVarint => "a number is larger than its field",
        Error::DeserializeBadBool | Error::DeserializeBadOption => "a flag is neither 0 nor 1",
        Error::DeserializeBadUtf8 => "a text is not UTF-8",
        Error::SerdeDeCustom => "a value is not allowed in its field",
        _ => "it cannot be read",
    }
}

/// Declares the messages of one direction, each with its frame type, and those that an older receiver may skip as such.
macro_rules! messages {
    (
        $(#[$doc:meta])*
        $name:ident, $label:literal {
            $($(#[$variant_doc:meta])* $code:literal => $variant:ident($body:ty) $(as $flags:ident)?,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($body),)+
        }

        impl crate::Message for $name {
            const NAME: &'static str = $label;

            fn frame_type(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => $code,)+
                }
            }

            fn flags(&self) -> crate::Flags {
                match self {
                    $(Self::$variant(_) => [$(crate::Flags::$flags,)? crate::Flags::NONE][0],)+
                }
            }

            fn write_body(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(body) => crate::frame::write_postcard(body, out),)+
                }
            }

            fn read_body(frame_type: u16, body: &[u8]) -> Option<Result<Self, crate::WireError>> {
                match frame_type {
                    $($code => Some(crate::frame::read_postcard(Self::NAME, frame_type, body).map(Self::$variant)),)+
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use messages;
