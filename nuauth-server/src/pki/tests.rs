use super::*;
use crate::cli::{Cli, Next, dispatch};
use clap::Parser as _;
use nufw_common::tls::{self, ClientAuth, ClientTls, ServerTls};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.pki(&["init"]).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `pki COMMAND --dir DIR …` as the command line does; what it printed.
    fn pki(&self, args: &[&str]) -> Result<String, Failure> {
        let dir = self.0.path().to_str().unwrap();
        let words = ["nuauth-server", "pki", args[0], "--dir", dir];
        let cli = Cli::try_parse_from(words.iter().chain(&args[1..])).unwrap();
        let mut out = Vec::new();
        assert_eq!(dispatch(cli, &mut out)?, Next::Done);
        Ok(String::from_utf8(out).unwrap())
    }

    fn error(&self, args: &[&str]) -> (Exit, String) {
        let failure = self.pki(args).unwrap_err();
        let text = failure
            .error
            .to_string()
            .replace(&format!("{}", self.0.path().display()), "DIR");
        (failure.exit, text)
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    fn with_certificate<T>(&self, name: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let chain = tls::load_certs("certificate", &self.path(name)).unwrap();
        look(&X509Certificate::from_der(&chain[0]).unwrap().1)
    }

    fn revoked(&self) -> Vec<Vec<u8>> {
        let lists = tls::load_crls(&self.path("ca.crl")).unwrap();
        let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
        list.iter_revoked_certificates()
            .map(|entry| entry.raw_serial().to_vec())
            .collect()
    }
}

fn serial(dir: &Dir, name: &str) -> Vec<u8> {
    dir.with_certificate(name, |certificate| certificate.raw_serial().to_vec())
}

#[test]
fn an_authority_is_made_with_an_empty_list_and_a_private_key() {
    let dir = Dir::new();
    assert_eq!(dir.mode("ca.key"), 0o600);
    assert_eq!(dir.mode("ca.crt"), 0o644);
    assert_eq!(dir.revoked(), Vec::<Vec<u8>>::new());
    dir.with_certificate("ca.crt", |ca| {
        assert!(ca.is_ca());
        let usage = ca.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign());
        let days = (ca.validity().not_after.timestamp() - ca.validity().not_before.timestamp()) / 86_400;
        assert_eq!(days, 3650);
    });
    assert_eq!(
        dir.error(&["init"]),
        (
            Exit::CantCreate,
            "DIR/ca.crt exists; --force replaces it".to_owned()
        )
    );
    let before = serial(&dir, "ca.crt");
    dir.pki(&["init", "--force"]).unwrap();
    assert_ne!(serial(&dir, "ca.crt"), before);
}

#[test]
fn the_kinds_cannot_play_each_others_part() {
    let dir = Dir::new();
    dir.pki(&[
        "server",
        "nuauth",
        "--address",
        "192.0.2.1",
        "--address",
        "nuauth.example",
    ])
    .unwrap();
    dir.pki(&["gateway", "gw1"]).unwrap();
    dir.pki(&["client", "alice"]).unwrap();
    let facts = |name: &str| {
        let file = format!("{name}.crt");
        assert_eq!(dir.mode(&format!("{name}.key")), 0o600);
        let usage = dir.with_certificate(&file, |certificate| {
            assert!(!certificate.is_ca());
            let serial = certificate.raw_serial();
            assert!(serial.len() == 16 && serial[0] < 0x80, "{serial:x?}");
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            (usage.server_auth, usage.client_auth)
        });
        let names = tls::peer_names(&tls::load_certs("certificate", &dir.path(&file)).unwrap()).unwrap();
        assert_eq!(names.common_name.as_deref(), Some(name));
        (usage, names.dns)
    };
    let (server, gateway, client) = (facts("nuauth"), facts("gw1"), facts("alice"));
    assert_eq!(
        server,
        (
            (true, false),
            vec!["nuauth".to_owned(), "nuauth.example".to_owned()]
        )
    );
    assert_eq!(gateway, ((false, true), vec!["gw1".to_owned()]));
    assert_eq!(client, ((false, true), vec![]));
    dir.with_certificate("nuauth.crt", |certificate| {
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        assert!(
            format!("{names:?}").contains("IPAddress([192, 0, 2, 1])"),
            "{names:?}"
        );
    });
}

#[test]
fn what_is_made_is_what_tls_takes() {
    let dir = Dir::new();
    dir.pki(&["server", "nuauth"]).unwrap();
    dir.pki(&["gateway", "gw1"]).unwrap();
    let file = |name: &str| dir.path(name);
    tls::server_config(&ServerTls {
        cert: file("nuauth.crt"),
        key: file("nuauth.key"),
        ca: file("ca.crt"),
        crl: Some(file("ca.crl")),
        alpn: b"x".to_vec(),
        client_auth: ClientAuth::Required,
    })
    .unwrap();
    tls::client_config(&ClientTls {
        ca: file("ca.crt"),
        crl: Some(file("ca.crl")),
        cert_key: Some((file("gw1.crt"), file("gw1.key"))),
        alpn: b"x".to_vec(),
    })
    .unwrap();
}

#[test]
fn revocation_is_kept_in_the_list_and_happens_once() {
    let dir = Dir::new();
    for user in ["alice", "bob"] {
        dir.pki(&["client", user]).unwrap();
    }
    let said = dir.pki(&["revoke", "alice"]).unwrap();
    assert!(
        said.contains("copy the list to every server and gateway"),
        "{said}"
    );
    assert_eq!(dir.revoked(), [serial(&dir, "alice.crt")]);
    dir.pki(&["revoke", "bob"]).unwrap();
    assert_eq!(
        dir.revoked(),
        [serial(&dir, "alice.crt"), serial(&dir, "bob.crt")]
    );
    assert_eq!(
        dir.error(&["revoke", "bob"]),
        (
            Exit::DataErr,
            "certificate DIR/bob.crt is revoked already".to_owned()
        )
    );
    let lists = tls::load_crls(&dir.path("ca.crl")).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
    assert_eq!(list.crl_number().map(ToString::to_string).as_deref(), Some("3"));
}

#[test]
fn certificates_of_others_are_not_revoked() {
    let (ours, theirs) = (Dir::new(), Dir::new());
    theirs.pki(&["client", "mallory"]).unwrap();
    std::fs::copy(theirs.path("mallory.crt"), ours.path("mallory.crt")).unwrap();
    assert_eq!(
        ours.error(&["revoke", "mallory"]),
        (
            Exit::DataErr,
            "certificate DIR/mallory.crt is not from the authority in this directory".to_owned()
        )
    );
    assert!(
        ours.error(&["revoke", "nobody"])
            .1
            .contains("No such file or directory")
    );
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let dir = Dir::new();
    dir.pki(&["client", "alice"]).unwrap();
    let before = serial(&dir, "alice.crt");
    assert_eq!(
        dir.error(&["client", "alice"]),
        (
            Exit::CantCreate,
            "DIR/alice.crt exists; --force replaces it".to_owned()
        )
    );
    assert_eq!(serial(&dir, "alice.crt"), before);
    let said = dir.pki(&["client", "alice", "--force"]).unwrap();
    assert!(said.contains("stays valid"), "{said}");
    assert_ne!(serial(&dir, "alice.crt"), before);
    let left: Vec<_> = std::fs::read_dir(dir.0.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 5, "no temporary files are left: {left:?}");
}

#[test]
fn names_stay_within_the_directory() {
    let dir = Dir::new();
    for name in ["../x", "a/b", ".hidden", "ca", "", "a\nb"] {
        let (exit, text) = dir.error(&["client", name]);
        assert_eq!(exit, Exit::Usage, "{text}");
        assert!(text.contains("cannot be the name of a user"), "{text}");
    }
    let long = "x".repeat(65);
    assert!(
        dir.error(&["gateway", &long])
            .1
            .ends_with("it must have 1 to 64 bytes")
    );
    assert_eq!(
        dir.error(&["server", "nuauth", "--address", "not a host"]).1,
        "\"not a host\" cannot be the name of a host: it is neither an address nor a host name"
    );
    dir.pki(&["client", "Jos\u{e9} P\u{e9}rez@example.org"]).unwrap();
}

#[test]
fn the_period_can_be_chosen() {
    let dir = Dir::new();
    dir.pki(&["client", "short", "--days", "2"]).unwrap();
    dir.pki(&[
        "client",
        "old",
        "--valid-from",
        "2020-01-01T00:00:00Z",
        "--valid-until",
        "2021-01-01T00:00:00Z",
    ])
    .unwrap();
    dir.pki(&["client", "usual"]).unwrap();
    let days = |name: &str| {
        dir.with_certificate(name, |certificate| {
            let validity = certificate.validity();
            (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400
        })
    };
    assert_eq!(
        (days("short.crt"), days("old.crt"), days("usual.crt")),
        (2, 366, 825)
    );
    let old = dir.path("old.crt");
    let error = tls::check_validity(
        "certificate",
        &old,
        &tls::load_certs("certificate", &old).unwrap()[0],
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("CN=old expired on Jan  1 00:00:00 2021")
    );
    assert_eq!(
        dir.error(&[
            "client",
            "never",
            "--valid-from",
            "2021-01-01T00:00:00Z",
            "--valid-until",
            "2020-01-01T00:00:00Z"
        ]),
        (
            Exit::Usage,
            "a certificate cannot be valid from 2021-01-01T00:00:00Z until 2020-01-01T00:00:00Z".to_owned()
        )
    );
}

#[test]
fn without_an_authority_the_command_for_one_is_named() {
    let dir = Dir(tempfile::tempdir().unwrap());
    assert_eq!(
        dir.error(&["client", "alice"]),
        (
            Exit::NoInput,
            "there is no certificate authority in DIR; make one with: nuauth-server pki init --dir DIR"
                .to_owned()
        )
    );
    assert!(Path::new(&dir.path("alice.crt")).symlink_metadata().is_err());
}
