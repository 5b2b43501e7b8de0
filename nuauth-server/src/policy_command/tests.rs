use super::*;
use crate::cli::{Cli, Next, dispatch};
use clap::Parser as _;
use std::fs;

const POLICY: &str = "\
[[rule]]\nname = \"no-telnet\"\nprotocol = \"tcp\"\nports = [23]\ndecision = \"reject\"\n\
[[rule]]\nname = \"admins\"\ngroups = [\"admins\"]\ndecision = \"accept\"\n\
[[rule]]\nname = \"ssh\"\nusers = [\"alice\"]\nprograms = [\"/usr/bin/ssh\"]\nports = [22]\ndecision = \"accept\"\n";

struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.write(
            "nuauth.toml",
            "[gateways]\nnames = [\"gw1\"]\n[tls]\ncertificate = \"a\"\nkey = \"b\"\nca = \"c\"\n[users]\nfile = \"users.toml\"\n\
             [policy]\nfile = \"policy.toml\"\n[log]\ndatabase = \"sqlite:nulog.db\"\n",
        );
        lab.write(
            "users.toml",
            "[[user]]\nname = \"alice\"\nid = 1\ngroups = [\"staff\"]\n",
        );
        lab.write("policy.toml", POLICY);
        lab
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> (Result<Next, Failure>, String) {
        let config = self.path("nuauth.toml");
        let args = [&["nuauth-server", "-f", &config, "policy"], args].concat();
        let mut out = Vec::new();
        let result = dispatch(Cli::try_parse_from(args).unwrap(), &mut out);
        let text = String::from_utf8(out).unwrap();
        (result, text.replace(&format!("{}/", self.0.path().display()), ""))
    }

    fn lines(&self, args: &[&str]) -> Vec<String> {
        let (result, text) = self.run(args);
        result.unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn json(&self, args: &[&str]) -> Value {
        let (_, text) = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }
}

#[test]
fn a_test_tells_the_rule_and_why_no_earlier_one_decides() {
    let lab = Lab::new();
    let lines = lab.lines(&[
        "test",
        "--user",
        "alice",
        "--app",
        "/usr/bin/ssh",
        "10.0.0.5:4000",
        "10.1.0.9:22",
    ]);
    assert_eq!(
        lines[..3],
        [
            "accept by rule \"ssh\" (policy.toml:11): users alice ports 22 programs /usr/bin/ssh",
            "  not \"no-telnet\" (policy.toml:2): the port is 22, not 23",
            "  not \"admins\" (policy.toml:7): the user is alice, not groups admins",
        ]
    );
    let object = lab.json(&["test", "10.0.0.5:4000", "10.1.0.9:22"]);
    assert_eq!(
        (&object["decision"], &object["rule"]),
        (&"drop".into(), &"default".into())
    );
    let why: Vec<&str> = object["not"]
        .as_array()
        .unwrap()
        .iter()
        .map(|not| not["why"].as_str().unwrap())
        .collect();
    assert_eq!(
        why,
        [
            "the port is 22, not 23",
            "nobody is logged in there; the rule is for groups admins",
            "nobody is logged in there; the rule is for users alice",
        ]
    );
    // Somebody whom another back-end has, and what another group would change.
    let ends = ["10.0.0.5:4000", "10.1.0.9:80"];
    let of_other = ["test", "--user", "zoe", "--id", "4711"];
    let lines = lab.lines(&[&of_other[..], &["--group", "admins"], &ends].concat());
    assert!(lines[0].starts_with("accept by rule \"admins\""), "{lines:?}");
    let lines = lab.lines(&[&of_other[..], &ends].concat());
    assert!(lines[0].starts_with("drop, since no rule matches"), "{lines:?}");
    let lines = lab.lines(&[&["test", "--user", "alice", "--group", "admins"][..], &ends].concat());
    assert!(lines[0].starts_with("accept by rule \"admins\""), "{lines:?}");
    for (args, exit) in [
        (&["test", "10.0.0.5:4000", "::1"][..], Exit::Usage),
        (&["test", "10.0.0.5", "10.1.0.9"], Exit::Usage),
        (
            &["test", "--user", "zoe", "10.0.0.5:1", "10.1.0.9:2"],
            Exit::DataErr,
        ),
    ] {
        assert_eq!(lab.run(args).0.unwrap_err().exit, exit, "{args:?}");
    }
    lab.lines(&[
        "test",
        "--protocol",
        "icmp",
        "--icmp",
        "3/1",
        "10.0.0.5",
        "10.1.0.9",
    ]);
}

#[test]
fn a_check_names_every_mistake_and_what_is_odd() {
    let lab = Lab::new();
    let lines = lab.lines(&["check"]);
    assert!(
        lines[0].starts_with("WARNING  policy.toml:8: key rule[1].groups[0]: nobody is in group"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("policy.toml: 3 rules, first-match, version "),
        "{lines:?}"
    );
    lab.write(
        "bad.toml",
        "[[rule]]\nname = \"x\"\nusers = [\"zoe\"]\ndecision = \"dorp\"\n",
    );
    let bad = lab.path("bad.toml");
    let failure = lab.run(&["check", &bad]).0.unwrap_err();
    assert_eq!(failure.exit, Exit::Config);
    assert!(
        failure
            .error
            .to_string()
            .contains("bad.toml:4: key rule[0].decision: found string \"dorp\"")
    );
    assert_eq!(lab.json(&["check", &bad])["ok"], false);
}

#[test]
fn what_is_shown_can_be_read_again_and_differs_in_nothing() {
    let lab = Lab::new();
    let (_, shown) = lab.run(&["show"]);
    lab.write("shown.toml", &shown);
    let (old, new) = (lab.path("policy.toml"), lab.path("shown.toml"));
    assert_eq!(lab.run(&["diff", &old, &new]).0.unwrap(), Next::Done);
    lab.write(
        "changed.toml",
        &POLICY.replace("ports = [22]", "ports = [22, 2222]"),
    );
    let changed = lab.path("changed.toml");
    let (result, text) = lab.run(&["diff", &old, &changed]);
    assert_eq!(result.unwrap(), Next::Differs);
    assert_eq!(
        text,
        "rule \"ssh\" is changed\n- ports = [\"22\"]\n+ ports = [\"22\", \"2222\"]\n"
    );
}

mod of_the_log {
    use super::*;
    use nufw_proto::{ConnId, Mark, Ports, Timestamp, Transport, Tuple};
    use nulog::{Change, Location, OpenRow, Store, User};
    use std::sync::Arc;

    fn row(number: u64, user: Option<(u64, &str)>, port: u16, acl: &str) -> OpenRow {
        let ports = Ports { src: 4000, dst: port };
        let tuple = Tuple::new(
            "10.0.0.5".parse().unwrap(),
            "10.1.0.9".parse().unwrap(),
            Transport::Tcp(ports),
        );
        OpenRow {
            id: ConnId::try_from((1 << 49) | number).unwrap(),
            gateway: Arc::from("gw1"),
            received: Timestamp::from_micros(1_800_000_000_000_000 + i64::try_from(number).unwrap()),
            prefix: Arc::from(""),
            mark: Mark(1),
            in_dev: Arc::from("eth0"),
            out_dev: Arc::from(""),
            phys_in: Arc::from(""),
            phys_out: Arc::from(""),
            zone: 0,
            original: tuple.unwrap(),
            shown: tuple.unwrap(),
            user: user.map(|(id, name)| User {
                id,
                name: Arc::from(name),
            }),
            client_os: None,
            client_app: Some(Arc::from("/usr/bin/ssh")),
            acl: Arc::from(acl),
            parent: None,
            policy: Arc::from(""),
            auth: user.map(|_| Arc::from("password")),
        }
    }

    fn write(lab: &Lab, changes: &[Change]) {
        let location = Location::parse(&format!("sqlite:{}", lab.path("nulog.db"))).unwrap();
        crate::db::runtime().unwrap().block_on(async {
            let mut store = Store::open(&location, 1).await.unwrap();
            // Ids are only taken from blocks that are reserved.
            store.reserve_ids(1000).await.unwrap();
            store.apply(changes).await.unwrap();
            store.close().await.unwrap();
        });
    }

    #[test]
    fn a_replay_lists_whose_verdict_would_change() {
        let lab = Lab::new();
        let alice = Some((1, "alice"));
        write(
            &lab,
            &[
                Change::Open(Box::new(row(1, alice, 22, "ssh"))),
                Change::Open(Box::new(row(2, alice, 80, "web"))),
                Change::Drop(Box::new(row(3, alice, 22, "default"))),
                Change::Drop(Box::new(row(4, None, 22, "(timeout)"))),
                Change::Drop(Box::new(row(5, None, 22, "(nobody)"))),
            ],
        );
        let new = lab.path("policy.toml");
        let (result, text) = lab.run(&["replay", &new, "--since", "2027-01-15T00:00:00Z"]);
        result.unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(
            lines[0].contains(
                " alice tcp 10.0.0.5:4000 -> 10.1.0.9:80: accept by \"web\" would be drop by no rule"
            ),
            "{text}"
        );
        assert!(
            lines[1].contains("10.1.0.9:22: drop by \"default\" would be accept by \"ssh\" (policy.toml:11)"),
            "{text}"
        );
        assert_eq!(
            lines[2],
            "2 of 5 connections would be decided otherwise; 1 were decided by no rule, 0 could not be read"
        );
        let summary = lab.json(&["replay", &new, "--since", "2027-01-15T00:00:00Z"]);
        assert_eq!((&summary["rows"], &summary["changed"]), (&5.into(), &2.into()));
        let none = lab.json(&["replay", &new, "--since", "2027-01-16T00:00:00Z"]);
        assert_eq!(none["rows"], 0);
    }

    #[test]
    fn an_explanation_shows_the_rule_of_that_time() {
        let lab = Lab::new();
        let setting = Setting::load(Path::new(&lab.path("nuauth.toml")), &[]).unwrap();
        let then = setting.policy(None).unwrap().policy;
        setting.kept().keep(then.version_text(), then.normal()).unwrap();
        let mut open = row(1, Some((1, "alice")), 22, "ssh");
        open.policy = Arc::from(then.version_text());
        let mut lost = row(2, Some((1, "alice")), 22, "ssh");
        lost.policy = Arc::from("0123456789ab");
        let ids = [u64::from(open.id), u64::from(lost.id)].map(|id| id.to_string());
        write(
            &lab,
            &[
                Change::Open(Box::new(open)),
                Change::Open(Box::new(lost)),
                Change::Drop(Box::new(row(3, None, 22, "(timeout)"))),
            ],
        );
        // Since then somebody has edited the lists.
        lab.write("policy.toml", &POLICY.replace("[22]", "[2222]"));
        let text = lab.lines(&["explain", &ids[0]]).join("\n");
        assert!(
            text.contains("was accepted at 2027-01-15T08:00:00.000001Z\n  rule \"ssh\" decided"),
            "{text}"
        );
        assert!(
            text.contains("    ports = [\"22\"]") && text.contains("  login    password"),
            "{text}"
        );
        let object = lab.json(&["explain", &ids[1]]);
        assert_eq!(object["rule"], Value::Null);
        assert!(
            object["note"]
                .as_str()
                .unwrap()
                .contains("lists 0123456789ab are not kept here")
        );
        let third = ((1_u64 << 49) | 3).to_string();
        assert!(lab.lines(&["explain", &third])[1].contains("no client claimed it in time"));
        assert_eq!(lab.run(&["explain", "7"]).0.unwrap_err().exit, Exit::NoInput);
    }
}
