//! How sure it is that a session's user is who it says.

/// Least first: a rule asks for at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Quality {
    /// The address is known to be the user's; nobody showed a secret.
    Address,
    /// A password.
    #[default]
    Password,
    /// A client certificate.
    Certificate,
}

impl Quality {
    /// The word in access lists and rows.
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
