//! `check` on a namespace that has nothing, and on one that has everything.

use crate::support::{Netns, permitted, runtime, sh};
use nufw_agent::check::{AgentConfigView, Finding, Level, Listings, collect, judge};
use nufw_agent::loss::Choices;
use nufw_agent::queue::{Queue, QueueOptions};
use nufw_agent::rules::{Format, QueueHook, RulesOptions, render};
use nufw_common::exit::Exit;
use nufw_common::sandbox::Mode;
use nufw_proto::gateway::Hook;

fn view() -> AgentConfigView {
    AgentConfigView {
        queue: 3,
        rules: None,
        queue_buffer: 65_536,
        event_buffer: 65_536,
        relays_events: true,
        flags_queue: None,
        sandbox: Mode::Enforce,
        sets_marks: true,
        mask: 0x00ff_ffff,
        reject_bit: 0x0100_0000,
        kill_bit: 0x0200_0000,
        blind_bit: 0,
        on_loss: Choices::default(),
        files: Vec::new(),
    }
}

fn bad() -> Vec<Finding> {
    judge(&view(), &collect(&view()))
        .into_iter()
        .filter(|finding| finding.level != Level::Ok)
        .collect()
}

#[test]
fn what_is_missing_is_mended_by_the_rules() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let needs: Vec<_> = bad().into_iter().map(|finding| finding.need).collect();
        for need in ["sysctl nf_conntrack_acct = 1", "a rule that sends to queue 3"] {
            assert!(needs.iter().any(|found| found == need), "{need} in {needs:?}");
        }
        let options = RulesOptions {
            queues: 3.into(),
            ..RulesOptions::default()
        };
        sh(&render(Format::Iptables, &options));
        let loose: Vec<_> = bad().into_iter().map(|finding| finding.need).collect();
        assert_eq!(
            loose,
            ["sysctl nf_conntrack_tcp_loose"],
            "the administrator's choice"
        );
        sh("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0");
        assert_eq!(bad(), []);

        let runtime = runtime();
        let _inside = runtime.enter();
        let queue = Queue::open(&QueueOptions {
            number: 3,
            count: 1,
            length: 10,
            copy_range: 128,
            receive_buffer: 65_536,
            fail_open: false,
            passing: false,
        })
        .unwrap();
        let taken = bad();
        assert_eq!(taken.len(), 1, "{taken:#?}");
        assert_eq!(taken[0].exit, Some(Exit::Unavailable));
        assert!(taken[0].found.contains(&std::process::id().to_string()));
        drop(queue);

        let mut listener = std::process::Command::new("conntrack")
            .arg("-E")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut found = Vec::new();
        for _ in 0..100 {
            found = bad();
            if !found.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        listener.kill().unwrap();
        listener.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].found.starts_with("conntrack (pid "), "{found:#?}");
    });
}

/// For IPv4 FORWARD and INPUT, then the same for IPv6: whether what is rejected is refused there.
fn refused() -> [bool; 4] {
    let (v4, v6) = Listings::list().rules();
    let (v4, v6) = (v4.unwrap(), v6.unwrap());
    let refused = |facts: &nufw_agent::check::RuleFacts, hook| facts.refuses(3, 0x0100_0000, hook);
    [
        refused(&v4, Hook::Forward),
        refused(&v4, Hook::Input),
        refused(&v6, Hook::Forward),
        refused(&v6, Hook::Input),
    ]
}

#[test]
fn reject_rules_are_recognised_in_what_the_commands_print() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let options = RulesOptions {
            queues: 3.into(),
            hooks: vec![QueueHook::Forward, QueueHook::Input],
            ..RulesOptions::default()
        };
        assert_eq!(refused(), [false; 4]);
        sh("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0");
        sh(&render(Format::Iptables, &options));
        assert_eq!(refused(), [true; 4]);
        let fewer = RulesOptions {
            hooks: vec![QueueHook::Forward],
            ..options.clone()
        };
        sh(&render(Format::Iptables, &fewer));
        assert_eq!(refused(), [true, false, true, false]);
        sh(&render(Format::Iptables, &options));
        sh("iptables -I FORWARD -p tcp -j ACCEPT; ip6tables -I INPUT -i lo -j LOG");
        assert_eq!(refused(), [false, true, true, true]);
        sh("iptables -F FORWARD; iptables -D INPUT -j NUFW_INPUT; ip6tables -F");
        assert_eq!(refused(), [false; 4]);
        let line = bad();
        assert_eq!(line.len(), 2, "{line:#?}");
        assert_eq!(line[1].need, "rules that refuse connections that the server ends");
        // Where only that jump is left it still does its work.
        let lacking = "none for IPv4 forward, IPv6 forward, IPv6 input, ";
        assert!(line[1].found.starts_with(lacking), "{line:#?}");
        assert_eq!(line[0].need, "rules that refuse what the server rejects");
        assert!(
            line[0]
                .found
                .contains("IPv4 forward, IPv4 input, IPv6 forward, IPv6 input"),
            "{line:#?}"
        );
        let mend = line[0].mend.as_deref().unwrap();
        assert!(mend.contains("--hook forward,input --apply"), "{mend}");

        // The queue of iptables with the verdicts of nftables: this kernel may not have the queue statement.
        let text = render(Format::Nft, &options);
        let text = text.replace("queue num 3\n", "accept\n");
        sh(&format!("nft -f - <<'END'\n{text}END\n"));
        assert_eq!(refused(), [true; 4]);
        assert_eq!(bad(), []);
        sh("nft flush chain inet nufw verdict_input");
        assert_eq!(refused(), [true, false, true, false]);
        assert_eq!(bad().len(), 2, "what is ended passes there, too");
    });
}
