//! One look at the firewall's rules, by whoever may look: loading them again first, where that is due, then listing them.
//!
//! What is seen is judged elsewhere.

use crate::agent::Load;
use crate::check::{Listings, lend_net_admin};
use serde::{Deserialize, Serialize};

/// What one look brought.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Looked {
    /// Why the rules were not loaded, where they were to be.
    pub not_loaded: Option<String>,
    /// What the listing commands print.
    pub listings: Listings,
}

impl Looked {
    /// Looks, on a thread that ends afterwards: it lends its capability to the commands.
    pub fn with_lent_rights(load: Option<&Load>) -> Self {
        lend_net_admin();
        let loaded = load.map(|load| load());
        Self {
            not_loaded: loaded.and_then(Result::err).map(|error| error.to_string()),
            listings: Listings::list(),
        }
    }
}
