//! The rules as a shell script over iptables-restore.
//!
//! Each of our chains is replaced whole in one commit, so that there is no moment without rules; a jump is added only
//! where it is missing.

use super::{Lines, NO_SERVER, QueueHook, RulesOptions, SYSCTLS};
use std::net::IpAddr;

/// A chain of ours and where it is called from.
struct Chain {
    table: &'static str,
    name: &'static str,
    from: &'static str,
    /// First place: nothing of the administrator's may let a packet pass before it. Else last place: the
    /// administrator's own choices go first.
    first: bool,
}

const EVENTS: Chain = Chain {
    table: "raw",
    name: "NUFW_EVENTS",
    from: "PREROUTING",
    first: false,
};
const RESTORE: Chain = Chain {
    table: "mangle",
    name: "NUFW_RESTORE",
    from: "PREROUTING",
    first: true,
};
const QUEUE_FORWARD: Chain = Chain {
    table: "mangle",
    name: "NUFW_FORWARD",
    from: "FORWARD",
    first: true,
};
const QUEUE_INPUT: Chain = Chain {
    table: "mangle",
    name: "NUFW_INPUT",
    from: "INPUT",
    first: true,
};
const SAVE: Chain = Chain {
    table: "mangle",
    name: "NUFW_SAVE",
    from: "POSTROUTING",
    first: false,
};
const VERDICT_FORWARD: Chain = Chain {
    table: "filter",
    name: "NUFW_FORWARD",
    from: "FORWARD",
    first: true,
};
const VERDICT_INPUT: Chain = Chain {
    table: "filter",
    name: "NUFW_INPUT",
    from: "INPUT",
    first: true,
};
const ALL: [&Chain; 7] = [
    &QUEUE_FORWARD,
    &QUEUE_INPUT,
    &VERDICT_FORWARD,
    &VERDICT_INPUT,
    &SAVE,
    &RESTORE,
    &EVENTS,
];

/// One of the two address families.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn command(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn prohibited(self) -> &'static str {
        match self {
            Self::V4 => "icmp-admin-prohibited",
            Self::V6 => "icmp6-adm-prohibited",
        }
    }
}

pub(super) fn install(options: &RulesOptions) -> String {
    let mut script = Lines::default();
    script.line("#!/bin/sh");
    script
        .line("# Rules of nufw-agent. Load: nufw-agent rules | sh    Remove: nufw-agent rules --remove | sh");
    if options.servers.is_empty() {
        script.line(NO_SERVER);
    }
    script.line("set -eu");
    // First of all: a rule with an event mask that is made while nf_conntrack_events is 2 and nobody listens has no
    // effect, then or later, because the kernel gives its template no events to mask.
    script.line("modprobe -q nf_conntrack 2>/dev/null || :");
    for (key, value, reason) in SYSCTLS {
        script.line(format!("sysctl -q -w {key}={value}    # {reason}"));
    }
    let wanted = chains(options);
    for family in [Family::V4, Family::V6] {
        script.line("");
        script.line(format!("{}-restore --noflush <<'END'", family.command()));
        for table in ["raw", "mangle", "filter"] {
            restore_table(&mut script, options, family, table, &wanted);
        }
        script.line("END");
        for chain in ALL {
            if wanted
                .iter()
                .any(|wanted| wanted.name == chain.name && wanted.table == chain.table)
            {
                jump(&mut script, family, chain);
            } else {
                drop_chain(&mut script, family, chain);
            }
        }
    }
    script.0
}

pub(super) fn remove() -> String {
    let mut script = Lines::default();
    script.line("#!/bin/sh");
    script.line("# Removes the rules of nufw-agent; conntrack's settings stay as they are.");
    for family in [Family::V4, Family::V6] {
        script.line("");
        for chain in ALL {
            drop_chain(&mut script, family, chain);
        }
    }
    script.line("exit 0");
    script.0
}

fn chains(options: &RulesOptions) -> Vec<&'static Chain> {
    let mut chains = Vec::new();
    if options.event_mask {
        chains.push(&EVENTS);
    }
    if options.set_marks {
        chains.push(&RESTORE);
    }
    if options.holds(QueueHook::Forward) {
        chains.extend([&QUEUE_FORWARD, &VERDICT_FORWARD]);
        if options.set_marks {
            chains.push(&SAVE);
        }
    }
    if options.holds(QueueHook::Input) {
        chains.extend([&QUEUE_INPUT, &VERDICT_INPUT]);
    }
    chains
}

fn restore_table(script: &mut Lines, options: &RulesOptions, family: Family, table: &str, wanted: &[&Chain]) {
    let chains: Vec<_> = wanted.iter().filter(|chain| chain.table == table).collect();
    if chains.is_empty() {
        return;
    }
    script.line(format!("*{table}"));
    for chain in &chains {
        script.line(format!(":{} - [0:0]", chain.name));
    }
    for chain in chains {
        for rule in rules(options, family, chain) {
            script.line(format!("-A {} {rule}", chain.name));
        }
    }
    script.line("COMMIT");
}

fn rules(options: &RulesOptions, family: Family, chain: &Chain) -> Vec<String> {
    let mask = format!("{:#x}", options.mask);
    let save = format!(
        "-m conntrack --ctstate NEW -m mark ! --mark 0/{mask} -j CONNMARK --save-mark --nfmask {mask} --ctmask {mask}"
    );
    match (chain.table, chain.from) {
        ("raw", _) => vec!["-j CT --ctevents new,related,reply,destroy".to_owned()],
        ("mangle", "PREROUTING") => {
            vec![format!(
                "-j CONNMARK --restore-mark --nfmask {mask} --ctmask {mask}"
            )]
        }
        ("mangle", "POSTROUTING") => vec![save],
        ("mangle", from) => held(options, family, from == "INPUT"),
        (_, from) => {
            let bit = format!("{:#x}", options.reject_bit);
            let mut rules = vec![
                format!("-p tcp -m mark --mark {bit}/{bit} -j REJECT --reject-with tcp-reset"),
                format!(
                    "-m mark --mark {bit}/{bit} -j REJECT --reject-with {}",
                    family.prohibited()
                ),
            ];
            if from == "INPUT" && options.set_marks {
                // What is for the gateway itself never reaches POSTROUTING.
                rules.push(save);
            }
            rules
        }
    }
}

/// The chain that holds new connections back.
fn held(options: &RulesOptions, family: Family, is_input: bool) -> Vec<String> {
    let mut rules = Vec::new();
    if is_input {
        rules.push("-i lo -j RETURN".to_owned());
    }
    rules.push("-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN".to_owned());
    rules.push("-m conntrack --ctstate INVALID -j DROP".to_owned());
    for server in options.servers.iter().filter(|address| family.has(address)) {
        for port in [options.gateway_port, options.client_port] {
            rules.push(format!("-d {server} -p tcp --dport {port} -j RETURN"));
        }
    }
    // A connection that was let in and has no answer yet is still NEW, but confirmed: asked once is enough.
    rules.push("-m conntrack --ctstate NEW --ctstatus CONFIRMED -j RETURN".to_owned());
    let queue = match (options.queue, options.last_queue()) {
        (first, last) if first == last => format!("--queue-num {first}"),
        (first, last) => format!("--queue-balance {first}:{last}"),
    };
    rules.push(format!("-m conntrack --ctstate NEW -j NFQUEUE {queue}"));
    if !is_input {
        // What conntrack does not follow could never be accounted for. For the gateway itself that is neighbour
        // discovery, which must pass.
        rules.push("-j DROP".to_owned());
    }
    rules
}

fn jump(script: &mut Lines, family: Family, chain: &Chain) {
    let (command, table, from, name) = (family.command(), chain.table, chain.from, chain.name);
    let place = if chain.first { "-I" } else { "-A" };
    script.line(format!(
        "{command} -t {table} -C {from} -j {name} 2>/dev/null || {command} -t {table} {place} {from} -j {name}"
    ));
}

fn drop_chain(script: &mut Lines, family: Family, chain: &Chain) {
    let (command, table, from, name) = (family.command(), chain.table, chain.from, chain.name);
    script.line(format!(
        "while {command} -t {table} -D {from} -j {name} 2>/dev/null; do :; done"
    ));
    script.line(format!(
        "{command} -t {table} -F {name} 2>/dev/null && {command} -t {table} -X {name} || :"
    ));
}
