//! Who is asked about users, put together: the threads that check passwords of the file, and the helper process.
//!
//! Outlives every reload, which makes another [`Directory`] on top of it.

use super::{Calls, Directory, Hasher, Helper, Launch, Settings};
use crate::config::ServerConfig;
use crate::users::Users;
use anyhow::Context as _;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use std::sync::Arc;
use std::time::Duration;

/// How much earlier than the client is given up the back-ends are.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Who is asked.
pub(crate) struct Sources {
    hasher: Arc<Hasher>,
    remote: Option<Calls>,
}

/// Starts the process that asks other back-ends than the users file, where there are any.
pub(crate) fn helper(config: &ServerConfig) -> Result<Option<Helper>, Failure> {
    if !config.directories.needs_helper() {
        return Ok(None);
    }
    let launch = Launch {
        program: std::env::current_exe()
            .context("this program's own path cannot be had")
            .or_exit(Exit::OsErr)?,
        user: config.privileges.user.clone(),
        system_user: config
            .directories
            .system
            .as_ref()
            .and_then(|system| system.user.clone()),
        sandbox: config.privileges.sandbox.to_string(),
    };
    Helper::start(&launch)
        .context("the helper process that asks directories cannot be started")
        .or_exit(Exit::OsErr)
        .map(Some)
}

impl Sources {
    /// Starts the threads, and begins to ask the helper.
    pub(crate) async fn start(
        config: &ServerConfig,
        settings: Settings,
        helper: Option<Helper>,
    ) -> Result<Self, Failure> {
        let hasher = Hasher::start(config.ports.password_checks)
            .context("the threads that check passwords cannot be started")
            .or_exit(Exit::OsErr)?;
        let remote = match helper {
            None => None,
            Some(helper) => Some(helper.connect(settings).await.or_exit(Exit::OsErr)?),
        };
        Ok(Self { hasher, remote })
    }

    /// What answers logins: the users file that was read, and who is asked beside it.
    pub(crate) fn directory(&self, config: &ServerConfig, users: Users) -> Directory {
        if config.directories.needs_helper() && self.remote.is_none() {
            tracing::error!(
                "users.ldap, users.system and users.kerberos count from the next start: nothing asks them so far"
            );
        }
        Directory::new(
            Arc::new(users),
            config.directories.clone(),
            config.user_mask(),
            Arc::clone(&self.hasher),
            self.remote.clone(),
            config.ports.greeting_timeout.saturating_sub(LAST_WORD),
        )
    }

    /// The helper process, if there is one.
    pub(crate) fn remote(&self) -> Option<Calls> {
        self.remote.clone()
    }
}
