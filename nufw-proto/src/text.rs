//! Bounded strings and lists: what a peer sends can never be larger than its message may need.
//!
//! The limits are part of the protocol (docs/protocol.md names each one).

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// Most items that one batch may carry; a larger one is a protocol error.
pub const MAX_BATCH: usize = 1024;

/// A string of at most `MAX` bytes without control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text<const MAX: usize>(String);

/// A string is too long or holds a control character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// More bytes than the field may have.
    #[error("a text of {found} bytes is longer than the {max} that its field may have")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A control character, which could forge a log line.
    #[error("a text holds a control character")]
    Control,
}

impl<const MAX: usize> Text<MAX> {
    /// Takes the string if it fits.
    pub fn new(text: impl Into<String>) -> Result<Self, BadText> {
        let text = text.into();
        Self::check(&text)?;
        Ok(Self(text))
    }

    fn check(text: &str) -> Result<(), BadText> {
        if text.len() > MAX {
            return Err(BadText::TooLong {
                found: text.len(),
                max: MAX,
            });
        }
        if text.chars().any(char::is_control) {
            return Err(BadText::Control);
        }
        Ok(())
    }

    /// Takes as much of the string as fits, control characters replaced; for texts of our own making and for what
    /// the local host calls things (interfaces, programs).
    pub fn lossy(text: &str) -> Self {
        let mut clean = String::with_capacity(text.len().min(MAX));
        for c in text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }) {
            if clean.len() + c.len_utf8() > MAX {
                break;
            }
            clean.push(c);
        }
        Self(clean)
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Checks a peer's text before it is copied, so that one that is too long costs nothing.
struct TextVisitor<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
    type Value = Text<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {MAX} bytes without control characters")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<MAX>, E> {
        Text::<MAX>::check(text).map_err(E::custom)?;
        Ok(Text(text.to_owned()))
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        Self::new(text)
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A list of at most [`MAX_BATCH`] items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T>(Vec<T>);

/// A list has more items than a batch may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of {0} items is larger than the {MAX_BATCH} allowed")]
pub struct BatchTooLarge(pub usize);

impl<T> Batch<T> {
    /// The items.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Batch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for Batch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Batch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BatchVisitor(PhantomData))
    }
}

/// Stops at the first item too many: items can be far larger in memory than on the wire, so that a frame of small
/// ones must not be read to its end before it is refused.
struct BatchVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BatchVisitor<T> {
    type Value = Batch<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a batch of at most {MAX_BATCH} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<T>, A::Error> {
        let announced = seq.size_hint().unwrap_or(0);
        if announced > MAX_BATCH {
            return Err(A::Error::custom(BatchTooLarge(announced)));
        }
        let mut items = Vec::with_capacity(announced);
        while let Some(item) = seq.next_element()? {
            if items.len() == MAX_BATCH {
                return Err(A::Error::custom(BatchTooLarge(MAX_BATCH + 1)));
            }
            items.push(item);
        }
        Ok(Batch(items))
    }
}

impl<T> TryFrom<Vec<T>> for Batch<T> {
    type Error = BatchTooLarge;

    fn try_from(items: Vec<T>) -> Result<Self, BatchTooLarge> {
        if items.len() > MAX_BATCH {
            Err(BatchTooLarge(items.len()))
        } else {
            Ok(Self(items))
        }
    }
}

impl<T> From<Batch<T>> for Vec<T> {
    fn from(batch: Batch<T>) -> Self {
        batch.0
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// At most `MAX` bytes that no log and no debug print may show.
#[derive(Clone, Eq)]
pub struct Secret<const MAX: usize>(Vec<u8>);

/// A session token, a ticket, a server's part of a login.
pub type SecretBytes = Secret<4096>;

/// A client's part of a login. The longest are Kerberos tickets of users in many groups: Windows makes them up to 48,000 bytes (its
/// default `MaxTokenSize`).
pub type LoginBytes = Secret<65_536>;

impl<const MAX: usize> Secret<MAX> {
    /// Most bytes a secret may have.
    pub const MAX: usize = MAX;

    /// Takes the bytes if they fit.
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadText> {
        Self::check(bytes.len())?;
        Ok(Self(bytes))
    }

    fn check(found: usize) -> Result<(), BadText> {
        if found > Self::MAX {
            return Err(BadText::TooLong {
                found,
                max: Self::MAX,
            });
        }
        Ok(())
    }

    /// The secret itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> PartialEq for Secret<MAX> {
    /// Looks at every byte, wherever the first difference is: the time taken must not lead a guesser to a token.
    fn eq(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |bits, (a, b)| std::hint::black_box(bits | (a ^ b)));
        self.0.len() == other.0.len() && difference == 0
    }
}

impl<const MAX: usize> Serialize for Secret<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Bytes, not a list: no copy of the secret is made on the way.
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Secret<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(SecretVisitor::<MAX>)
    }
}

struct SecretVisitor<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for SecretVisitor<MAX> {
    type Value = Secret<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Secret<MAX>, E> {
        Secret::<MAX>::check(bytes.len()).map_err(E::custom)?;
        Ok(Secret(bytes.to_vec()))
    }
}

impl<const MAX: usize> TryFrom<Vec<u8>> for Secret<MAX> {
    type Error = BadText;

    fn try_from(bytes: Vec<u8>) -> Result<Self, BadText> {
        Self::new(bytes)
    }
}

impl<const MAX: usize> Drop for Secret<MAX> {
    fn drop(&mut self) {
        // Best effort: the compiler may keep copies, but the long-lived one goes.
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl<const MAX: usize> fmt::Debug for Secret<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}
