//! Nfnetlink framing: message headers and attributes, read from and written to byte buffers.
//!
//! Knows `linux/netlink.h` and `linux/netfilter/nfnetlink.h`, nothing of any subsystem, and does no I/O. Whatever
//! bytes it is given, it answers with a value: it cannot panic and never reads past a message.

/// Bytes of `struct nlmsghdr`.
pub const NLMSG_HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`.
pub const NFGEN_HEADER: usize = 4;
/// Bytes of `struct nlattr`.
const ATTR_HEADER: usize = 4;
/// The bits of an attribute's type that are the type (`NLA_TYPE_MASK`).
const ATTR_TYPE_MASK: u16 = 0x3fff;

/// `NLMSG_ERROR`: an acknowledgement or a refusal.
pub const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 4;

/// Netlink aligns messages and attributes to four bytes.
const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// A datagram or an attribute list does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A header does not fit into what is left.
    #[error("{left} bytes are left where a header needs {needed}")]
    Header {
        /// Bytes needed.
        needed: usize,
        /// Bytes found.
        left: usize,
    },
    /// A length field says less than its own header or more than there is.
    #[error("a length of {found} was found where 4 to {left} are possible")]
    Length {
        /// The length field.
        found: usize,
        /// Bytes there are.
        left: usize,
    },
}

/// One netlink message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`: for nfnetlink the subsystem in the upper byte, its message in the lower.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// What an `NLMSG_ERROR` message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// 0 for an acknowledgement, else the positive errno.
    pub errno: i32,
    /// `nlmsg_type` of the request.
    pub request_kind: u16,
    /// `nlmsg_seq` of the request.
    pub request_sequence: u32,
    /// The resource id of the request's nfgenmsg (host order); a refusal repeats the whole request.
    pub request_resource: Option<u16>,
}

impl<'a> Message<'a> {
    /// The nfgenmsg family and resource id (host order) and the attributes after them.
    pub fn nfgen(&self) -> Result<(u8, u16, Attributes<'a>), Malformed> {
        let (head, rest) = split(self.body, NFGEN_HEADER)?;
        Ok((
            head[0],
            u16::from_be_bytes([head[2], head[3]]),
            Attributes { rest },
        ))
    }

    /// Reads the body as that of an `NLMSG_ERROR`.
    pub fn status(&self) -> Result<Status, Malformed> {
        let (code, rest) = split(self.body, 4)?;
        let (request, body) = split(rest, NLMSG_HEADER)?;
        Ok(Status {
            errno: i32::from_ne_bytes([code[0], code[1], code[2], code[3]]).saturating_neg(),
            request_kind: u16::from_ne_bytes([request[4], request[5]]),
            request_sequence: u32::from_ne_bytes([request[8], request[9], request[10], request[11]]),
            request_resource: match *body {
                [_, _, a, b, ..] => Some(u16::from_be_bytes([a, b])),
                _ => None,
            },
        })
    }
}

fn split(bytes: &[u8], needed: usize) -> Result<(&[u8], &[u8]), Malformed> {
    bytes.split_at_checked(needed).ok_or(Malformed::Header {
        needed,
        left: bytes.len(),
    })
}

/// The messages of one datagram, in order; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Reads the messages of a datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }

    fn read(&mut self) -> Result<Message<'a>, Malformed> {
        let (head, _) = split(self.rest, NLMSG_HEADER)?;
        let found =
            usize::try_from(u32::from_ne_bytes([head[0], head[1], head[2], head[3]])).unwrap_or(usize::MAX);
        let message = match self.rest.get(NLMSG_HEADER..found) {
            Some(body) => Message {
                kind: u16::from_ne_bytes([head[4], head[5]]),
                flags: u16::from_ne_bytes([head[6], head[7]]),
                sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
                body,
            },
            None => {
                return Err(Malformed::Length {
                    found,
                    left: self.rest.len(),
                });
            }
        };
        self.rest = self.rest.get(align(found)..).unwrap_or_default();
        Ok(message)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.read();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without the flag bits.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl Attribute<'_> {
    /// The value as a big-endian `u32`, as nfnetlink writes numbers.
    pub fn be32(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }
}

/// A list of attributes; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads the attributes in `bytes`, such as the value of a nested attribute.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn read(&mut self) -> Result<Attribute<'a>, Malformed> {
        let (head, _) = split(self.rest, ATTR_HEADER)?;
        let found = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = self.rest.get(ATTR_HEADER..found) else {
            return Err(Malformed::Length {
                found,
                left: self.rest.len(),
            });
        };
        let kind = u16::from_ne_bytes([head[2], head[3]]) & ATTR_TYPE_MASK;
        self.rest = self.rest.get(align(found)..).unwrap_or_default();
        Ok(Attribute { kind, value })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let attribute = self.read();
        if attribute.is_err() {
            self.rest = &[];
        }
        Some(attribute)
    }
}

/// Writes messages one after the other into one buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    started: usize,
}

impl Writer {
    /// Starts a message; the one before it is complete.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) {
        self.started = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.close_length();
    }

    /// Adds an attribute to the started message. A value longer than an attribute may be is cut, which the kernel
    /// refuses by its length; no caller writes one.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let value = value.get(..usize::from(u16::MAX) - ATTR_HEADER).unwrap_or(value);
        let length = u16::try_from(ATTR_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self.close_length();
    }

    /// Adds an attribute that holds a big-endian `u32`.
    pub fn attribute_be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn close_length(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.started).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(self.started..self.started + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// Everything written and not forgotten.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.started = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.begin(0x0301, NLM_F_REQUEST, 7, 2, 515);
        writer.attribute_be32(3, 0x0102_0304);
        writer.attribute(4, b"odd");
        writer.begin(0x0302, NLM_F_ACK, 8, 0, 1);
        let messages: Vec<_> = Messages::new(writer.bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].kind, messages[0].flags, messages[0].sequence),
            (0x0301, 1, 7)
        );
        let (family, resource, attributes) = messages[0].nfgen().unwrap();
        assert_eq!((family, resource), (2, 515));
        let attributes: Vec<_> = attributes.collect::<Result<_, _>>().unwrap();
        assert_eq!(attributes[0].be32(), Some(0x0102_0304));
        assert_eq!(
            attributes[1],
            Attribute {
                kind: 4,
                value: b"odd"
            }
        );
        assert_eq!(messages[1].nfgen().unwrap().1, 1);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut writer = Writer::default();
        writer.begin(1, 0, 1, 0, 0);
        writer.attribute_be32(1, 1);
        let good = writer.bytes().to_vec();
        for cut in 1..good.len() {
            assert!(
                Messages::new(&good[..cut]).next().unwrap().is_err(),
                "cut at {cut}"
            );
        }
        let mut short = good.clone();
        short[0] = 15;
        assert_eq!(
            Messages::new(&short).next().unwrap(),
            Err(Malformed::Length { found: 15, left: 28 })
        );
        let mut attribute = good;
        attribute[20] = 3;
        let message = Messages::new(&attribute).next().unwrap().unwrap();
        let all: Vec<_> = message.nfgen().unwrap().2.collect();
        assert_eq!(
            all,
            [Err(Malformed::Length { found: 3, left: 8 })],
            "and nothing after it"
        );
    }

    #[test]
    fn an_error_names_its_request() {
        let mut body = (-2i32).to_ne_bytes().to_vec();
        let mut request = Writer::default();
        request.begin(0x0301, NLM_F_REQUEST, 4711, 0, 12);
        body.extend_from_slice(request.bytes());
        let message = Message {
            kind: NLMSG_ERROR,
            flags: 0,
            sequence: 4711,
            body: &body,
        };
        assert_eq!(
            message.status(),
            Ok(Status {
                errno: 2,
                request_kind: 0x0301,
                request_sequence: 4711,
                request_resource: Some(12),
            })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic_it(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            for message in Messages::new(&bytes).flatten() {
                let _ = message.status();
                if let Ok((_, _, attributes)) = message.nfgen() {
                    prop_assert!(attributes.count() <= bytes.len());
                }
            }
            prop_assert!(Attributes::new(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
