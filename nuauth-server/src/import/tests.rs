use super::*;
use crate::policy::{Against, Marks, Policy};
use crate::users::Users;
use nufw_proto::Mark;
use std::fs;

const CONF: &str = "\
# nuauth.conf
nufw_gw_addr=127.0.0.1
nuauth_client_listen_addr=\"0.0.0.0 [::]\"
nuauth_user_packet_port=4199
nuauth_log_users=9 # everything
nuauth_prio_to_nok=2
nuauth_packet_timeout=15
include \"nuauth.d/tls.conf\"
nuauth_reject_after_timeout=1
nuauth_reject_authenticated_drop=1
nuauth_number_usercheckers=3
nuauth_tls_max_clients=many
my_own_key=1
";
const TLS: &str = "nuauth_tls_key=\"/etc/nufw/key.pem\"\nnuauth_tls_auth_by_cert=1\nnuauth_log_users=2\n";
const ACLS: &str = "\
[ssh]
decision=1
gid=100,101
proto=6
DstIP=10.0.0.0/255.255.0.0
DstIP=fd00::1
DstPort=22,8000-8080
App=/usr/bin/ssh*
period=work
authquality=3
log_prefix=SSH
flags=1

[nobody]
decision=1

[ping]
gid=100
proto=1
type=8,0

[sold]
gid=100
period=unknown

[quiz]
decision=0
gid=100
DstPort=x
";
const PERIODS: &str = r#"<?xml version="1.0"?>
<periods>
  <period name="work" desc="work"><perioditem><days start="1" end="5"/><hours start="8" end="18"/></perioditem></period>
  <period name="short"><perioditem><duration length="600"/></perioditem></period>
  <period name="broken"><perioditem><hours start="18" end="8"/></perioditem></period>
</periods>
"#;
const USERS: &str = "\
alice:{SSHA}Kb1PRqyUVIEvVfvPbTfxRYZTFXSZAhvD:1001:100,101
bob:secret:1002:100
root:x:0:0
carol:*:1003:
dave:{SHA1}nuIS1gYYyBzYWzDZZlq6DS8YB2o=:1002:100
";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("nuauth.d")).unwrap();
        for (name, text) in [
            ("nuauth.conf", CONF),
            ("nuauth.d/tls.conf", TLS),
            ("acls.nufw", ACLS),
            ("periods.xml", PERIODS),
            ("users.nufw", USERS),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn import(&self, force: bool) -> Result<String, Failure> {
        let (conf, acls) = (self.path("nuauth.conf"), self.path("acls.nufw"));
        let (users, periods) = (self.path("users.nufw"), self.path("periods.xml"));
        let old = Old {
            conf: &conf,
            acls: Some(&acls),
            users: Some(&users),
            periods: Some(&periods),
        };
        let mut out = Vec::new();
        run(&old, &self.path("new"), force, false, &mut out)?;
        let text = String::from_utf8(out).unwrap();
        Ok(text.replace(&format!("{}/", self.0.path().display()), ""))
    }

    fn new_file(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path("new").join(name)).unwrap();
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn every_line_is_taken_over_or_named() {
    let report = Files::new().import(false).unwrap();
    says(
        &report,
        &[
            "nuauth.conf:2: nufw_gw_addr: which gateways may connect, their certificates say",
            "nuauth.conf:12: nuauth_tls_max_clients: found \"many\", expected a number above 0: left out",
            "nuauth.conf:13: my_own_key: no key of NuFW 2.4: left out",
            "acls.nufw:14: [nobody]: left out: without uid and gid it matched nobody",
            "acls.nufw:22: [sold]: left out: its period \"unknown\" is not among those",
            "acls.nufw:26: [quiz]: it refuses, and cannot be left out: the file is invalid until you have written it: \"x\" is no port",
            "periods.xml:5: broken: left out: its hours from 18 to 8 are none",
            "users.nufw:1: alice: its {SSHA} hash is taken over, but weak",
            "users.nufw:2: bob: its password stood there clear",
            "users.nufw:3: root: left out: its uid is no number above 0",
            "users.nufw:5: dave: left out: uid 1002 is that of bob",
        ],
    );
}

#[test]
fn the_last_definition_counts_as_in_nufw() {
    let files = Files::new();
    files.import(false).unwrap();
    let text = files.new_file("nuauth.toml");
    says(
        &text,
        &[
            "listen = [\"0.0.0.0:4199\", \"[::]:4199\"]",
            "# nuauth.d/tls.conf:3: nuauth_log_users\nlevels = 2",
            "key = \"/etc/nufw/key.pem\"",
            "mechanisms = [\"EXTERNAL\", \"PLAIN\"]",
            "on-timeout = \"reject\"",
            "on-default = \"reject\"",
        ],
    );
    let parsed: toml::Table = text.parse().unwrap();
    assert_eq!(parsed["tls"]["certificate"].as_str(), Some("nuauth-cert.pem"));
}

fn against(users: &Users) -> Against<'_> {
    static MARKS: std::sync::LazyLock<Marks> = std::sync::LazyLock::new(Marks::default);
    Against {
        users,
        all_known: true,
        marks: &MARKS,
    }
}

#[test]
fn a_rule_that_refuses_is_never_left_out_silently() {
    let files = Files::new();
    files.import(false).unwrap();
    let users = Users::load(&files.path("new/users.toml"), Mark(0xffff)).unwrap();
    let policy = files.path("new/policy.toml");
    let error = Policy::load(&policy, &against(&users)).unwrap_err().to_string();
    says(&error, &["policy.toml:", "decision", "write what"]);
}

#[test]
fn the_lists_and_users_of_nufw_load_as_ours() {
    let files = Files::new();
    let fine = ACLS.split("[quiz]").next().unwrap();
    fs::write(files.path("acls.nufw"), fine).unwrap();
    files.import(false).unwrap();
    let text = files.new_file("policy.toml");
    says(
        &text,
        &[
            "order = \"first-match\"",
            "[[period]]\nname = \"work\"\ndays = [\"mon-fri\"]\nhours = [\"08:00-18:00\"]\n",
            "[[period]]\nname = \"short\"\nduration = \"600s\"\n",
            "[[rule]]\nname = \"ssh\"\ngroups = [\"100\", \"101\"]\nprotocol = 6\ndestination = [\"10.0.0.0/16\", \"fd00::1/128\"]\n",
            "ports = [\"22\", \"8000-8080\"]\nprograms = [\"/usr/bin/ssh*\"]\nperiod = \"work\"\nlog-prefix = \"SSH\"\n",
            "min-auth = \"password\"\ndecision = \"accept\"\nlog = \"async\"\n",
            "name = \"ssh (too weak)\"",
            "name = \"ping type 0\"",
        ],
    );
    let users = Users::load(&files.path("new/users.toml"), Mark(0xffff)).unwrap();
    assert_eq!(users.len(), 3);
    let read = Policy::load(&files.path("new/policy.toml"), &against(&users)).unwrap();
    assert_eq!(read.policy.rules().len(), 4);
}

#[test]
fn a_file_that_is_there_is_replaced_only_on_demand() {
    let files = Files::new();
    files.import(false).unwrap();
    let failure = files.import(false).unwrap_err();
    assert_eq!(failure.exit, Exit::CantCreate);
    assert!(
        failure
            .error
            .to_string()
            .ends_with("nuauth.toml exists; --force replaces it")
    );
    files.import(true).unwrap();
}

#[test]
fn what_is_no_file_of_nufw_writes_nothing() {
    for (name, text, expected) in [
        ("nuauth.conf", "include \"nuauth.conf\"\n", "more than 10 deep"),
        (
            "nuauth.conf",
            "no setting\n",
            "nuauth.conf:1: found \"no setting\", expected key=value",
        ),
        ("nuauth.conf", "include \"none.conf\"\n", "cannot read"),
        ("periods.xml", "<periods><period>", "periods.xml:1: "),
    ] {
        let files = Files::new();
        fs::write(files.path(name), text).unwrap();
        let failure = files.import(false).unwrap_err();
        assert_eq!(failure.exit, Exit::DataErr);
        let error = format!("{:#}", failure.error);
        assert!(error.contains(expected), "{error}");
        assert!(!files.path("new").exists());
    }
}

#[test]
fn the_page_has_every_key() {
    let page = include_str!("../../../docs/migrating-from-nufw.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = keys::KEYS
        .iter()
        .map(|(key, to)| match to {
            keys::To::Key(ours, _) => format!("| `{key}` | `{ours}` |"),
            keys::To::With(ours) => format!("| `{key}` | into {ours} |"),
            keys::To::Gone(reason) => format!("| `{key}` | {reason} |"),
        })
        .collect();
    let missing: Vec<&String> = expected
        .iter()
        .filter(|row| !rows.contains(&row.as_str()))
        .collect();
    assert!(missing.is_empty(), "missing of the page:\n{missing:#?}");
    assert_eq!(
        rows.len(),
        expected.len(),
        "the page has rows that the program does not know"
    );
}
