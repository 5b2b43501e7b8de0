use super::*;
use crate::users;
use nufw_proto::{Addr, IcmpKey, Mark, Ports, Timestamp, Transport, Tuple};
use proptest::prelude::*;
use std::time::Duration;

const USERS: &str = "\
[[user]]\nname = \"alice\"\nid = 1\ngroups = [\"staff\", \"admins\"]\n\
[[user]]\nname = \"bob\"\nid = 2\ngroups = [\"staff\"]\n\
[[user]]\nname = \"eve\"\nid = 3\n";

fn read(text: &str) -> Result<ReadPolicy, String> {
    let users = users::tests::load(USERS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, text).unwrap();
    let strip = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
    let marks = Marks::default();
    let known = Against {
        users: &users,
        all_known: true,
        marks: &marks,
    };
    Policy::load(&path, &known)
        .map(|mut read| {
            read.notes = read.notes.into_iter().map(strip).collect();
            read
        })
        .map_err(|e| strip(e.to_string()))
}

fn policy(text: &str) -> Policy {
    read(text).unwrap().policy
}

fn tuple(transport: Transport, src: &str, dst: &str) -> Tuple {
    let addr = |text: &str| text.parse::<Addr>().unwrap();
    Tuple::new(addr(src), addr(dst), transport).unwrap()
}

fn tcp(src: &str, dst: &str, port: u16) -> Tuple {
    tuple(
        Transport::Tcp(Ports {
            src: 40_000,
            dst: port,
        }),
        src,
        dst,
    )
}

fn decide(policy: &Policy, user: &str, tuple: &Tuple) -> (Decision, String) {
    let users = users::tests::load(USERS).unwrap();
    let user = &users.by_name(user).unwrap().identity;
    let ruling = policy.decide(&Subject::new(Some(user), tuple, NOW));
    (ruling.decision, ruling.rule.to_string())
}

/// 2027-01-15 08:00 UTC, a Friday.
const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn rule(lines: &str) -> String {
    format!("[[rule]]\nname = \"r\"\ndecision = \"accept\"\n{lines}\n")
}

#[test]
fn a_rule_says_whether_it_is_logged_and_whether_packets_wait() {
    let mode = |lines: &str| policy(&rule(lines)).rules()[0].ruling().log;
    assert_eq!(mode(""), LogMode::Default);
    assert_eq!(mode("log = \"sync\""), LogMode::Sync);
    assert_eq!(mode("log = \"async\""), LogMode::Async);
    assert_eq!(mode("log = \"none\""), LogMode::None);
    assert_eq!(mode("log = \"strict\""), LogMode::Strict);
    let error = read(&rule("log = \"later\"")).unwrap_err();
    assert!(
        error.starts_with("policy.toml:4: key rule[0].log: ") && error.contains("later"),
        "{error}"
    );
}

#[test]
fn a_rule_can_limit_the_life_of_what_it_accepts() {
    let expires = |lines: &str| policy(&rule(lines)).rules()[0].ruling().expires;
    assert_eq!(expires(""), None);
    assert_eq!(expires("expire-after = \"8h\""), Some(Duration::from_hours(8)));
    for (text, expected) in [
        (
            rule("expire-after = \"0s\""),
            "expected a duration from 1s to 365d",
        ),
        (
            rule("expire-after = \"1h\"\nlog = \"none\""),
            "expected no log = \"none\" with it",
        ),
        (
            "[[rule]]\nname = \"r\"\ndecision = \"drop\"\nexpire-after = \"1h\"\n".to_owned(),
            "expected no such key",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(
            error.contains("key rule[0].expire-after: ") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn what_no_rule_allows_can_be_rejected() {
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    let lists = policy("");
    assert_eq!(
        decide(&lists, "alice", &web),
        (Decision::Drop, "default".to_owned())
    );
    let lists = lists.rejecting(true);
    assert_eq!(
        decide(&lists, "alice", &web),
        (Decision::Reject, "default".to_owned())
    );
    let lists = policy("[[rule]]\nname = \"r\"\ndecision = \"drop\"\n").rejecting(true);
    assert_eq!(
        decide(&lists, "alice", &web).0,
        Decision::Drop,
        "a rule says what it says"
    );
}

#[test]
fn a_drop_cannot_wait_for_its_row() {
    for decision in ["drop", "reject"] {
        let with = |log: &str| {
            read(&format!(
                "[[rule]]\nname = \"r\"\ndecision = \"{decision}\"\nlog = \"{log}\"\n"
            ))
            .map(|_| ())
        };
        assert_eq!(with("async"), Ok(()));
        assert_eq!(with("none"), Ok(()));
        assert_eq!(
            with("sync").unwrap_err(),
            "policy.toml:4: key rule[0].log: found \"sync\", expected \"async\" or \"none\": only what is accepted waits for its row"
        );
    }
}

fn accepts(lines: &str, user: &str, tuple: &Tuple) -> bool {
    decide(&policy(&rule(lines)), user, tuple).0 == Decision::Accept
}

#[test]
fn without_a_rule_everything_is_dropped() {
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    for policy in [Policy::deny_all(), policy("")] {
        assert_eq!(
            decide(&policy, "alice", &web),
            (Decision::Drop, "default".to_owned())
        );
    }
    assert_eq!(
        read("").unwrap().notes,
        ["policy.toml: there is no rule, so everything is dropped"]
    );
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(
        "[[rule]]\nname = \"no-bob\"\nusers = [\"bob\"]\ndecision = \"reject\"\n\
         [[rule]]\nname = \"all\"\ndecision = \"accept\"\nlog-prefix = \"ALL\"\n\
         [[rule]]\nname = \"never\"\ndecision = \"drop\"\n",
    );
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    assert_eq!(
        decide(&policy, "bob", &web),
        (Decision::Reject, "no-bob".to_owned())
    );
    assert_eq!(
        decide(&policy, "alice", &web),
        (Decision::Accept, "all".to_owned())
    );
    assert_eq!(
        policy.rules()[0].ruling().prefix.as_ref(),
        "no-bob",
        "the name is the prefix"
    );
    assert_eq!(policy.rules()[1].ruling().prefix.as_ref(), "ALL");
}

#[test]
fn users_and_groups_are_matched_by_either() {
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    let who = |lines: &str| ["alice", "bob", "eve"].map(|user| accepts(lines, user, &web));
    assert_eq!(who(""), [true, true, true]);
    assert_eq!(who("users = [\"eve\"]"), [false, false, true]);
    assert_eq!(who("groups = [\"staff\"]"), [true, true, false]);
    assert_eq!(
        who("users = [\"eve\"]\ngroups = [\"admins\"]"),
        [true, false, true]
    );
}

#[test]
fn networks_and_ports_are_matched() {
    let web = |src: &str, dst: &str, port: u16| tcp(src, dst, port);
    let lines = "protocol = \"tcp\"\nsource = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndestination = [\"192.0.2.7\", \"::/0\"]\n\
                 ports = [\"80\", \"8000-8080\", 443]";
    assert!(accepts(lines, "eve", &web("10.255.0.1", "192.0.2.7", 8080)));
    assert!(accepts(lines, "eve", &web("2001:db8:1::1", "fe80::1", 443)));
    assert!(!accepts(lines, "eve", &web("11.0.0.1", "192.0.2.7", 80)));
    assert!(!accepts(lines, "eve", &web("10.0.0.1", "192.0.2.8", 80)));
    assert!(!accepts(lines, "eve", &web("10.0.0.1", "192.0.2.7", 8081)));
    let udp = tuple(Transport::Udp(Ports { src: 1, dst: 80 }), "10.0.0.1", "192.0.2.7");
    assert!(!accepts(lines, "eve", &udp));
    assert!(
        accepts("ports = [80]", "eve", &udp),
        "ports without protocol: any that has ports"
    );
    assert!(accepts("source-ports = [\"0-1\"]", "eve", &udp));
    assert!(!accepts("source-ports = [2]", "eve", &udp));
    let gre = tuple(Transport::Gre(Ports { src: 0, dst: 80 }), "10.0.0.1", "192.0.2.7");
    assert!(
        !accepts("ports = [\"0-65535\"]", "eve", &gre),
        "no ports, no match"
    );
    assert!(accepts("protocol = 47", "eve", &gre));
    assert!(accepts("protocol = \"47\"", "eve", &gre));
}

#[test]
fn icmp_types_and_codes_are_matched() {
    let echo = tuple(
        Transport::Icmp(IcmpKey {
            kind: 8,
            code: 0,
            id: 9,
        }),
        "10.0.0.1",
        "192.0.2.7",
    );
    assert!(accepts("protocol = \"icmp\"", "eve", &echo));
    assert!(accepts(
        "protocol = \"icmp\"\nicmp-type = 8\nicmp-code = 0",
        "eve",
        &echo
    ));
    assert!(!accepts("protocol = \"icmp\"\nicmp-type = 13", "eve", &echo));
    assert!(!accepts(
        "protocol = \"icmp\"\nicmp-type = 8\nicmp-code = 1",
        "eve",
        &echo
    ));
    assert!(!accepts("protocol = \"icmpv6\"\nicmp-type = 8", "eve", &echo));
}

#[test]
fn each_mistake_has_its_sentence() {
    let no_ports = "expected none, since the rule's protocol has no ports";
    for (lines, expected) in [
        ("users = [\"carol\"]", "key rule[0].users[0]: found \"carol\", expected the name of a user of the users file".to_owned()),
        ("users = []", "key rule[0].users: found an empty list, expected at least one item, or no such key if the rule is for all".to_owned()),
        ("ports = []", "key rule[0].ports: found an empty list, expected at least one item, or no such key if the rule is for all".to_owned()),
        ("protocol = \"icmp\"\nports = [80]", format!("key rule[0].ports: found ports, {no_ports}")),
        ("protocol = 47\nsource-ports = [80]", format!("key rule[0].source-ports: found ports, {no_ports}")),
        ("icmp-type = 8", "key rule[0].icmp-type: found an ICMP type, expected protocol = \"icmp\" or \"icmpv6\" with it: their types differ".to_owned()),
        ("protocol = \"icmp\"\nicmp-code = 0", "key rule[0].icmp-code: found an ICMP code, expected icmp-type with it: a code means nothing alone".to_owned()),
        ("ports = [\"80-70\"]", "key rule[0].ports[0]: found string \"80-70\", expected a port from 0 to 65535 or a range such as \"8000-8080\"".to_owned()),
        ("ports = [\"+80\"]", "key rule[0].ports[0]: found string \"+80\", expected a port from 0 to 65535 or a range such as \"8000-8080\"".to_owned()),
        ("ports = [65536]", "key rule[0].ports[0]: found integer `65536`, expected a port from 0 to 65535 or a range such as \"8000-8080\"".to_owned()),
        ("protocol = \"tpc\"", "key rule[0].protocol: found string \"tpc\", expected tcp, udp, udplite, sctp, dccp, gre, esp, ah, icmp, icmpv6 or a number from 0 to 255".to_owned()),
        ("source = [\"10.0.0.1/8\"]", "key rule[0].source[0]: found string \"10.0.0.1/8\", expected a network without host bits, such as \"10.0.0.0/8\"".to_owned()),
        ("source = [\"10.0.0\"]", "key rule[0].source[0]: found string \"10.0.0\", expected an address or a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"".to_owned()),
        ("source = [\"10.0.0.0/8\"]\ndestination = [\"::1\"]", "key rule[0].destination: found only networks of the other family, expected a network of the family that source has".to_owned()),
        ("protocol = \"icmpv6\"\nsource = [\"10.0.0.0/8\"]", "key rule[0].protocol: found icmpv6 with IPv4 networks, expected icmp with IPv4 and icmpv6 with IPv6".to_owned()),
        ("log-prefix = \"a\\nb\"", "key rule[0].log-prefix: found string \"a\\nb\", expected 1 to 64 bytes without control characters".to_owned()),
        ("port = [80]", "unknown key rule[0].port; did you mean ports?".to_owned()),
    ] {
        let error = read(&rule(lines)).unwrap_err();
        let (place, text) = error.split_once(": ").unwrap();
        assert!(place.starts_with("policy.toml:"), "{error}");
        assert_eq!(text, expected);
    }
    assert_eq!(
        read("[[rule]]\nname = \"default\"\ndecision = \"drop\"\n").unwrap_err(),
        "policy.toml:2: key rule[0].name: found \"default\", expected another name: rows where no rule decided carry \
         such ones"
    );
    assert_eq!(
        read("[[rule]]\nname = \"r\"\ndecision = \"allow\"\n").unwrap_err(),
        "policy.toml:3: key rule[0].decision: found string \"allow\", expected one of \"accept\", \"drop\", \"reject\""
    );
    let twice = format!("{}{}", rule(""), rule("users = [\"zoe\"]"));
    assert_eq!(
        read(&twice).unwrap_err(),
        "policy.toml:6: key rule[1].name: found \"r\" again, expected each name once\n\
         policy.toml:8: key rule[1].users[0]: found \"zoe\", expected the name of a user of the users file"
    );
}

#[test]
fn a_group_that_nobody_is_in_is_noted() {
    let read = read(&rule("groups = [\"staff\", \"ghosts\"]")).unwrap();
    assert_eq!(
        read.notes,
        ["policy.toml:4: key rule[0].groups[1]: nobody is in group \"ghosts\""]
    );
}

#[test]
fn a_mapped_network_is_the_ipv4_network() {
    let web = tcp("10.1.2.3", "192.0.2.1", 80);
    assert!(accepts("source = [\"::ffff:10.0.0.0/104\"]", "eve", &web));
    assert!(accepts("source = [\"::ffff:10.1.2.3\"]", "eve", &web));
    assert!(
        !accepts("source = [\"::/0\"]", "eve", &web),
        "an IPv6 network is for IPv6"
    );
}

#[test]
fn rules_are_shown_as_they_match() {
    let policy = policy(&rule(
        "users = [\"eve\"]\ngroups = [\"staff\"]\nprotocol = \"tcp\"\nports = [\"8000-8080\", 80]\ndestination = [\"10.0.0.0/8\"]",
    ));
    assert_eq!(
        policy.rules()[0].to_string(),
        "users eve groups staff tcp to 10.0.0.0/8 ports 80,8000-8080"
    );
    assert_eq!(self::policy(&rule("")).rules()[0].to_string(), "everything");
}

fn decided(policy: &Policy, subject: &Subject<'_>) -> String {
    policy.decide(subject).rule.to_string()
}

#[test]
fn the_sample_is_valid() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
    let users = Users::load(&conf.join("users.toml"), Mark(0x00ff_ffff)).unwrap();
    let marks = Marks::default();
    let known = Against {
        users: &users,
        all_known: true,
        marks: &marks,
    };
    let read = Policy::load(&conf.join("policy.toml"), &known).unwrap();
    assert_eq!(read.notes, Vec::<String>::new());
    let user = &users.by_name("bob").unwrap().identity;
    let ruling = |tuple: &Tuple| decided(&read.policy, &Subject::new(Some(user), tuple, NOW));
    assert_eq!(ruling(&tcp("10.0.0.1", "192.0.2.1", 8001)), "web");
    assert_eq!(ruling(&tcp("10.0.0.1", "192.0.2.1", 23)), "no-telnet");
    assert_eq!(ruling(&tcp("10.0.0.1", "10.0.0.2", 22)), "default");
}

/// One rule as plain data, to be written as TOML and evaluated by hand.
#[derive(Debug, Clone)]
struct Model {
    user: Option<&'static str>,
    group: Option<&'static str>,
    protocol: Option<u8>,
    source: Option<(u8, u8)>,
    ports: Option<(u16, u16)>,
    decision: &'static str,
}

impl Model {
    fn toml(&self, index: usize) -> String {
        let mut text = format!(
            "[[rule]]\nname = \"r{index}\"\ndecision = \"{}\"\n",
            self.decision
        );
        let mut add = |line: Option<String>| text.extend(line.map(|line| line + "\n"));
        add(self.user.map(|user| format!("users = [\"{user}\"]")));
        add(self.group.map(|group| format!("groups = [\"{group}\"]")));
        add(self.protocol.map(|number| format!("protocol = {number}")));
        add(self.source.map(|(octet, len)| {
            let bits = u32::from_be_bytes([10, octet, 0, 0]) & (u32::MAX << (32 - u32::from(len)));
            format!("source = [\"{}/{len}\"]", std::net::Ipv4Addr::from_bits(bits))
        }));
        add(self
            .ports
            .map(|(a, b)| format!("ports = [\"{}-{}\"]", a.min(b), a.max(b))));
        text
    }

    /// Written differently from the code on purpose: bit by bit, port by port.
    fn matches(&self, user: &str, groups: &[&str], protocol: u8, src: [u8; 4], port: u16) -> bool {
        let who = match (self.user, self.group) {
            (None, None) => true,
            (named, group) => named == Some(user) || group.is_some_and(|g| groups.contains(&g)),
        };
        let what = self.protocol.is_none() || self.protocol == Some(protocol);
        let from = self.source.is_none_or(|(octet, len)| {
            let (net, ip) = (u32::from_be_bytes([10, octet, 0, 0]), u32::from_be_bytes(src));
            (0..len).all(|bit| (net >> (31 - bit)) & 1 == (ip >> (31 - bit)) & 1)
        });
        let to = self
            .ports
            .is_none_or(|(a, b)| !((port < a && port < b) || (port > a && port > b)));
        who && what && from && to
    }
}

fn models() -> impl Strategy<Value = Vec<Model>> {
    let model = (
        prop::option::of(prop::sample::select(vec!["alice", "bob", "eve"])),
        prop::option::of(prop::sample::select(vec!["staff", "admins"])),
        prop::option::of(prop::sample::select(vec![6_u8, 17])),
        prop::option::of((any::<u8>(), 9_u8..=16)),
        prop::option::of((0_u16..8, 0_u16..8)),
        prop::sample::select(vec!["accept", "drop", "reject"]),
    )
        .prop_map(|(user, group, protocol, source, ports, decision)| Model {
            user,
            group,
            protocol,
            source,
            ports,
            decision,
        });
    prop::collection::vec(model, 0..6)
}

proptest! {
    #[test]
    fn the_policy_decides_as_a_naive_reading_does(
        models in models(),
        user in prop::sample::select(vec!["alice", "bob", "eve"]),
        udp in any::<bool>(),
        octets in any::<[u8; 2]>(),
        port in 0_u16..8,
    ) {
        let text: String = models.iter().enumerate().map(|(i, m)| m.toml(i)).collect();
        let policy = policy(&text);
        let src = [10, octets[0], octets[1], 1];
        let ports = Ports { src: 1, dst: port };
        let (protocol, transport) = if udp { (17, Transport::Udp(ports)) } else { (6, Transport::Tcp(ports)) };
        let packet = tuple(transport, &std::net::Ipv4Addr::from(src).to_string(), "192.0.2.1");
        let groups: &[&str] = match user {
            "alice" => &["staff", "admins"],
            "bob" => &["staff"],
            _ => &[],
        };
        let expected = models
            .iter()
            .position(|model| model.matches(user, groups, protocol, src, port))
            .map_or(("drop", "default".to_owned()), |i| (models[i].decision, format!("r{i}")));
        let (decision, rule) = decide(&policy, user, &packet);
        prop_assert_eq!((word(decision), rule), expected);
    }
}

mod conditions;
mod searches;
