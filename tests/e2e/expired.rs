//! Makes a certificate of the lab expire: the same name and purpose, valid in the past only.

use anyhow::Result;
use lab::{Lab, checked};

/// Replaces a certificate by one that has expired; `kind` is a word of `nuauth-server pki`.
pub(crate) fn expire_certificate(lab: &Lab, kind: &str, name: &str) -> Result<()> {
    let valid = [
        "--force",
        "--valid-from=2020-01-01T00:00:00Z",
        "--valid-until=2020-02-01T00:00:00Z",
    ];
    checked(lab.pki(&[kind, name])?.args(valid)).map(drop)
}
