//! What rules can ask for beside users, networks and ports.

use super::*;
use crate::engine::{Identity, Quality};

fn users() -> Users {
    users::tests::load(USERS).unwrap()
}

fn identity(name: &str) -> Arc<Identity> {
    Arc::clone(&users().by_name(name).unwrap().identity)
}

/// Whether a rule with these lines accepts alice's connection to 192.0.2.1:80, changed so.
fn accepts_with(lines: &str, change: impl for<'a> FnOnce(&mut Subject<'a>)) -> bool {
    let policy = policy(&rule(lines));
    let alice = identity("alice");
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    let mut subject = Subject::new(Some(&alice), &web, NOW);
    change(&mut subject);
    policy.decide(&subject).decision == Decision::Accept
}

#[test]
fn a_rule_can_be_for_nobody_for_anyone_or_for_whoever_is_logged_in() {
    let decisions = |who: &str| {
        let policy = policy(&rule(who));
        let alice = identity("alice");
        let web = tcp("10.0.0.1", "192.0.2.1", 80);
        let known = policy.decide(&Subject::new(Some(&alice), &web, NOW)).decision;
        let stranger = policy.judge_stranger(&Subject::new(None, &web, NOW));
        let told = policy.judges_strangers();
        (
            known == Decision::Accept,
            stranger.map(|r| r.rule.to_string()),
            told,
        )
    };
    let matched = Some("r".to_owned());
    assert_eq!(decisions("who = \"nobody\""), (false, matched.clone(), true));
    assert_eq!(decisions("who = \"anyone\""), (true, matched, true));
    assert_eq!(decisions("who = \"authenticated\""), (true, None, false));
    assert_eq!(decisions(""), (true, None, false));
    assert_eq!(decisions("users = [\"alice\"]"), (true, None, false));
}

#[test]
fn users_are_named_by_id_and_groups_by_number_too() {
    assert!(accepts_with("users = [1]", |_| {}));
    assert!(!accepts_with("users = [2, 3]", |_| {}));
    let users = users::tests::load(&format!(
        "[[user]]\nname = \"big\"\nid = {}\nmark = 7\ngroups = [\"1002\"]\n",
        i64::MAX
    ))
    .unwrap();
    let big = &users.by_name("big").unwrap().identity;
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    let marks = Marks::default();
    let against = Against {
        users: &users,
        all_known: true,
        marks: &marks,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    for lines in [format!("users = [{}]", i64::MAX), "groups = [1002]".to_owned()] {
        std::fs::write(&path, rule(&lines)).unwrap();
        let read = Policy::load(&path, &against).unwrap();
        assert_eq!(read.notes, Vec::<String>::new());
        assert_eq!(
            decided(&read.policy, &Subject::new(Some(big), &web, NOW)),
            "r",
            "{lines}"
        );
    }
}

#[test]
fn a_login_that_is_not_sure_enough_is_not_meant() {
    for (least, expected) in [
        ("address", [true, true, true]),
        ("password", [false, true, true]),
        ("certificate", [false, false, true]),
    ] {
        let line = format!("min-auth = \"{least}\"");
        let found = [Quality::Address, Quality::Password, Quality::Certificate]
            .map(|quality| accepts_with(&line, |subject| subject.quality = quality));
        assert_eq!(found, expected, "{least}");
    }
}

#[test]
fn programs_systems_interfaces_and_gateways_are_matched_and_unknown_ones_are_not() {
    let line = "programs = [\"/usr/bin/ssh\", \"/opt/**/run\"]";
    assert!(accepts_with(line, |s| s.program = Some("/opt/a/b/run")));
    assert!(!accepts_with(line, |s| s.program = Some("/usr/bin/ssh2")));
    assert!(!accepts_with(line, |_| {}));
    let line = format!(
        "programs = [\"/usr/bin/*\"]\nprogram-sha256 = [\"{}\"]",
        "5A".repeat(32)
    );
    let hashed = |s: &mut Subject<'_>, hash: &'static [u8; 32]| {
        (s.program, s.program_hash) = (Some("/usr/bin/x"), Some(hash));
    };
    assert!(accepts_with(&line, |s| hashed(s, &[0x5a; 32])));
    assert!(!accepts_with(&line, |s| hashed(s, &[0x5b; 32])));
    assert!(!accepts_with(&line, |s| s.program = Some("/usr/bin/x")));
    let line = "os = [\"linux;6.*\"]";
    assert!(accepts_with(line, |s| s.os = Some("Linux-#1-6.12")));
    assert!(!accepts_with(line, |_| {}));
    let line = "in = [\"eth*\"]\nout = [\"wan\"]\nbridge-in = [\"port1\"]\nbridge-out = [\"port2\"]";
    let set = |s: &mut Subject<'_>| {
        (s.in_dev, s.out_dev, s.phys_in, s.phys_out) = ("eth7", "wan", "port1", "port2");
    };
    assert!(accepts_with(line, set));
    for place in 0..4 {
        let spoiled = accepts_with(line, |s| {
            set(s);
            *[&mut s.in_dev, &mut s.out_dev, &mut s.phys_in, &mut s.phys_out][place] = "";
        });
        assert!(!spoiled, "{place}");
    }
    let line = "gateways = [\"GW1\"]";
    assert!(accepts_with(line, |s| s.gateway = "gw1"));
    assert!(!accepts_with(line, |s| s.gateway = "gw2"));
}

#[test]
fn a_period_says_when_a_rule_holds_and_when_what_it_accepts_ends() {
    let text = format!(
        "time-zone = \"Europe/Berlin\"\n[[period]]\nname = \"office\"\ndays = [\"mon-fri\"]\nhours = [\"08:00-17:00\"]\n{}",
        rule("period = \"office\"\nexpire-after = \"8h\"")
    );
    let policy = policy(&text);
    let alice = identity("alice");
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    // A Friday, nine o'clock in Berlin.
    let ruling = policy.decide(&Subject::new(Some(&alice), &web, NOW));
    assert_eq!(
        ruling.until,
        Some(Timestamp::from_micros(NOW.micros() + 8 * 3_600_000_000))
    );
    assert_eq!(ruling.expires, Some(Duration::from_hours(8)));
    let late = Timestamp::from_micros(NOW.micros() + 8 * 3_600_000_000);
    assert_eq!(
        decided(&policy, &Subject::new(Some(&alice), &web, late)),
        "default"
    );
}

#[test]
fn sets_are_named_in_rules_and_may_be_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sets")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "sets/servers",
        "# the servers\n192.0.2.0/28\n192.0.2.64-192.0.2.70 # and these\n\n2001:db8::/64\n",
    );
    write("sets/bad", "10.0.0.0/8\nten\n\n10.0.0.1/8\n");
    let users = users();
    let marks = Marks::default();
    let load = |text: &str| {
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        let against = Against {
            users: &users,
            all_known: true,
            marks: &marks,
        };
        Policy::load(&path, &against)
            .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
    };
    let sets = "[[set]]\nname = \"servers\"\naddress-file = \"sets/servers\"\n\
                [[set]]\nname = \"web\"\nports = [80, \"8000-8080\"]\n";
    let read = load(&format!(
        "{sets}{}",
        rule("destination = [\"@servers\", \"198.51.100.7\"]\nports = [\"@web\", 443]")
    ))
    .unwrap();
    assert_eq!(read.files.len(), 2);
    let alice = identity("alice");
    let found = |dst: &str, port: u16| {
        decided(
            &read.policy,
            &Subject::new(
                Some(&alice),
                &tcp(if dst.contains(':') { "::1" } else { "10.0.0.1" }, dst, port),
                NOW,
            ),
        )
    };
    for (dst, port, expected) in [
        ("192.0.2.15", 80, "r"),
        ("192.0.2.66", 8001, "r"),
        ("198.51.100.7", 443, "r"),
        ("2001:db8::9", 443, "r"),
        ("192.0.2.16", 80, "default"),
        ("192.0.2.15", 81, "default"),
    ] {
        assert_eq!(found(dst, port), expected, "{dst} {port}");
    }
    assert_eq!(
        read.policy.rules()[0].to_string(),
        "to 198.51.100.7,@servers ports 443,@web"
    );
    // What a normal form says does not hang on the files.
    let again = load(read.policy.normal()).unwrap();
    assert_eq!(again.policy.version_text(), read.policy.version_text());
    assert_eq!(
        load("[[set]]\nname = \"bad\"\naddress-file = \"sets/bad\"\n").unwrap_err(),
        "sets/bad:2: found \"ten\", expected an address or a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"\n\
         sets/bad:4: found \"10.0.0.1/8\", expected a network without host bits, such as \"10.0.0.0/8\""
    );
    for (text, expected) in [
        (
            "address-file = \"../x\"",
            "in the directory of the access lists or below it",
        ),
        (
            "address-file = \"/etc/passwd\"",
            "in the directory of the access lists or below it",
        ),
        ("address-file = \"none\"", "expected a file that can be read"),
        (
            "addresses = [\"::1\"]\nports = [1]",
            "expected exactly one of addresses",
        ),
        ("", "expected exactly one of addresses"),
    ] {
        let error = load(&format!("[[set]]\nname = \"s\"\n{text}\n")).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn mistakes_of_the_richer_conditions_have_their_sentences_too() {
    for (lines, expected) in [
        (
            "who = \"nobody\"\nusers = [\"alice\"]",
            "key rule[0].who: found users or groups beside it",
        ),
        (
            "who = \"nobody\"\nprograms = [\"/a\"]",
            "key rule[0].programs: found \"programs\", expected no such key with who",
        ),
        ("users = [\"Alice\"]", "there is \"alice\", and case counts"),
        (
            "users = [9]",
            "found 9, expected the id of a user of the users file",
        ),
        ("users = [-1]", "expected an id from 0 to 2^63 - 1"),
        (
            "period = \"never\"",
            "expected the name of a [[period]] of this file",
        ),
        (
            "source = [\"@x\"]",
            "expected @ and the name of a [[set]] of this file",
        ),
        (
            "programs = [\"/a\\nb\"]",
            "control characters, which clients tell as U+FFFD",
        ),
        (
            "program-sha256 = [\"abc\"]",
            "expected 64 hexadecimal digits, as sha256sum prints them",
        ),
        ("mark = 3", "expected a field for it first: marks.rule"),
        (
            "min-auth = \"kerberos\"",
            "expected one of \"address\", \"password\", \"certificate\"",
        ),
    ] {
        let error = read(&rule(lines)).unwrap_err();
        assert!(error.contains(expected), "{lines}: {error}");
    }
    for (text, expected) in [
        (
            "order = \"last-match\"\n",
            "expected one of \"first-match\", \"accept-wins\", \"drop-wins\"",
        ),
        (
            "time-zone = \"Mars/Olympus\"\n",
            "policy.toml:1: key time-zone: found string \"Mars/Olympus\"",
        ),
        (
            "[[period]]\nname = \"p\"\ndays = [\"monday\"]\n",
            "key period[0].days[0]: found string \"monday\"",
        ),
        (
            "[[period]]\nname = \"p\"\nhours = [\"8-12\"]\n",
            "expected hours such as \"08:00-12:30\"",
        ),
        (
            "[[period]]\nname = \"p\"\ndates = [\"2026-13-01\"]\n",
            "expected a date or dates such as",
        ),
        (
            "[[period]]\nname = \"p\"\n[[period]]\nname = \"p\"\n",
            "found \"p\" again",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn users_that_are_not_known_yet_are_noted_where_there_may_be_others() {
    let users = users();
    let marks = Marks::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, rule("users = [\"carol\", \"a\u{43b}ice\"]")).unwrap();
    let against = Against {
        users: &users,
        all_known: false,
        marks: &marks,
    };
    let read = Policy::load(&path, &against).unwrap();
    let notes = read.notes.join("\n");
    assert!(
        notes.contains("\"carol\" is not known, at least not before the first login"),
        "{notes}"
    );
    assert!(notes.contains("mixes alphabets: its U+043B"), "{notes}");
}

#[test]
fn marks_come_from_rules_groups_programs_and_systems_each_in_its_bits() {
    let field = |shift, width| MarkField { shift, width };
    let marks = Marks {
        rule: Some(field(16, 4)),
        tables: MarkTables {
            groups: Some((
                field(20, 2),
                vec![(Arc::from("admins"), 3), (Arc::from("staff"), 1)],
            )),
            programs: Some((field(22, 1), vec![(Pattern::path("/usr/bin/*").unwrap(), 1)])),
            systems: Some((field(23, 1), vec![(Pattern::os("linux").unwrap(), 1)])),
        },
        ..Marks::default()
    };
    let users = users();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    let against = Against {
        users: &users,
        all_known: true,
        marks: &marks,
    };
    std::fs::write(&path, rule("mark = 15")).unwrap();
    let policy = Policy::load(&path, &against).unwrap().policy;
    assert!(policy.normal().contains("mark = 15"), "{}", policy.normal());
    let web = tcp("10.0.0.1", "192.0.2.1", 80);
    let mark = |name: &str, program| {
        let user = identity(name);
        let mut subject = Subject::new(Some(&user), &web, NOW);
        (subject.program, subject.os) = (program, Some("Linux-a-b"));
        policy.decide(&subject).mark
    };
    assert_eq!(
        mark("alice", Some("/usr/bin/curl")),
        Mark(0x00ff_0000),
        "admins comes first in the table"
    );
    assert_eq!(mark("bob", Some("/opt/x")), Mark(0x009f_0000));
    assert_eq!(mark("eve", None), Mark(0x008f_0000));
    std::fs::write(&path, rule("mark = 16")).unwrap();
    let error = Policy::load(&path, &against).unwrap_err().to_string();
    assert!(
        error.contains("found 16, expected at most 15, what the 4 bits of marks.rule hold"),
        "{error}"
    );
}
