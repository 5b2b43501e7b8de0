//! What can be wrong with bytes from a peer, and with a message of our own.
//!
//! Every variant names who did what, since the message ends up in an administrator's log.

/// The peer's bytes are not a message of this protocol; its connection must be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length in the frame's header is above the limit of the moment.
    #[error("a frame of {found} bytes is larger than the {max} allowed here")]
    TooLarge {
        /// Bytes announced.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A reserved bit of the frame's flags is set.
    #[error("frame flags {0:#06x} have reserved bits set")]
    ReservedFlags(u16),
    /// A frame type that is not known here and not marked as ignorable.
    #[error("frame type {0} is not known here and may not be ignored")]
    UnknownType(u16),
    /// The body of a known frame type cannot be read.
    #[error("the body of a {message} frame of type {frame_type} is malformed: {fault}")]
    Malformed {
        /// Protocol and direction.
        message: &'static str,
        /// Type from the frame's header.
        frame_type: u16,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A whole message was read and bytes are left over.
    #[error("a {message} frame of type {frame_type} has {left} bytes too many")]
    TrailingBytes {
        /// Protocol and direction.
        message: &'static str,
        /// Type from the frame's header.
        frame_type: u16,
        /// Bytes left over.
        left: usize,
    },
}

/// A message of our own does not fit a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {found} bytes is larger than the {max} that a frame may carry")]
pub struct EncodeError {
    /// Bytes the message has.
    pub found: usize,
    /// Bytes allowed.
    pub max: usize,
}
