//! Users from other back-ends than the file: a real LDAP server, servers that hang, lie and crash, PAM modules that do the
//! same, each asked by the real helper process.

#![cfg(test)]

#[cfg(feature = "kerberos")]
#[expect(unreachable_pub, reason = "it is the lab's, which gives it to others")]
#[path = "../../../tests/src/kdc.rs"]
mod kdc;
#[cfg(feature = "kerberos")]
mod kerberos;
mod ldap;
mod lies;
mod slapd;
mod system;

use nuauth_server::auth::{Login, LoginError};
use nuauth_server::config::{Backend, Directories};
use nuauth_server::directory::{Directory, Hasher, Helper, Launch, LdapSettings, Settings};
use nuauth_server::engine::Identity;
use nuauth_server::users::Users;
use nufw_proto::Mark;
use nufw_proto::client::Refusal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_nuauth-server"))
}

/// Everything from one back-end, asked by a helper of its own.
async fn directory(backend: Backend, settings: Settings, program: PathBuf) -> Directory {
    let launch = Launch {
        program,
        user: None,
        system_user: None,
        sandbox: "best-effort".to_owned(),
    };
    let calls = started(&launch).connect(settings).await.unwrap();
    let orders = Directories {
        password: vec![backend],
        identity: vec![backend],
        groups: vec![backend],
        cache_for: Duration::ZERO,
        ..Directories::file_only()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.toml");
    std::fs::write(&file, "").unwrap();
    let users = Arc::new(Users::load(&file, Mark(0x00ff_ffff)).unwrap());
    Directory::new(
        users,
        orders,
        Mark(0x00ff_ffff),
        Hasher::start(1).unwrap(),
        Some(calls),
        PATIENCE,
    )
}

/// Starts a helper. A process that another test was about to start may still have a script open that was just written.
fn started(launch: &Launch) -> Helper {
    loop {
        match Helper::start(launch) {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            started => return started.unwrap(),
        }
    }
}

async fn log_in(directory: &Directory, name: &str, password: &str) -> Result<Arc<Identity>, LoginError> {
    let response = format!("\0{name}\0{password}");
    directory
        .login(
            Login::parse("PLAIN", response.as_bytes(), None).unwrap(),
            Arc::new(|| Ok(())),
        )
        .await
}

/// Wrong credentials, which is what a client hears of a user that does not exist, too.
fn is_wrong(result: &Result<Arc<Identity>, LoginError>) -> bool {
    matches!(result, Err(error) if error.refusal() == Refusal::Credentials)
}

/// Why nothing can be said at the moment.
fn unsaid(result: Result<Arc<Identity>, LoginError>) -> String {
    match result {
        Err(error @ LoginError::CannotSay { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn groups(identity: &Identity) -> Vec<&str> {
    let mut groups: Vec<&str> = identity.groups.iter().map(AsRef::as_ref).collect();
    groups.sort_unstable();
    groups
}

fn ldap_settings(url: &str) -> LdapSettings {
    LdapSettings {
        url: url.to_owned(),
        start_tls: false,
        ca: None,
        bind_dn: None,
        bind_password: String::new(),
        user_dn: None,
        user_base: "ou=people,dc=example,dc=org".to_owned(),
        user_filter: "(uid={name})".to_owned(),
        name_attribute: "uid".to_owned(),
        id_attribute: "uidNumber".to_owned(),
        mark_attribute: None,
        member_of: Some("memberOf".to_owned()),
        group_base: None,
        group_filter: "(member={dn})".to_owned(),
        group_name: "cn".to_owned(),
        timeout: Duration::from_secs(4),
        connections: 4,
    }
}

async fn by_ldap(settings: LdapSettings) -> Directory {
    let settings = Settings {
        ldap: Some(settings),
        ..Settings::default()
    };
    directory(Backend::Ldap, settings, program()).await
}

/// Waits for something, with a deadline.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = nufw_common::clock::mono() + PATIENCE;
    while !is_so() {
        assert!(
            nufw_common::clock::mono() < deadline,
            "waited in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
