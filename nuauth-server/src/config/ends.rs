//! What becomes of connections whose right is over, and which refusals are told: `[policy]`, `[reject]`.
//!
//! Words only; what they do is the engine's part.

use crate::engine::{OnEnd, Rejects};
use nufw_common::config::HumanDuration;
use serde::Deserialize;
use std::path::PathBuf;

/// `"keep"` or `"kill"`.
#[derive(Debug, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOnEnd {
    Keep,
    Kill,
}

impl From<RawOnEnd> for OnEnd {
    fn from(raw: RawOnEnd) -> Self {
        match raw {
            RawOnEnd::Keep => Self::Keep,
            RawOnEnd::Kill => Self::Kill,
        }
    }
}

/// The choice that was made, or that things stay as they are.
pub(super) fn on_end(raw: Option<RawOnEnd>) -> OnEnd {
    raw.map(OnEnd::from).unwrap_or_default()
}

/// `"drop"` or `"reject"`.
#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawRefusal {
    Drop,
    Reject,
}

/// `[policy]`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawPolicyFile {
    pub(super) file: PathBuf,
    pub(super) on_reload: Option<RawOnEnd>,
    pub(super) kernel_ends_after: Option<HumanDuration>,
    pub(super) watch: Option<bool>,
}

/// `[reject]`
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the file")]
pub(super) struct RawReject {
    on_default: Option<RawRefusal>,
    on_timeout: Option<RawRefusal>,
    on_disclaimed: Option<RawRefusal>,
    on_nobody: Option<RawRefusal>,
}

impl RawReject {
    /// What is told where no rule says it.
    pub(super) fn rejects(&self) -> Rejects {
        let tells = |raw| raw == Some(RawRefusal::Reject);
        Rejects {
            timeout: tells(self.on_timeout),
            disclaimed: tells(self.on_disclaimed),
            nobody: tells(self.on_nobody),
        }
    }

    /// Whether that is told which no rule allows.
    pub(super) fn rejects_by_default(&self) -> bool {
        self.on_default == Some(RawRefusal::Reject)
    }
}
