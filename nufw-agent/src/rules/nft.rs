//! The rules as one nftables table.
//!
//! The table is deleted and made anew in one transaction. nftables before 1.1 cannot combine a packet's mark with a
//! connection's, so bits outside the mask are not kept where a mark is saved or restored.

use super::{Lines, NO_SERVER, QueueHook, RulesOptions, SYSCTLS};
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
    text.line(
        "# Rules of nufw-agent. Load: nufw-agent rules --format nft | nft -f -    Remove: add --remove",
    );
    text.line("# Conntrack needs besides:");
    for (key, value, reason) in SYSCTLS {
        text.line(format!("#     sysctl -w {key}={value}    # {reason}"));
    }
    if options.servers.is_empty() {
        text.line(NO_SERVER);
    }
    clear(&mut text);
    text.line("table inet nufw {");
    let mask = format!("{:#010x}", options.mask);
    if options.event_mask {
        // Priority raw would be before conntrack, where the statement has no effect.
        let rule = "ct state new ct event set new,related,reply,destroy".to_owned();
        chain(&mut text, "events", "prerouting", "mangle", &[rule]);
    }
    if options.set_marks {
        let rule = format!("ct mark and {mask} != 0 meta mark set ct mark and {mask}");
        chain(&mut text, "restore", "prerouting", "mangle + 1", &[rule]);
    }
    let save = format!("ct state new meta mark and {mask} != 0 ct mark set meta mark and {mask}");
    if options.holds(QueueHook::Forward) {
        chain(
            &mut text,
            "hold_forward",
            "forward",
            "mangle",
            &held(options, false),
        );
        chain(
            &mut text,
            "verdict_forward",
            "forward",
            "filter - 1",
            &reject(options),
        );
        if options.set_marks {
            chain(
                &mut text,
                "save",
                "postrouting",
                "mangle",
                std::slice::from_ref(&save),
            );
        }
    }
    if options.holds(QueueHook::Input) {
        chain(&mut text, "hold_input", "input", "mangle", &held(options, true));
        let mut rules = reject(options);
        if options.set_marks {
            // What is for the gateway itself never reaches postrouting.
            rules.push(save);
        }
        chain(&mut text, "verdict_input", "input", "filter - 1", &rules);
    }
    text.line("}");
    text.0
}

fn chain(text: &mut Lines, name: &str, hook: &str, priority: &str, rules: &[String]) {
    text.line(format!("\tchain {name} {{"));
    text.line(format!(
        "\t\ttype filter hook {hook} priority {priority}; policy accept;"
    ));
    for rule in rules {
        text.line(format!("\t\t{rule}"));
    }
    text.line("\t}");
}

fn held(options: &RulesOptions, is_input: bool) -> Vec<String> {
    let mut rules = Vec::new();
    if is_input {
        rules.push("iif lo return".to_owned());
    }
    rules.push("ct state established,related return".to_owned());
    rules.push("ct state invalid drop".to_owned());
    for server in &options.servers {
        let family = match server {
            IpAddr::V4(_) => "ip",
            IpAddr::V6(_) => "ip6",
        };
        rules.push(format!(
            "{family} daddr {server} tcp dport {{ {}, {} }} return",
            options.gateway_port, options.client_port
        ));
    }
    rules.push("ct state new ct status confirmed return".to_owned());
    let queue = match (options.queue, options.last_queue()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    rules.push(format!("ct state new queue num {queue}"));
    if !is_input {
        rules.push("drop".to_owned());
    }
    rules
}

fn reject(options: &RulesOptions) -> Vec<String> {
    let bit = format!("{:#010x}", options.reject_bit);
    vec![
        format!("meta mark and {bit} == {bit} meta l4proto tcp reject with tcp reset"),
        format!("meta mark and {bit} == {bit} reject with icmpx type admin-prohibited"),
    ]
}
