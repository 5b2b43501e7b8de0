//! Kerberos tokens of a real KDC, taken by the real helper process: which are believed, and what happens without keys.

use crate::kdc::Kdc;
use crate::{PATIENCE, program, started, wait_until, write};
use libgssapi::context::{ClientCtx, CtxFlags};
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE};
use nuauth_server::auth::LoginError;
use nuauth_server::config::{Directories, Kerberos};
use nuauth_server::directory::{Directory, Hasher, KerberosSettings, Launch, Settings};
use nuauth_server::users::Users;
use nufw_proto::client::Refusal;
use nufw_proto::{LoginBytes, Mark};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const BINDING: &[u8] = b"p=tls-exporter,,exported";
const HOST: &str = "gw.example.org";
const SERVER: &str = "nuauth/gw.example.org";

/// Not a test: the process that plays the client, in an environment of its own. See [`Realm::token`].
#[test]
#[ignore = "runs as a part of the others"]
fn plays_the_client() {
    let Some(binding) = std::env::var_os("PLAY_BINDING") else {
        return;
    };
    let binding = binding.into_encoded_bytes();
    let target = Name::new(
        format!("nuauth@{HOST}").as_bytes(),
        Some(GSS_NT_HOSTBASED_SERVICE),
    )
    .unwrap();
    let mutual = CtxFlags::GSS_C_MUTUAL_FLAG;
    let flags = if std::env::var_os("PLAY_ALONE").is_some() {
        CtxFlags::empty()
    } else {
        mutual
    };
    let mut client = ClientCtx::new(None, target, flags, Some(GSS_MECH_KRB5));
    let binding = Some(&binding[..]).filter(|binding| !binding.is_empty());
    let token = client.step(None, binding).unwrap().unwrap();
    std::fs::write(std::env::var_os("PLAY_FILE").unwrap(), &*token).unwrap();
}

struct Realm {
    kdc: Kdc<'static>,
    keytab: PathBuf,
    dir: TempDir,
}

impl Realm {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Somebody may take a port between its choice and the start.
        let mut started = (0..5).map(|attempt| {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let place = dir.path().join(format!("realm{attempt}"));
            Kdc::start(&place, port, |program| Command::new(program))
        });
        let kdc = started.find_map(Result::ok).unwrap();
        kdc.add("alice", "wonderland").unwrap();
        let keytab = kdc.keytab(SERVER, "keytab").unwrap();
        let launch = format!(
            "#!/bin/sh\nKRB5_CONFIG={} exec {} \"$@\"\n",
            kdc.config().display(),
            program().display()
        );
        let script = dir.path().join("launch");
        write(&script, &launch);
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { kdc, keytab, dir }
    }

    async fn directory(&self) -> Directory {
        let settings = KerberosSettings {
            keytab: self.keytab.clone(),
            timeout: Duration::from_secs(4),
        };
        let launch = Launch {
            program: self.dir.path().join("launch"),
            user: None,
            system_user: None,
            sandbox: "best-effort".to_owned(),
        };
        let told = Settings {
            kerberos: Some(settings.clone()),
            ..Settings::default()
        };
        let calls = started(&launch).connect(told).await.unwrap();
        let directories = Directories {
            kerberos: Some(Kerberos {
                settings,
                realms: vec!["EXAMPLE.ORG".to_owned()],
            }),
            ..Directories::file_only()
        };
        let file = self.dir.path().join("users.toml");
        write(&file, "");
        let (mask, hasher) = (Mark(0x00ff_ffff), Hasher::start(1).unwrap());
        let users = Arc::new(Users::load(&file, mask).unwrap());
        Directory::new(users, directories, mask, hasher, Some(calls), PATIENCE)
    }

    /// A token for the server by the ticket in this file.
    fn token(&self, cache: &Path, binding: &[u8], is_mutual: bool) -> Vec<u8> {
        let file = self.dir.path().join("token");
        let mut play = Command::new(std::env::current_exe().unwrap());
        play.args(["--ignored", "--exact", "kerberos::plays_the_client"])
            .env("KRB5_CONFIG", self.kdc.config())
            .env("KRB5CCNAME", cache)
            .env("PLAY_BINDING", std::str::from_utf8(binding).unwrap())
            .env("PLAY_FILE", &file);
        if !is_mutual {
            play.env("PLAY_ALONE", "1");
        }
        let output = play.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        std::fs::read(&file).unwrap()
    }
}

async fn accept(directory: &Directory, token: &[u8]) -> Result<String, LoginError> {
    let token = LoginBytes::new(token.to_vec()).unwrap();
    let accepted = directory.accept_ticket(token, BINDING.to_vec()).await?;
    assert!(!accepted.answer.is_empty(), "the server proves itself");
    Ok(accepted.user)
}

/// Whose a token is, once the next worker runs.
async fn accepted_soon(directory: &Directory, token: &[u8]) -> String {
    for _ in 0..100 {
        if let Ok(user) = accept(directory, token).await {
            return user;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    accept(directory, token).await.unwrap()
}

fn why_refused(result: Result<String, LoginError>) -> String {
    match result {
        Err(error) if error.refusal() == Refusal::Credentials => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_believed_on_the_connection_that_it_is_bound_to() {
    let realm = Realm::new();
    let directory = realm.directory().await;
    let cache = realm.kdc.ticket("alice", "wonderland").unwrap();
    let good = realm.token(&cache, BINDING, true);
    assert_eq!(accept(&directory, &good).await.unwrap(), "alice");

    let elsewhere = realm.token(&cache, b"p=tls-exporter,,another", true);
    let why = why_refused(accept(&directory, &elsewhere).await);
    assert!(why.contains("Incorrect channel bindings"), "{why}");
    let unbound = realm.token(&cache, b"", true);
    let why = why_refused(accept(&directory, &unbound).await);
    assert!(why.contains("not bound to its TLS connection"), "{why}");
    let alone = realm.token(&cache, BINDING, false);
    let why = why_refused(accept(&directory, &alone).await);
    assert!(why.contains("does not want the server to prove itself"), "{why}");

    for cut in [0, 1, 2, 17, 18, 40, good.len() / 2, good.len() - 1] {
        why_refused(accept(&directory, &good[..cut]).await);
    }
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        // Some bits mean nothing to the library; whose token it is can none of them change.
        if let Ok(user) = accept(&directory, &bad).await {
            assert_eq!(user, "alice", "{at}");
        }
    }
    why_refused(accept(&directory, &vec![0x60; LoginBytes::MAX]).await);
    assert_eq!(
        accept(&directory, &good).await.unwrap(),
        "alice",
        "nothing broke it"
    );
}

#[tokio::test]
async fn without_keys_nothing_is_said_and_new_ones_count_by_themselves() {
    let realm = Realm::new();
    let directory = realm.directory().await;
    let cache = realm.kdc.ticket("alice", "wonderland").unwrap();
    let old = realm.token(&cache, BINDING, true);
    assert_eq!(accept(&directory, &old).await.unwrap(), "alice");

    // A key that was made again: tokens of tickets from before are of no use then.
    let renewed = realm.kdc.keytab(SERVER, "renewed").unwrap();
    std::fs::remove_file(&realm.keytab).unwrap();
    let unsaid = accept(&directory, &old).await.unwrap_err();
    assert_eq!(unsaid.refusal(), Refusal::Unavailable, "{unsaid}");
    std::fs::rename(&renewed, &realm.keytab).unwrap();
    let cache = realm.kdc.ticket("alice", "wonderland").unwrap();
    let new = realm.token(&cache, BINDING, true);
    assert_eq!(accepted_soon(&directory, &new).await, "alice");
    why_refused(accept(&directory, &old).await);
}

#[tokio::test]
async fn a_worker_that_is_killed_is_followed_by_another() {
    let realm = Realm::new();
    let directory = realm.directory().await;
    let cache = realm.kdc.ticket("alice", "wonderland").unwrap();
    let good = realm.token(&cache, BINDING, true);
    assert_eq!(accept(&directory, &good).await.unwrap(), "alice");
    let keytab = realm.keytab.display().to_string();
    let worker = || {
        let listed = std::fs::read_dir("/proc").unwrap().flatten();
        let mine = listed.filter(|entry| {
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (line, vars) = (read("cmdline"), read("environ"));
            String::from_utf8_lossy(&line).contains("directory-worker\0kerberos")
                && String::from_utf8_lossy(&vars).contains(&keytab)
        });
        let pids: Vec<i32> = mine
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids
    };
    let pids = worker();
    assert_eq!(pids.len(), 1, "{pids:?}");
    let pid = rustix::process::Pid::from_raw(pids[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("the worker to be gone", || !worker().contains(&pids[0]));
    assert_eq!(accepted_soon(&directory, &good).await, "alice");
}
