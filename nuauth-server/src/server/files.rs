//! The files that a reload reads again: users, access lists, certificates, revocation list, what directories are asked with.
//!
//! All of them or none: opens nothing else, and changes nothing that runs.

use crate::config::ServerConfig;
use crate::control::PolicyInForce;
use crate::directory;
use crate::policy::Policy;
use crate::revocation::Revoked;
use crate::tickets;
use crate::unlogged;
use crate::users::Users;
use nufw_common::clock;
use nufw_common::tls;
use std::path::Path;
use std::sync::Arc;

/// What a reload replaces.
pub(super) struct Files {
    pub(super) users: Users,
    /// What those who ask other back-ends are told.
    pub(super) settings: directory::Settings,
    pub(super) policy: Policy,
    pub(super) for_gateways: Arc<rustls::ServerConfig>,
    pub(super) for_clients: Arc<rustls::ServerConfig>,
    pub(super) revoked: Revoked,
    pub(super) in_force: PolicyInForce,
}

impl Files {
    pub(super) fn load(config: &ServerConfig) -> anyhow::Result<Self> {
        let users = Users::load_with(&config.users, config.mark_mask, &config.directories.names)?;
        let weak = users.weak().len();
        if weak > 0 {
            tracing::warn!(
                users = weak,
                "passwords are kept with weak hashes of other systems; `nuauth-server check` names them"
            );
        }
        let read = Policy::load(&config.policy, &users, config.directories.all_known())?;
        let in_force = in_force(&config.policy);
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
            settings: config.directories.settings()?,
            users,
            in_force,
        })
    }
}

/// Which access lists these are, for people who compare.
fn in_force(path: &Path) -> PolicyInForce {
    let version = std::fs::read(path).map(|bytes| tickets::digest(&bytes));
    PolicyInForce {
        file: path.display().to_string(),
        version: version.unwrap_or_default(),
        read: clock::wall().micros(),
    }
}
