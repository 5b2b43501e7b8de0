use super::*;
use crate::pki::{Authority, Kind, Leaf, Period};
use nufw_common::clock;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use time::OffsetDateTime;

struct Lab(tempfile::TempDir);

fn period(days: i64) -> Period {
    let now = OffsetDateTime::from_unix_timestamp(clock::wall().micros() / 1_000_000).unwrap();
    Period {
        from: now - time::Duration::days(1),
        until: now + time::Duration::days(days),
    }
}

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        let authority = Authority::create(&lab.path("pki"), "test CA", period(3650), false).unwrap();
        let server = Leaf {
            kind: Kind::Server,
            name: "nuauth".to_owned(),
            addresses: vec![],
            period: period(800),
        };
        authority.issue(&server, false).unwrap();
        lab.write(
            "nuauth.toml",
            "[gateways]\nnames = [\"gw1\"]\n[tls]\ncertificate = \"pki/nuauth.crt\"\nkey = \"pki/nuauth.key\"\n\
             ca = \"pki/ca.crt\"\ncrl = \"pki/ca.crl\"\n[users]\nfile = \"users.toml\"\n[policy]\n\
             file = \"policy.toml\"\n[log]\ndatabase = \"sqlite:nulog.db\"\n",
        );
        lab.write(
            "users.toml",
            "[[user]]\nname = \"alice\"\nid = 1\ngroups = [\"staff\"]\n",
        );
        lab.write(
            "policy.toml",
            "[[rule]]\nname = \"web\"\ngroups = [\"staff\"]\nports = [80]\ndecision = \"accept\"\n",
        );
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, json: bool) -> (Result<(), Failure>, String) {
        let mut out = Vec::new();
        let result = run(&self.path("nuauth.toml"), &[], json, &mut out);
        let text = String::from_utf8(out).unwrap();
        (result, text.replace(&format!("{}/", self.0.path().display()), ""))
    }

    fn findings(&self, level: &str) -> Vec<String> {
        let (_, text) = self.run(false);
        text.lines()
            .filter(|line| line.starts_with(level))
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn what_is_right_is_printed_as_understood() {
    let (result, text) = Lab::new().run(false);
    result.unwrap();
    for expected in [
        "ok       configuration  nuauth.toml: server number 1, mark mask 0x00ffffff",
        "ok       gateways       listen on 0.0.0.0:4128, [::]:4128; known: gw1",
        "ok       clients        listen on 0.0.0.0:4129, [::]:4129; log in by EXTERNAL, PLAIN",
        "ok       revocation     pki/ca.crl: 0 certificates revoked",
        "ok       users          users.toml: 1 users, 0 with a password; groups: staff",
        "ok       back-ends      asked for passwords: file; for ids: file; for groups: file",
        "ok       rule           web: accept groups staff ports 80",
        "ok       database       sqlite:nulog.db: logged: sessions, drops, connections; packets are accepted after their row is on disk \
         unless their rule says otherwise",
        "0 errors, 0 warnings",
    ] {
        assert!(
            text.lines().any(|line| line == expected),
            "{expected}\nis missing from\n{text}"
        );
    }
    for expected in [
        "ok       certificate    pki/nuauth.crt: CN=nuauth until ",
        "ok       access lists   policy.toml: 1 rules, first-match, then drop; version ",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn json_is_one_object() {
    let lab = Lab::new();
    lab.write(
        "policy.toml",
        "[[rule]]\nname = \"x\"\nusers = [\"zoe\"]\ndecision = \"drop\"\n",
    );
    let (result, text) = lab.run(true);
    assert_eq!(result.unwrap_err().exit, Exit::Config);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["ok"], false);
    assert_eq!(object["errors"], 1);
    let findings = object["findings"].as_array().unwrap();
    let wrong = findings
        .iter()
        .find(|finding| finding["level"] == "error")
        .unwrap();
    assert_eq!(wrong["subject"], "access lists");
    assert_eq!(
        wrong["text"],
        "policy.toml:3: key rule[0].users[0]: found \"zoe\", expected the name of a user of the users file"
    );
}

#[test]
fn mistakes_in_every_file_are_found_in_one_run() {
    let lab = Lab::new();
    let key = lab.path("pki/nuauth.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o604)).unwrap();
    lab.write(
        "policy.toml",
        "[[rule]]\nname = \"x\"\ndecision = \"allow\"\n[[rule]]\ndecision = \"drop\"\n",
    );
    std::fs::write(
        lab.path("nuauth.toml"),
        std::fs::read_to_string(lab.path("nuauth.toml"))
            .unwrap()
            .replace("nulog.db", "absent/nulog.db"),
    )
    .unwrap();
    let (result, text) = lab.run(false);
    let failure = result.unwrap_err();
    assert_eq!(failure.exit, Exit::Config);
    assert!(
        failure
            .error
            .to_string()
            .ends_with("the server would not start (4 errors, see above)")
    );
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("ERROR")).collect();
    assert_eq!(
        errors,
        [
            "ERROR    certificates   private key pki/nuauth.key is readable by everybody (mode 0604); run: chmod 600 \
             pki/nuauth.key",
            "ERROR    access lists   policy.toml:3: key rule[0].decision: found string \"allow\", expected one of \
             \"accept\", \"drop\", \"reject\"",
            "ERROR    access lists   policy.toml:4: key rule[1].name is missing",
            &format!("ERROR    database       directory {} does not exist", "absent"),
        ]
    );
}

#[test]
fn a_wrong_configuration_file_is_all_that_is_said() {
    let lab = Lab::new();
    lab.write("nuauth.toml", "server-number = 0\n[gateways]\nnames = []\n");
    let text = lab.run(false).1;
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "ERROR    configuration  nuauth.toml:1: key server-number: found 0, expected a number from 1 to 16383",
            "ERROR    configuration  nuauth.toml:3: key gateways.names: found an empty list, expected the name of at \
             least one gateway",
            "ERROR    configuration  nuauth.toml: key tls is missing",
            "ERROR    configuration  nuauth.toml: key users is missing",
            "ERROR    configuration  nuauth.toml: key policy is missing",
            "5 errors, 0 warnings",
        ]
    );
}

#[test]
fn what_somebody_should_look_at_is_warned_of() {
    let lab = Lab::new();
    let hash = crate::users::tests::cheap_hash("x");
    lab.write(
        "users.toml",
        &format!("[[user]]\nname = \"a\"\nid = 1\npassword = '{hash}'\n"),
    );
    std::fs::set_permissions(lab.path("users.toml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let authority = Authority::open(&lab.path("pki")).unwrap();
    let soon = Leaf {
        kind: Kind::Server,
        name: "nuauth".to_owned(),
        addresses: vec![],
        period: period(7),
    };
    authority.issue(&soon, true).unwrap();
    let without_list = std::fs::read_to_string(lab.path("nuauth.toml"))
        .unwrap()
        .replace("crl = \"pki/ca.crl\"\n", "");
    lab.write("nuauth.toml", &without_list);
    let (result, _) = lab.run(false);
    result.unwrap();
    let warnings = lab.findings("WARNING");
    assert!(
        warnings[0].starts_with("WARNING  certificate    pki/nuauth.crt: CN=nuauth until "),
        "{warnings:?}"
    );
    assert_eq!(
        warnings[1..],
        [
            "WARNING  revocation     tls.crl is not set: a stolen certificate works until it expires",
            "WARNING  users          users.toml: everybody on this host may read the password hashes; run: chmod o= \
             users.toml",
            "WARNING  access lists   policy.toml:3: key rule[0].groups[0]: nobody is in group \"staff\"",
        ]
    );
}

#[test]
fn an_expired_certificate_is_an_error() {
    let lab = Lab::new();
    let authority = Authority::open(&lab.path("pki")).unwrap();
    let mut expired = Leaf {
        kind: Kind::Server,
        name: "nuauth".to_owned(),
        addresses: vec![],
        period: period(0),
    };
    expired.period.until -= time::Duration::hours(1);
    authority.issue(&expired, true).unwrap();
    let errors = lab.findings("ERROR");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with("ERROR    certificates   certificate pki/nuauth.crt: CN=nuauth expired on ")
    );
}

#[test]
fn what_leaves_no_row_by_choice_is_a_warning() {
    let lab = Lab::new();
    let rules = "[[rule]]\nname = \"dns\"\nprotocol = \"udp\"\ndecision = \"accept\"\nlog = \"none\"\n\
                 [[rule]]\nname = \"noise\"\nprotocol = \"tcp\"\ndecision = \"drop\"\nlog = \"none\"\n";
    lab.write("policy.toml", rules);
    let warnings = lab.findings("WARNING");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("rule \"dns\" says log = \"none\": what it accepts leaves no row"),
        "{warnings:?}"
    );
    assert!(
        lab.findings("ok")
            .iter()
            .any(|line| line.ends_with("noise: drop tcp; log none"))
    );
}

#[test]
fn a_level_that_accepts_without_a_row_is_a_warning() {
    let lab = Lab::new();
    lab.write(
        "policy.toml",
        "[[rule]]\nname = \"web\"\ndecision = \"accept\"\nlog = \"sync\"\n",
    );
    let config = std::fs::read_to_string(lab.path("nuauth.toml")).unwrap();
    lab.write(
        "nuauth.toml",
        &config.replace("[log]\n", "[log]\nlevels = [\"sessions\"]\n"),
    );
    let warnings = lab.findings("WARNING");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("every packet is accepted without a row"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].contains("rule \"web\" says log = \"sync\" in vain"),
        "{warnings:?}"
    );
}

#[test]
fn users_of_directories_and_weak_hashes_are_looked_at() {
    let lab = Lab::new();
    lab.write(
        "users.toml",
        "[[user]]\nname = \"carol\"\nid = 1\npassword = \"{SMD5}VAfQ6nCkaw9o3u+x706wnXNhbHRzYWx0\"\n",
    );
    lab.write(
        "policy.toml",
        "[[rule]]\nname = \"web\"\nusers = [\"zoe\"]\ngroups = [\"of-the-directory\"]\nports = [80]\ndecision = \"accept\"\n",
    );
    let configuration = std::fs::read_to_string(lab.path("nuauth.toml")).unwrap();
    let with = |users: &str, sections: &str| {
        let changed = configuration.replace(
            "[users]\n",
            &format!("[clients]\nmechanisms = [\"SCRAM-SHA-256\", \"PLAIN\"]\n[users]\n{users}"),
        );
        lab.write("nuauth.toml", &format!("{changed}{sections}"));
    };
    let ldap = "[users.ldap]\nurl = \"ldap://x\"\nstart-tls = false\nuser-base = \"dc=x\"\n";
    with("password = [\"file\", \"ldap\"]\nidentity = [\"ldap\"]\n", ldap);
    std::fs::set_permissions(lab.path("users.toml"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let (result, text) = lab.run(false);
    result.unwrap_or_else(|failure| panic!("{}\n{text}", failure.error));
    for line in [
        "WARNING  users          1 user with weak hashes of other systems: carol {SMD5}; give them new passwords by \
         nuauth-server hash-password",
        "ok       back-ends      asked for passwords: file, ldap; for ids: ldap; for groups: file",
        "WARNING  back-ends      users.ldap.start-tls is false: passwords of users go to the LDAP server in the clear",
        "WARNING  back-ends      clients.mechanisms has SCRAM-SHA-256, which clients prefer: whoever has no scram in the \
         users file must say --mechanism PLAIN",
        "WARNING  access lists   policy.toml:3: key rule[0].users[0]: \"zoe\" is not known, at least not before the first login",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line}\nis not in\n{text}"
        );
    }
    assert!(
        !text.contains("nobody is in group"),
        "groups of a directory are not known before: {text}"
    );
    // A file that the helper's settings need is looked for.
    let files = "bind-dn = \"cn=x\"\nbind-password-file = \"none\"\n";
    with("identity = [\"ldap\"]\n", &format!("{ldap}{files}"));
    let (result, text) = lab.run(false);
    assert!(
        result.is_err() && text.contains("ERROR    back-ends      cannot read none"),
        "{text}"
    );
}
