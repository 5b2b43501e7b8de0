//! Rules loaded and removed as a whole: what is there afterwards, and after a failure what was there before.

use crate::support::{Netns, permitted, sh};
use nufw_agent::check::{AgentConfigView, Level, collect, judge};
use nufw_agent::loss::{Choices, OnLoss};
use nufw_agent::rules::load::{apply, remove};
use nufw_agent::rules::{Backend, LoadError, QueueHook, Queues, RulesOptions};
use nufw_common::sandbox::Mode;

const OTHERS: &str = "iptables -t mangle -A FORWARD -p tcp -j MARK --set-mark 0x2000000/0x2000000\n\
     iptables -A FORWARD -s 192.0.2.1 -j ACCEPT\n\
     iptables -N OTHER; iptables -A OTHER -j RETURN; iptables -A INPUT -j OTHER\n\
     ip6tables -t raw -A PREROUTING -p udp --dport 53 -j CT --notrack";

fn options(hooks: &[QueueHook]) -> RulesOptions {
    RulesOptions {
        queues: Queues { first: 3, last: 4 },
        hooks: hooks.to_vec(),
        servers: vec![
            ("192.0.2.10".parse().unwrap(), 4128),
            ("2001:db8::10".parse().unwrap(), 4128),
        ],
        on_loss: Choices {
            agent: OnLoss::Accept,
            ..Choices::default()
        },
        blind_bit: 0x0400_0000,
        ..RulesOptions::default()
    }
}

/// What is loaded, without counters and comments.
fn loaded() -> String {
    let text = sh("iptables-save; ip6tables-save; nft list tables | grep nufw || :");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// What `check` says of rules, for this configuration; only what is not fine.
fn complaints(options: &RulesOptions) -> Vec<String> {
    let view = AgentConfigView {
        queue: 3,
        rules: Some(options.clone()),
        queue_buffer: 65_536,
        event_buffer: 65_536,
        relays_events: true,
        flags_queue: None,
        sandbox: Mode::Enforce,
        sets_marks: true,
        mask: options.mask,
        reject_bit: options.reject_bit,
        kill_bit: options.kill_bit,
        blind_bit: options.blind_bit,
        on_loss: options.on_loss,
        files: Vec::new(),
    };
    judge(&view, &collect(&view))
        .into_iter()
        .filter(|finding| finding.level != Level::Ok)
        .map(|finding| format!("{}: {}", finding.need, finding.found))
        .collect()
}

#[test]
fn loading_twice_is_loading_once_and_removing_leaves_what_was_there() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        sh(OTHERS);
        let before = loaded();
        let all = options(&QueueHook::ALL);
        apply(Backend::Auto, &all).unwrap();
        let once = loaded();
        for rule in [
            "-j NFQUEUE --queue-balance 3:4 --queue-bypass",
            "-j MARK --set-xmark 0x4000000/0x4000000",
            "-A OUTPUT -j NUFW_OUTPUT",
            "-A INPUT -j OTHER",
        ] {
            assert!(once.contains(rule), "{rule} in {once}");
        }
        apply(Backend::Auto, &all).unwrap();
        assert_eq!(loaded(), once);
        assert_eq!(sh("sysctl -n net.netfilter.nf_conntrack_acct").trim(), "1");
        // What is loaded is what the configuration asks for, as these commands print it.
        let said = complaints(&all);
        assert!(
            !said.iter().any(|line| line.starts_with("the generated rules")),
            "{said:#?}"
        );
        assert!(said.iter().any(|line| line.contains("--notrack")), "{said:#?}");

        // Fewer hooks: what is not needed goes, jumps included.
        let forward = options(&[QueueHook::Forward]);
        apply(Backend::Auto, &forward).unwrap();
        let fewer = loaded();
        assert!(
            !fewer.contains("NUFW_INPUT") && !fewer.contains("NUFW_OUTPUT"),
            "{fewer}"
        );
        assert!(
            complaints(&all)
                .iter()
                .any(|line| line.contains("NUFW_INPUT is missing"))
        );
        remove(Backend::Auto).unwrap();
        // Base chains that did not exist in the kernel before may stay, empty.
        let rules = |text: &str| {
            text.lines()
                .filter(|line| line.starts_with("-A"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(rules(&loaded()), rules(&before));
        assert!(!loaded().contains("NUFW"));
        remove(Backend::Auto).unwrap();
    });
}

#[test]
fn a_jump_stays_where_the_administrator_put_it() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        sh(OTHERS);
        let options = options(&[QueueHook::Forward]);
        apply(Backend::Iptables, &options).unwrap();
        sh("iptables -t mangle -D FORWARD -j NUFW_FORWARD; iptables -t mangle -A FORWARD -i eth1 -j NUFW_FORWARD");
        let moved = loaded();
        apply(Backend::Iptables, &options).unwrap();
        assert_eq!(loaded(), moved);
        sh("iptables -t mangle -F FORWARD");
        apply(Backend::Iptables, &options).unwrap();
        assert!(loaded().contains("-A FORWARD -j NUFW_FORWARD\n"));
    });
}

#[test]
fn a_load_that_fails_leaves_the_rules_of_before() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        sh(OTHERS);
        apply(Backend::Iptables, &options(&QueueHook::ALL)).unwrap();
        // Rules of somebody else's that call our chains would hold them fast.
        sh("ip6tables -t mangle -N HOLD; ip6tables -t mangle -A HOLD -j NUFW_INPUT -m comment --comment mine");
        sh("ip6tables -t mangle -A HOLD -p tcp -g NUFW_OUTPUT");
        apply(Backend::Iptables, &options(&[QueueHook::Forward])).unwrap();
        assert!(!loaded().contains("NUFW_INPUT"));
        apply(Backend::Iptables, &options(&QueueHook::ALL)).unwrap();

        // This kernel, like many, may not have what nft needs; then the rules of iptables must stay.
        let before_nft = loaded();
        match apply(Backend::Nft, &options(&[QueueHook::Forward])) {
            Ok(()) => {
                let both = loaded();
                assert!(both.contains("table inet nufw") && !both.contains("NFQUEUE"), "{both}");
                apply(Backend::Iptables, &options(&QueueHook::ALL)).unwrap();
                assert!(!loaded().contains("table inet nufw"));
            }
            Err(LoadError::Refused { command, said }) => {
                assert_eq!(command, "nft");
                assert!(!said.is_empty());
                assert_eq!(loaded(), before_nft);
            }
            Err(other) => panic!("{other}"),
        }
        // A rule that is not taken.
        let wrong = RulesOptions {
            blind_bit: 0,
            queues: Queues { first: 9, last: 8 },
            ..options(&[QueueHook::Forward])
        };
        let before_wrong = loaded();
        let error = apply(Backend::Iptables, &wrong).unwrap_err();
        assert!(matches!(error, LoadError::Refused { .. }), "{error}");
        assert_eq!(loaded(), before_wrong);
    });
}
