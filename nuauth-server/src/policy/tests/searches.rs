//! The three orders of search, the index beside a look at every rule, and rules that can never decide.

use super::*;
use std::fmt::Write as _;

fn three(order: &str) -> Policy {
    let rule = |name: &str, decision: &str, lines: &str| {
        format!("[[rule]]\nname = \"{name}\"\ndecision = \"{decision}\"\n{lines}\n")
    };
    policy(&format!(
        "order = \"{order}\"\n{}{}{}{}",
        rule("no-bob", "reject", "users = [\"bob\"]"),
        rule("staff", "accept", "groups = [\"staff\"]"),
        rule("no-eve", "drop", "users = [\"eve\"]"),
        rule("no-web", "drop", "ports = [80]"),
    ))
}

#[test]
fn each_order_of_search_has_its_winner() {
    let by = |order: &str, user: &str, port: u16| {
        decide(&three(order), user, &tcp("10.0.0.1", "192.0.2.1", port)).1
    };
    for (order, expected) in [
        ("first-match", ["no-bob", "staff", "no-eve", "default"]),
        ("accept-wins", ["staff", "staff", "no-eve", "default"]),
        ("drop-wins", ["no-bob", "no-web", "no-eve", "default"]),
    ] {
        let found = ["bob", "alice", "eve"].map(|user| by(order, user, 80));
        assert_eq!(found, expected[..3], "{order}");
    }
    assert_eq!(by("drop-wins", "alice", 443), "staff");
    assert_eq!(by("accept-wins", "eve", 443), "no-eve");
}

/// A rule with everything that the index knows of, and some that it does not.
fn rules() -> impl Strategy<Value = String> {
    let net = (
        any::<u8>(),
        prop::sample::select(vec![8_u8, 12, 16, 23, 24, 32]),
        any::<bool>(),
    )
        .prop_map(|(octet, len, v6)| {
            if v6 {
                format!("2001:db8:{:x}::/{}", octet & 3, 48)
            } else {
                let bits =
                    u32::from_be_bytes([10, octet & 3, octet >> 6, 1]) & (u32::MAX << (32 - u32::from(len)));
                format!("{}/{len}", std::net::Ipv4Addr::from_bits(bits))
            }
        });
    let range = (0_u16..12, 0_u16..6).prop_map(|(from, more)| format!("{from}-{}", from + more));
    (
        prop::option::of(prop::sample::select(vec!["tcp", "udp", "gre"])),
        prop::option::of(net.clone()),
        prop::option::of(prop::collection::vec(net, 1..3)),
        prop::option::of(range),
        prop::option::of(prop::sample::select(vec!["staff", "admins"])),
        prop::option::of(prop::sample::select(vec!["nobody", "anyone"])),
        prop::sample::select(vec!["accept", "drop", "reject"]),
    )
        .prop_map(|(protocol, source, destination, ports, group, who, decision)| {
            let mut lines = format!("decision = \"{decision}\"\n");
            let mut add = |line: Option<String>| lines.extend(line.map(|line| line + "\n"));
            add(protocol.map(|word| format!("protocol = \"{word}\"")));
            let v4 = |net: &str| !net.contains(':');
            let family = source.as_deref().map(v4);
            add(source.map(|net| format!("source = [\"{net}\"]")));
            let destination = destination.map(|nets| {
                let fitting = nets
                    .into_iter()
                    .filter(|net| family.is_none_or(|family| family == v4(net)));
                fitting.map(|net| format!("\"{net}\"")).collect::<Vec<_>>()
            });
            add(destination
                .filter(|nets| !nets.is_empty())
                .map(|nets| format!("destination = [{}]", nets.join(", "))));
            add(ports
                .filter(|_| protocol != Some("gre"))
                .map(|range| format!("ports = [\"{range}\"]")));
            match (who, group) {
                (Some(who), None) => add(Some(format!("who = \"{who}\""))),
                (_, group) => add(group.map(|group| format!("groups = [\"{group}\"]"))),
            }
            lines
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_index_finds_what_a_look_at_every_rule_finds(
        rules in prop::collection::vec(rules(), 0..150),
        packets in prop::collection::vec(
            (prop::option::of(prop::sample::select(vec!["alice", "bob", "eve"])), 0_u8..3, any::<[u8; 4]>(), 0_u16..20, any::<bool>()),
            32,
        ),
        order in prop::sample::select(Order::ALL.to_vec()),
    ) {
        let mut text = String::new();
        for (number, lines) in rules.iter().enumerate() {
            let _ = write!(text, "[[rule]]\nname = \"r{number}\"\n{lines}");
        }
        let policy = policy(&format!("order = \"{}\"\n{text}", order.word()));
        let users = users::tests::load(USERS).unwrap();
        for (user, protocol, octets, port, v6) in packets {
            let ports = Ports { src: 1, dst: port };
            let transport = match protocol {
                0 => Transport::Tcp(ports),
                1 => Transport::Udp(ports),
                _ => Transport::Gre(ports),
            };
            let [a, b, c, d] = octets.map(|octet| octet & 3);
            let packet = if v6 {
                tuple(transport, &format!("2001:db8:{a:x}::1"), &format!("2001:db8:{b:x}::1"))
            } else {
                tuple(transport, &format!("10.{a}.{b}.1"), &format!("10.{c}.{d}.1"))
            };
            let identity = user.map(|user| Arc::clone(&users.by_name(user).unwrap().identity));
            let subject = Subject::new(identity.as_deref(), &packet, NOW);
            prop_assert_eq!(policy.search(&subject), policy.search_all(&subject));
        }
        // And the normal form decides as the lists do.
        let again = self::policy(policy.normal());
        prop_assert_eq!(again.version_text(), policy.version_text());
    }
}

#[test]
fn rules_that_can_never_decide_are_named_with_those_that_do() {
    let notes = |text: &str| read(text).unwrap().notes;
    let text = "[[rule]]\nname = \"wide\"\ndestination = [\"10.0.0.0/8\"]\ndecision = \"accept\"\n\
                [[rule]]\nname = \"inner\"\nusers = [\"bob\"]\nprotocol = \"tcp\"\ndestination = [\"10.1.0.0/16\"]\nports = [22]\n\
                decision = \"drop\"\n\
                [[rule]]\nname = \"again\"\ngroups = [\"staff\"]\ndestination = [\"10.2.3.4\"]\ndecision = \"accept\"\n\
                [[rule]]\nname = \"other\"\ndestination = [\"11.0.0.0/8\"]\nwho = \"anyone\"\ndecision = \"accept\"\n\
                [[rule]]\nname = \"no-one\"\nwho = \"nobody\"\ndestination = [\"10.2.3.4\"]\ndecision = \"drop\"\n";
    assert_eq!(
        notes(text),
        [
            "policy.toml:6: rule \"inner\" (drop) is contradicted: \"wide\" (accept) at policy.toml:2 matches everything \
             that it matches and comes before it",
            "policy.toml:13: rule \"again\" (accept) is unreachable: \"wide\" (accept) at policy.toml:2 matches everything \
             that it matches and comes before it",
        ]
    );
    let later = "[[rule]]\nname = \"inner\"\ndestination = [\"10.1.0.0/16\"]\ndecision = \"drop\"\n\
                 [[rule]]\nname = \"wide\"\ndestination = [\"10.0.0.0/8\"]\ndecision = \"accept\"\n";
    assert_eq!(notes(later), Vec::<String>::new());
    assert_eq!(
        notes(&format!("order = \"accept-wins\"\n{later}")),
        [
            "policy.toml:3: rule \"inner\" (drop) is contradicted: \"wide\" (accept) at policy.toml:7 matches everything that \
          it matches and accepts, which wins"
        ]
    );
    assert_eq!(
        notes(&format!("order = \"drop-wins\"\n{later}")),
        Vec::<String>::new()
    );
}

#[test]
fn a_version_changes_with_what_decides_and_with_nothing_else() {
    let version = |text: &str| policy(text).version_text().to_owned();
    let one = version(&rule("ports = [80, 443]\nusers = [\"bob\", \"alice\"]"));
    assert_eq!(one.len(), 12);
    assert_eq!(
        one,
        version(&format!(
            "# a comment\n{}",
            rule("users = [\"alice\", \"bob\"]\nports = [\"443\", 80, 80]")
        ))
    );
    assert_ne!(
        one,
        version(&rule("ports = [80, 444]\nusers = [\"bob\", \"alice\"]"))
    );
    assert_ne!(
        one,
        version(&format!(
            "order = \"drop-wins\"\n{}",
            rule("ports = [80, 443]\nusers = [\"bob\", \"alice\"]")
        ))
    );
}

#[test]
fn a_group_of_fifty_thousand_costs_a_rule_nothing() {
    let mut text = String::new();
    for id in 1..=50_000_u32 {
        let _ = write!(
            text,
            "[[user]]\nname = \"u{id}\"\nid = {id}\ngroups = [\"all\"]\n"
        );
    }
    let users = users::tests::load(&text).unwrap();
    let marks = Marks::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, rule("groups = [\"all\"]")).unwrap();
    let against = Against {
        users: &users,
        all_known: true,
        marks: &marks,
    };
    let policy = Policy::load(&path, &against).unwrap().policy;
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    for name in ["u1", "u50000"] {
        let user = &users.by_name(name).unwrap().identity;
        assert_eq!(decided(&policy, &Subject::new(Some(user), &web, NOW)), "r");
    }
}
