//! A worker: the process in which foreign code runs, LDAP's parser, a PAM module or a Kerberos library, and which may crash.
//!
//! It is told on its standard input what to ask, says on it what it heard, and ends when that ends.

use super::helper::standard_input;
use super::kerberos;
use super::ldap::Ldap;
use super::system;
use super::wire::{self, Answered, Reply, Settings, ToHelper};
use anyhow::{Context as _, anyhow};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::privileges;
use nufw_common::sandbox::{Family, Mode, Profile};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// Memory that a worker that lives on may have: an answer that is larger ends it, and not the host.
const MEMORY: u64 = 1 << 30;

/// What a worker asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Kind {
    /// An LDAP server, question after question.
    Ldap,
    /// PAM and NSS, once.
    System,
    /// The Kerberos library, token after token.
    Kerberos,
}

impl Kind {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ldap => "ldap",
            Self::System => "system",
            Self::Kerberos => "kerberos",
        }
    }
}

/// Runs a worker, on the socket that is its standard input.
pub(crate) fn run(kind: Kind, user: Option<&str>, sandbox: Mode) -> Result<(), Failure> {
    // Passwords are in its memory.
    limit(Resource::Core, 0);
    if let Some(user) = user {
        privileges::become_user(user, &[])?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a worker cannot start its runtime")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let mut stream = standard_input().or_exit(Exit::OsErr)?;
        let settings = match wire::read(&mut stream).await.or_exit(Exit::IoErr)? {
            Some(ToHelper::Settings(settings)) => *settings,
            None => return Ok(()),
            Some(ToHelper::Call(_)) => {
                return Err(Failure::new(
                    Exit::Software,
                    anyhow!("a worker was asked before it was told how"),
                ));
            }
        };
        match kind {
            Kind::Ldap => {
                // A thread that panics would leave questions unanswered; the next worker is a moment away.
                std::panic::set_hook(Box::new(|panic| {
                    tracing::warn!("the LDAP server's answer cannot be read: {panic}");
                    std::process::abort();
                }));
                limit(Resource::As, MEMORY);
                ask_ldap(stream, settings, sandbox).await
            }
            Kind::System => ask_system(stream, settings).await,
            Kind::Kerberos => {
                limit(Resource::As, MEMORY);
                take_tickets(stream, settings, sandbox).await
            }
        }
    })
}

fn limit(resource: Resource, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    // Without it a crash costs more, but nothing is wrong.
    let _ = setrlimit(resource, limit);
}

async fn ask_ldap(stream: UnixStream, settings: Settings, sandbox: Mode) -> Result<(), Failure> {
    let Some(settings) = settings.ldap else {
        return Err(Failure::new(
            Exit::Software,
            anyhow!("a worker for LDAP was not told how to ask it"),
        ));
    };
    // The runtime has no other thread so far.
    profile(&settings.url).apply(sandbox).or_exit(Exit::Unavailable)?;
    let ldap = Arc::new(Ldap::new(settings).or_exit(Exit::Config)?);
    // One thread, so that what asks need not be fit for others.
    tokio::task::LocalSet::new()
        .run_until(answer_all(stream, ldap))
        .await
}

async fn answer_all(stream: UnixStream, ldap: Arc<Ldap>) -> Result<(), Failure> {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    while let Some(message) = wire::read::<ToHelper>(&mut reader).await.or_exit(Exit::IoErr)? {
        let ToHelper::Call(call) = message else {
            continue;
        };
        let (ldap, writer) = (Arc::clone(&ldap), Arc::clone(&writer));
        tokio::task::spawn_local(async move {
            let reply = ldap.answer(&call.ask, call.secret.as_ref()).await;
            let _ = wire::write(&mut *writer.lock().await, &Answered { id: call.id, reply }).await;
        });
    }
    Ok(())
}

/// Reads certificates of the system's authorities, looks names up, connects to one port.
fn profile(url: &str) -> Profile {
    let profile = crate::sandbox::TRUSTED
        .iter()
        .fold(Profile::new("nuauth-server"), |profile, authority| {
            profile.read(*authority)
        })
        .family(Family::Unix);
    match crate::config::ldap_port(url) {
        Some(port) => profile.resolver().connect(port),
        None => profile,
    }
}

async fn ask_system(mut stream: UnixStream, settings: Settings) -> Result<(), Failure> {
    let Some(ToHelper::Call(call)) = wire::read(&mut stream).await.or_exit(Exit::IoErr)? else {
        return Ok(());
    };
    let reply = match settings.system {
        Some(settings) => system::answer(&settings, &call.ask, call.secret.as_ref()),
        None => Reply::CannotSay("its worker was not told how to ask".to_owned()),
    };
    let answered = Answered { id: call.id, reply };
    wire::write(&mut stream, &answered).await.or_exit(Exit::IoErr)
}

/// One after the other: none waits for anybody. A keytab that cannot be used may have been replaced by another file, which the next
/// worker may read.
async fn take_tickets(mut stream: UnixStream, settings: Settings, sandbox: Mode) -> Result<(), Failure> {
    let Some(settings) = settings.kerberos else {
        return Err(Failure::new(
            Exit::Software,
            anyhow!("a worker for Kerberos was not told where its keys are"),
        ));
    };
    kerberos_profile(&settings.keytab)
        .apply(sandbox)
        .or_exit(Exit::Unavailable)?;
    while let Some(message) = wire::read::<ToHelper>(&mut stream).await.or_exit(Exit::IoErr)? {
        let ToHelper::Call(call) = message else {
            continue;
        };
        let reply = kerberos::answer(&call.ask, call.secret.as_ref());
        let is_over = matches!(reply, Reply::CannotSay(_));
        let answered = Answered { id: call.id, reply };
        wire::write(&mut stream, &answered).await.or_exit(Exit::IoErr)?;
        if is_over {
            break;
        }
    }
    Ok(())
}

/// Reads its keys and the library's configuration, and connects to nothing: whose a ticket is, the keys tell.
fn kerberos_profile(keytab: &Path) -> Profile {
    let named = std::env::var("KRB5_CONFIG").unwrap_or_default();
    let usual = [
        "/etc/krb5.conf",
        "/etc/krb5.conf.d",
        "/etc/gss",
        "/var/lib/sss/pubconf",
    ];
    usual
        .into_iter()
        .chain(named.split(':').filter(|path| !path.is_empty()))
        .fold(Profile::new("nuauth-server"), Profile::read)
        .read(keytab)
}
