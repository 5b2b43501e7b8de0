//! How sure it is that a session's user is who it says.

/// Least first: what a rule asks for is met by this quality and every better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Quality {
    /// Nobody said it but the address.
    Address,
    /// A password was shown.
    #[default]
    Password,
    /// A certificate was shown, and its key.
    Certificate,
}

impl Quality {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Password => "password",
            Self::Certificate => "certificate",
        }
    }

    /// The quality of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Address, Self::Password, Self::Certificate]
            .into_iter()
            .find(|quality| quality.word() == word)
    }
}
