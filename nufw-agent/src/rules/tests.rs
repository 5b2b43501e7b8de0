//! The text itself; what it does to a kernel is tested in `tests/kernel`.

use super::*;

fn options() -> RulesOptions {
    RulesOptions {
        queues: 7.into(),
        hooks: vec![QueueHook::Forward, QueueHook::Input],
        servers: vec![
            ("192.0.2.10".parse().unwrap(), 4128),
            ("2001:db8::10".parse().unwrap(), 4128),
        ],
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
    let script = render(Format::Iptables, &options());
    let (v4, v6) = (part(&script, "iptables"), part(&script, "ip6tables"));
    assert_eq!(
        v4.matches("-d 192.0.2.10/32 -p tcp -m tcp --dport 4129 -j RETURN")
            .count(),
        2
    );
    assert!(!v4.contains("2001:db8"));
    assert_eq!(
        v6.matches("-d 2001:db8::10/128 -p tcp -m tcp --dport 4128 -j RETURN")
            .count(),
        2
    );
    assert!(!v6.contains("192.0.2"));
    assert!(!script.contains("No server address"));
}

#[test]
fn what_is_confirmed_passes_before_the_queue_and_nothing_passes_after_it() {
    for format in [Format::Iptables, Format::Nft] {
        let text = render(format, &options());
        let confirmed = text.to_lowercase().find("confirmed").unwrap();
        let queue = text
            .find("queue-num 7")
            .or_else(|| text.find("queue num 7"))
            .unwrap();
        assert!(confirmed < queue);
        assert!(!text.contains("bypass"), "a queue without reader drops");
    }
    let script = render(Format::Iptables, &options());
    let forward: Vec<_> = part(&script, "iptables")
        .lines()
        .filter(|line| line.starts_with("-A NUFW_FORWARD"))
        .map(str::to_owned)
        .collect();
    assert!(forward.contains(&"-A NUFW_FORWARD -j DROP".to_owned()));
}

#[test]
fn a_hook_that_is_not_chosen_is_cleared() {
    let input = RulesOptions {
        hooks: vec![QueueHook::Input],
        ..options()
    };
    let script = render(Format::Iptables, &input);
    assert!(script.contains("while iptables -t mangle -D FORWARD -j NUFW_FORWARD"));
    assert!(!script.contains(":NUFW_FORWARD"));
    assert!(script.contains(":NUFW_INPUT"));
}

#[test]
fn marks_and_the_event_mask_are_choices() {
    for format in [Format::Iptables, Format::Nft] {
        let plain = RulesOptions {
            set_marks: false,
            event_mask: false,
            ..options()
        };
        let text = render(format, &plain);
        assert!(!text.contains("--save-mark") && !text.contains("ct mark set"));
        assert!(!text.contains("--ctevents") && !text.contains("ct event set"));
        assert!(text.contains("eject"), "rejecting needs no saved mark");
    }
}

#[test]
fn without_a_server_the_text_says_what_that_means() {
    for format in [Format::Iptables, Format::Nft] {
        let nobody = RulesOptions {
            servers: Vec::new(),
            ..options()
        };
        let text = render(format, &nobody);
        assert!(text.contains("# No server address is known (--server)"));
    }
}

#[test]
fn words_are_checked() {
    assert_eq!("nft".parse(), Ok(Format::Nft));
    assert_eq!("input".parse(), Ok(QueueHook::Input));
    assert_eq!(
        "outside".parse::<QueueHook>().unwrap_err().to_string(),
        "found \"outside\", expected forward, input or output"
    );
}

/// What `iptables-save` prints of a host with somebody else's rules and with ours for FORWARD.
const SAVED: &str = "\
*mangle
:FORWARD ACCEPT [0:0]
:NUFW_FORWARD - [0:0]
:OTHER - [0:0]
-A FORWARD -j OTHER
-A FORWARD -i eth1 -j NUFW_FORWARD
-A NUFW_FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 1
-A OTHER -j ACCEPT
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:NUFW_ENDED_FORWARD - [0:0]
:NUFW_FORWARD - [0:0]
-A FORWARD -j NUFW_ENDED_FORWARD
-A FORWARD -j NUFW_FORWARD
COMMIT
";

#[test]
fn loading_touches_what_is_ours_and_keeps_jumps_where_the_administrator_put_them() {
    let wanted = iptables::wanted(&options(), iptables::Family::V4);
    let text = load::plan(&load::ours(SAVED), &wanted, &iptables::TABLES);
    assert!(!text.contains("OTHER") && !text.contains("-D "), "{text}");
    assert!(!text.contains("-I FORWARD"), "both jumps are there: {text}");
    assert!(text.contains("-I INPUT 1 -j NUFW_INPUT\n"), "{text}");
    assert!(text.contains(":NUFW_FORWARD - [0:0]\n"), "{text}");
    let order: Vec<_> = text.lines().filter(|line| line.starts_with('*')).collect();
    assert_eq!(
        order,
        ["*raw", "*filter", "*mangle"],
        "what refuses comes before what queues"
    );
}

#[test]
fn what_failed_half_way_is_put_back_as_it_was() {
    let before = load::ours(SAVED);
    let after = iptables::wanted(&options(), iptables::Family::V4);
    let text = load::plan(&after, &before, &iptables::TABLES);
    for line in [
        "-D INPUT -j NUFW_INPUT\n",
        "-X NUFW_INPUT\n",
        "-A NUFW_FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let gone = load::plan(&iptables::Wanted::default(), &before, &iptables::TABLES);
    assert!(gone.contains("-I FORWARD 2 -i eth1 -j NUFW_FORWARD\n"), "{gone}");
}

#[test]
fn only_a_choice_in_writing_lets_packets_pass_and_then_they_are_marked_first() {
    for format in [Format::Iptables, Format::Nft] {
        let text = render(format, &options()).to_lowercase();
        assert!(!text.contains("bypass") && !text.contains("4000000"), "{text}");
        let choose = |on_loss| {
            let options = RulesOptions {
                on_loss,
                blind_bit: 0x0400_0000,
                ..options()
            };
            render(format, &options).to_lowercase()
        };
        let agent = choose(Choices {
            agent: OnLoss::Accept,
            ..Choices::default()
        });
        let mark = agent
            .find("-j mark --set-xmark")
            .or_else(|| agent.find("mark or 0x04000000"));
        let queue = agent.find("bypass");
        assert!(mark.is_some() && mark < queue, "{agent}");
        let full = choose(Choices {
            full: OnLoss::Accept,
            ..Choices::default()
        });
        assert!(!full.contains("bypass"), "{full}");
        assert!(
            full.contains("-j mark") || full.contains("mark or 0x04000000"),
            "{full}"
        );
        // The agent marks what it lets pass itself.
        let server = choose(Choices {
            server: OnLoss::Accept,
            ..Choices::default()
        });
        assert!(
            !server.contains("bypass") && !server.contains("-j mark"),
            "{server}"
        );
        assert!(server.contains("4ffffff"), "it is saved: {server}");
    }
}

#[test]
fn several_queues_are_balanced() {
    let several = RulesOptions {
        queues: Queues { first: 2, last: 5 },
        ..options()
    };
    assert!(render(Format::Iptables, &several).contains("--queue-balance 2:5\n"));
    assert!(render(Format::Nft, &several).contains("queue num 2-5\n"));
}

#[test]
fn what_is_loaded_is_compared_with_what_is_wanted_however_it_is_printed() {
    let options = RulesOptions {
        hooks: vec![QueueHook::Forward],
        ..options()
    };
    let script = render(Format::Iptables, &options);
    let v4 = part(&script, "iptables");
    let saved = |text: &str| {
        text.replace("RELATED,ESTABLISHED", "ESTABLISHED,RELATED")
            .replace("0x0/0xffffff", "0/0x00ffffff")
            .replace("*mangle", "*mangle\n-A FORWARD -j NUFW_FORWARD\n-A POSTROUTING -j NUFW_SAVE\n-A PREROUTING -j NUFW_RESTORE")
            .replace("*filter", "*filter\n-A FORWARD -j NUFW_FORWARD\n-A FORWARD -j NUFW_ENDED_FORWARD")
            .replace("*raw", "*raw\n-A PREROUTING -j NUFW_EVENTS")
    };
    let differ = |text: &str| differences(&options, Some(text), None, None);
    assert_eq!(differ(&saved(&v4)), Some(vec![]));
    assert_eq!(
        differ("*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n"),
        None,
        "not ours"
    );
    let found = differ(&saved(&v4).replace("--queue-num 7", "--queue-num 8")).unwrap();
    assert_eq!(found.len(), 2, "{found:#?}");
    let found = differ(&saved(&v4).replace("-A FORWARD -j NUFW_FORWARD\n", "")).unwrap();
    assert_eq!(
        found,
        [
            "iptables -t filter: FORWARD does not call NUFW_FORWARD",
            "iptables -t mangle: FORWARD does not call NUFW_FORWARD"
        ]
    );
    let both = differences(&options, Some(&saved(&v4)), None, Some("table inet nufw {\n}\n")).unwrap();
    assert!(both[0].contains("loaded twice"), "{both:?}");
}
#[test]
fn what_was_ended_is_refused_before_anything_lets_it_pass() {
    let script = render(Format::Iptables, &options());
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
        let none = RulesOptions {
            kill_bit: 0,
            ..options()
        };
        let none = render(format, &none);
        assert!(!none.contains("connmark --mark") && !none.contains("ct mark and 0x02000000"));
        let one = RulesOptions {
            hooks: vec![QueueHook::Forward],
            ..options()
        };
        let one = render(format, &one);
        assert!(!one.contains(":NUFW_ENDED_OUTPUT") && !one.contains("chain ended_output"));
    }
}

#[test]
fn what_tcp_flags_say_is_queued_before_established_packets_pass_and_never_waits() {
    let by_flags = RulesOptions {
        hooks: vec![QueueHook::Forward],
        event_mask: false,
        flags_queue: Some(8),
        ..options()
    };
    let script = render(Format::Iptables, &by_flags);
    for command in ["iptables", "ip6tables"] {
        let text = part(&script, command);
        let established = text.find("--ctstate RELATED,ESTABLISHED -j RETURN").unwrap();
        for flags in ["SYN,ACK SYN,ACK", "FIN FIN", "RST RST"] {
            let rule = format!(
                "-m connmark ! --mark 0x0/0xffffff -m tcp --tcp-flags {flags} -j NFQUEUE --queue-num 8 --queue-bypass\n"
            );
            assert!(text.find(&rule).unwrap() < established, "{rule} in {text}");
        }
        assert_eq!(text.matches("bypass").count(), 3, "new connections wait");
    }
    let nft = render(Format::Nft, &by_flags);
    let established = nft.find("ct state established,related return").unwrap();
    for flags in ["(syn | ack) == syn | ack", "fin == fin", "rst == rst"] {
        let rule = format!("ct mark and 0x00ffffff != 0 tcp flags & {flags} queue num 8 bypass\n");
        assert!(nft.find(&rule).unwrap() < established, "{rule} in {nft}");
    }
    for text in [script, nft] {
        assert!(
            !text.contains("nf_conntrack_events"),
            "a kernel without events lacks it"
        );
        assert!(!text.contains("ctevents") && !text.contains("ct event"));
    }
}

#[test]
fn neighbours_find_each_other_through_a_bridge() {
    let script = render(Format::Iptables, &options());
    let (v4, v6) = (part(&script, "iptables"), part(&script, "ip6tables"));
    let rule = "-A NUFW_FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j RETURN";
    let dropped = "-A NUFW_FORWARD -j DROP";
    assert!(v6.find(rule).unwrap() < v6.find(dropped).unwrap(), "{v6}");
    assert!(!v4.contains("icmp6"));
    assert_eq!(v6.matches("--hl-eq 255").count(), 4, "in FORWARD alone: {v6}");
}
