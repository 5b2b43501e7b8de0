//! The rules as one nftables table.
//!
//! The table is deleted and made anew in one transaction. nftables before 1.1 cannot combine a packet's mark with a
//! connection's, so bits outside the mask are not kept where a mark is saved or restored.

use super::{Lines, NO_SERVER, QueueHook, RulesOptions};
use std::net::IpAddr;

pub(super) fn remove() -> String {
    let mut text = Lines::default();
    text.line("# Removes the rules of nufw-agent; conntrack's settings stay as they are.");
    clear(&mut text);
    text.0
}

/// Deletes the table. Adding it first makes that succeed when it is not there.
fn clear(text: &mut Lines) {
    text.line("add table inet nufw");
    text.line("delete table inet nufw");
}

pub(super) fn install(options: &RulesOptions) -> String {
    let mut text = Lines::default();
    text.line("# Rules of nufw-agent. Load: nufw-agent rules --format nft --apply    Remove: … --remove");
    text.line("# Conntrack needs besides:");
    for (key, value, reason) in options.settings() {
        text.line(format!("#     sysctl -w {key}={value}    # {reason}"));
    }
    if options.servers.is_empty() {
        text.line(NO_SERVER);
    }
    clear(&mut text);
    text.line("table inet nufw {");
    for chain in chains(options) {
        text.line(format!("\tchain {} {{", chain.name));
        text.line(format!(
            "\t\ttype filter hook {} priority {}; policy accept;",
            chain.hook, chain.priority
        ));
        for rule in chain.rules {
            text.line(format!("\t\t{rule}"));
        }
        text.line("\t}");
    }
    text.line("}");
    text.0
}

/// A chain of our table.
pub(super) struct Chain {
    pub(super) name: String,
    hook: String,
    priority: &'static str,
    pub(super) rules: Vec<String>,
}

pub(super) fn chains(options: &RulesOptions) -> Vec<Chain> {
    let mut chains = Vec::new();
    let mut add = |name: &str, hook: &str, priority: &'static str, rules: Vec<String>| {
        chains.push(Chain {
            name: name.to_owned(),
            hook: hook.to_owned(),
            priority,
            rules,
        });
    };
    let mask = format!("{:#010x}", options.mask);
    let from_here = options.holds(QueueHook::Output);
    if options.event_mask {
        // Priority raw would be before conntrack, where the statement has no effect.
        let rule = || vec!["ct state new ct event set new,related,reply,destroy".to_owned()];
        add("events", "prerouting", "mangle", rule());
        if from_here {
            add("events_output", "output", "mangle - 1", rule());
        }
    }
    let restore = || {
        vec![format!(
            "ct mark and {mask} != 0 meta mark set ct mark and {mask}"
        )]
    };
    if options.set_marks {
        add("restore", "prerouting", "mangle + 1", restore());
        if from_here {
            add("restore_output", "output", "mangle - 1", restore());
        }
    }
    let bits = format!("{:#010x}", options.saved_bits());
    let save = format!("ct state new meta mark and {bits} != 0 ct mark set meta mark and {bits}");
    let saves = options.saved_bits() != 0;
    for hook in QueueHook::ALL.into_iter().filter(|hook| options.holds(*hook)) {
        let at = hook.to_string();
        add(&format!("hold_{at}"), &at, "mangle", held(options, hook));
        let mut rules = Vec::new();
        if options.kill_bit != 0 {
            rules.extend(related(hook));
            rules.extend(ended(options));
        }
        rules.extend(reject(options));
        if hook == QueueHook::Input && saves {
            // What is for the gateway itself never reaches postrouting.
            rules.push(save.clone());
        }
        add(&format!("verdict_{at}"), &at, "filter - 1", rules);
    }
    // Both directions of connections that the gateway has itself.
    for hook in QueueHook::ALL {
        if options.ends_in(hook) && !options.holds(hook) {
            let mut rules: Vec<String> = related(hook).into_iter().collect();
            rules.extend(ended(options));
            add(&format!("ended_{hook}"), &hook.to_string(), "filter - 1", rules);
        }
    }
    if saves && (options.holds(QueueHook::Forward) || from_here) {
        add("save", "postrouting", "mangle", vec![save]);
    }
    chains
}

fn held(options: &RulesOptions, hook: QueueHook) -> Vec<String> {
    let mut rules = Vec::new();
    match hook {
        QueueHook::Forward => {}
        QueueHook::Input => rules.push("iif lo return".to_owned()),
        QueueHook::Output => rules.push("oif lo return".to_owned()),
    }
    if let Some(queue) = options.flags_queue.filter(|_| hook == QueueHook::Forward) {
        // While nobody reads that queue they pass all the same.
        let of_users = format!("ct state established ct mark and {:#010x} != 0", options.mask);
        rules.extend(
            ["(syn | ack) == syn | ack", "fin == fin", "rst == rst"]
                .map(|flags| format!("{of_users} tcp flags & {flags} queue num {queue} bypass")),
        );
    }
    rules.push("ct state established,related return".to_owned());
    rules.push("ct state invalid drop".to_owned());
    for (server, gateway_port) in &options.servers {
        let family = match server {
            IpAddr::V4(_) => "ip",
            IpAddr::V6(_) => "ip6",
        };
        rules.push(format!(
            "{family} daddr {server} tcp dport {{ {gateway_port}, {} }} return",
            options.client_port
        ));
    }
    rules.push("ct state new ct status confirmed return".to_owned());
    if options.marks_before() {
        let bit = format!("{:#010x}", options.blind_bit);
        rules.push(format!("ct state new meta mark set meta mark or {bit}"));
    }
    let queues = options.queues;
    let queue = if queues.first == queues.last {
        queues.first.to_string()
    } else {
        format!("{}-{}", queues.first, queues.last)
    };
    let bypass = if options.bypasses() { " bypass" } else { "" };
    rules.push(format!("ct state new queue num {queue}{bypass}"));
    if hook == QueueHook::Forward {
        // Passes through a gateway that is a bridge; a router would have counted the hop limit down.
        rules.push(
            "ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } return"
                .to_owned(),
        );
        rules.push("drop".to_owned());
    }
    rules
}

fn reject(options: &RulesOptions) -> Vec<String> {
    if options.reject_bit == 0 {
        return Vec::new();
    }
    let bit = format!("{:#010x}", options.reject_bit);
    refuse(&format!("meta mark and {bit} == {bit}"))
}

/// What belongs to connections that were ended.
fn ended(options: &RulesOptions) -> Vec<String> {
    let bit = format!("{:#010x}", options.kill_bit);
    refuse(&format!("ct mark and {bit} == {bit}"))
}

/// The resets and errors that tell the other end of an ended connection are of the connection, too.
fn related(hook: QueueHook) -> Option<String> {
    match hook {
        QueueHook::Forward => None,
        QueueHook::Input => Some("ct state related iif lo return".to_owned()),
        QueueHook::Output => Some("ct state related return".to_owned()),
    }
}

fn refuse(matches: &str) -> Vec<String> {
    vec![
        format!("{matches} meta l4proto tcp reject with tcp reset"),
        format!("{matches} reject with icmpx type admin-prohibited"),
    ]
}
