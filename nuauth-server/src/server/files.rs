//! The files that a reload reads again: users, access lists, certificates, revocation list, what directories are asked with.
//!
//! All of them or none: opens nothing else, and changes nothing that runs.

use crate::config::ServerConfig;
use crate::control::PolicyInForce;
use crate::directory;
use crate::kept::Kept;
use crate::policy::{Against, Policy};
use crate::revocation::Revoked;
use crate::unlogged;
use crate::users::Users;
use nufw_common::clock;
use nufw_common::tls;
use std::path::PathBuf;
use std::sync::Arc;

/// What a reload replaces.
pub(super) struct Files {
    pub(super) users: Users,
    /// What those who ask other back-ends are told.
    pub(super) settings: directory::Settings,
    pub(super) policy: Policy,
    /// Where the access lists came from.
    pub(super) lists: Vec<PathBuf>,
    pub(super) for_gateways: Arc<rustls::ServerConfig>,
    pub(super) for_clients: Arc<rustls::ServerConfig>,
    pub(super) revoked: Revoked,
    pub(super) in_force: PolicyInForce,
}

impl Files {
    pub(super) fn load(config: &ServerConfig) -> anyhow::Result<Self> {
        let users = Users::load_with(&config.users, config.user_mask(), &config.directories.names)?;
        let weak = users.weak().len();
        if weak > 0 {
            tracing::warn!(
                users = weak,
                "passwords are kept with weak hashes of other systems; `nuauth-server check` names them"
            );
        }
        let against = Against {
            users: &users,
            all_known: config.directories.all_known(),
            marks: &config.marks,
        };
        let read = Policy::load(&config.policy, &against)?;
        let kept = Kept::beside(&config.log.spool.path);
        if let Err(error) = kept.keep(read.policy.version_text(), read.policy.normal()) {
            // Decisions do not hang on it.
            tracing::warn!(%error, "the access lists cannot be kept beside the spool: rows of theirs cannot be explained later");
        }
        let in_force = PolicyInForce {
            file: config.policy.display().to_string(),
            version: read.policy.version_text().to_owned(),
            read: clock::wall().micros(),
        };
        let known = |(_, user): &&(ipnet::IpNet, Arc<str>)| users.by_name(user).is_none();
        for (network, user) in config.identify.networks.iter().filter(known) {
            tracing::warn!(%network, "identify: there is no user \"{user}\" whom an address of this network could be");
        }
        for note in &read.notes {
            tracing::warn!("{note}");
        }
        for sentence in unlogged::warnings(config.engine.levels, &read.policy) {
            tracing::warn!("{sentence}");
        }
        Ok(Self {
            for_gateways: tls::server_config(&config.tls.for_gateways())?,
            for_clients: tls::server_config(&config.tls.for_clients())?,
            revoked: Revoked::load(config.tls.crl.as_deref())?,
            policy: read.policy.rejecting(config.rejects_by_default),
            lists: read.files,
            settings: config.directories.settings()?,
            users,
            in_force,
        })
    }
}
