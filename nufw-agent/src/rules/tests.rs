//! The text itself; what it does to a kernel is tested in `tests/rules_in_a_namespace.rs`.

use super::*;

fn options() -> RulesOptions {
    RulesOptions {
        queue: 7,
        hooks: vec![QueueHook::Forward, QueueHook::Input],
        servers: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        ..RulesOptions::default()
    }
}

/// The lines of one family's part of the script.
fn part(script: &str, command: &str) -> String {
    let start = script.find(&format!("\n{command}-restore")).unwrap();
    let rest = &script[start..];
    rest[..rest.find("\nEND").unwrap()].to_owned()
}

#[test]
fn only_the_server_of_the_family_is_exempt() {
    let script = render(&options());
    let (v4, v6) = (part(&script, "iptables"), part(&script, "ip6tables"));
    assert_eq!(
        v4.matches("-d 192.0.2.10 -p tcp --dport 4129 -j RETURN").count(),
        2
    );
    assert!(!v4.contains("2001:db8"));
    assert_eq!(
        v6.matches("-d 2001:db8::10 -p tcp --dport 4128 -j RETURN")
            .count(),
        2
    );
    assert!(!v6.contains("192.0.2"));
    assert!(!script.contains("No server address"));
}

#[test]
fn what_is_confirmed_passes_before_the_queue_and_nothing_passes_after_it() {
    for format in [Format::Iptables, Format::Nft] {
        let text = render(&RulesOptions { format, ..options() });
        let confirmed = text.to_lowercase().find("confirmed").unwrap();
        let queue = text
            .find("queue-num 7")
            .or_else(|| text.find("queue num 7"))
            .unwrap();
        assert!(confirmed < queue);
        assert!(!text.contains("bypass"), "a queue without reader drops");
    }
    let script = render(&options());
    let forward: Vec<_> = part(&script, "iptables")
        .lines()
        .filter(|line| line.starts_with("-A NUFW_FORWARD"))
        .map(str::to_owned)
        .collect();
    assert!(forward.contains(&"-A NUFW_FORWARD -j DROP".to_owned()));
}

#[test]
fn a_hook_that_is_not_chosen_is_cleared() {
    let script = render(&RulesOptions {
        hooks: vec![QueueHook::Input],
        ..options()
    });
    assert!(script.contains("while iptables -t mangle -D FORWARD -j NUFW_FORWARD"));
    assert!(!script.contains(":NUFW_FORWARD"));
    assert!(script.contains(":NUFW_INPUT"));
}

#[test]
fn marks_and_the_event_mask_are_choices() {
    for format in [Format::Iptables, Format::Nft] {
        let text = render(&RulesOptions {
            format,
            set_marks: false,
            event_mask: false,
            ..options()
        });
        assert!(!text.contains("--save-mark") && !text.contains("ct mark set"));
        assert!(!text.contains("--ctevents") && !text.contains("ct event set"));
        assert!(text.contains("eject"), "rejecting needs no saved mark");
    }
}

#[test]
fn without_a_server_the_text_says_what_that_means() {
    for format in [Format::Iptables, Format::Nft] {
        let text = render(&RulesOptions {
            format,
            servers: Vec::new(),
            ..options()
        });
        assert!(text.contains("# No server address is known (--server)"));
    }
}

#[test]
fn words_are_checked() {
    assert_eq!("nft".parse(), Ok(Format::Nft));
    assert_eq!("input".parse(), Ok(QueueHook::Input));
    assert_eq!(
        "output".parse::<QueueHook>().unwrap_err().to_string(),
        "found \"output\", expected forward or input"
    );
}

#[test]
fn what_was_ended_is_refused_before_anything_lets_it_pass() {
    let script = render(&options());
    let position = |text: &str| script.find(text).unwrap_or_else(|| panic!("{text}"));
    for (hook, chain) in [
        ("FORWARD", "NUFW_ENDED_FORWARD"),
        ("INPUT", "NUFW_ENDED_INPUT"),
        ("OUTPUT", "NUFW_ENDED_OUTPUT"),
    ] {
        position(&format!(
            "-A {chain} -p tcp -m connmark --mark 0x2000000/0x2000000 -j REJECT --reject-with tcp-reset"
        ));
        position(&format!("iptables -t filter -I {hook} -j {chain}"));
    }
    // What is inserted last is first.
    assert!(position("-I FORWARD -j NUFW_FORWARD") < position("-I FORWARD -j NUFW_ENDED_FORWARD"));
    for format in [Format::Iptables, Format::Nft] {
        let none = render(&RulesOptions {
            format,
            kill_bit: 0,
            ..options()
        });
        assert!(!none.contains("connmark --mark") && !none.contains("ct mark and 0x02000000"));
        let one = render(&RulesOptions {
            format,
            hooks: vec![QueueHook::Forward],
            ..options()
        });
        assert!(!one.contains(":NUFW_ENDED_OUTPUT") && !one.contains("chain ended_output"));
    }
}
