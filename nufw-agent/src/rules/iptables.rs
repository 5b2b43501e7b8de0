//! The rules for iptables and ip6tables: our chains and the jumps to them, and the shell script that loads them.
//!
//! Each of our chains is replaced whole in one commit, so that there is no moment without rules; a jump is added only
//! where it is missing. Rules are written as `iptables-save` prints them.

use super::{Lines, NO_SERVER, QueueHook, RulesOptions};
use std::net::IpAddr;

/// The tables, in the order in which they are loaded: what refuses is there before anything is queued.
pub(super) const TABLES: [&str; 3] = ["raw", "filter", "mangle"];

/// Every chain that may be ours: table and name.
pub(super) const OURS: [(&str, &str); 12] = [
    ("mangle", "NUFW_FORWARD"),
    ("mangle", "NUFW_INPUT"),
    ("mangle", "NUFW_OUTPUT"),
    ("mangle", "NUFW_SAVE"),
    ("mangle", "NUFW_RESTORE"),
    ("filter", "NUFW_FORWARD"),
    ("filter", "NUFW_INPUT"),
    ("filter", "NUFW_OUTPUT"),
    ("filter", "NUFW_ENDED_FORWARD"),
    ("filter", "NUFW_ENDED_INPUT"),
    ("filter", "NUFW_ENDED_OUTPUT"),
    ("raw", "NUFW_EVENTS"),
];

/// Every place that may call a chain of ours: table, from where, and which.
const CALLS: [(&str, &str, &str); 13] = [
    ("mangle", "FORWARD", "NUFW_FORWARD"),
    ("mangle", "INPUT", "NUFW_INPUT"),
    ("mangle", "OUTPUT", "NUFW_OUTPUT"),
    ("mangle", "POSTROUTING", "NUFW_SAVE"),
    ("mangle", "PREROUTING", "NUFW_RESTORE"),
    ("filter", "FORWARD", "NUFW_FORWARD"),
    ("filter", "INPUT", "NUFW_INPUT"),
    ("filter", "OUTPUT", "NUFW_OUTPUT"),
    ("filter", "FORWARD", "NUFW_ENDED_FORWARD"),
    ("filter", "INPUT", "NUFW_ENDED_INPUT"),
    ("filter", "OUTPUT", "NUFW_ENDED_OUTPUT"),
    ("raw", "PREROUTING", "NUFW_EVENTS"),
    ("raw", "OUTPUT", "NUFW_EVENTS"),
];

/// Router and neighbour solicitations and advertisements (RFC 4861 §4).
const NEIGHBOURS: [u8; 4] = [133, 134, 135, 136];

/// A chain of ours with its rules, each without the `-A CHAIN` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) rules: Vec<String>,
}

/// Where in the calling chain a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing of the administrator's may let a packet pass before it.
    First,
    /// The administrator's own choices go first.
    Last,
    /// Where it was: the number of the rule, from 1.
    At(usize),
}

/// A jump to a chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) table: String,
    pub(super) from: String,
    pub(super) to: String,
    /// The rule without the `-A CHAIN` before it.
    pub(super) rule: String,
    pub(super) place: Place,
}

/// What one family should have of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) chains: Vec<Chain>,
    pub(super) jumps: Vec<Jump>,
}

/// One of the two address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn prohibited(self) -> &'static str {
        match self {
            Self::V4 => "icmp-admin-prohibited",
            Self::V6 => "icmp6-adm-prohibited",
        }
    }
}

impl Wanted {
    fn add(&mut self, table: &str, from: &[&str], name: &str, place: Place, rules: Vec<String>) {
        self.chains.push(Chain {
            table: table.to_owned(),
            name: name.to_owned(),
            rules,
        });
        self.jumps.extend(from.iter().map(|from| Jump {
            table: table.to_owned(),
            from: (*from).to_owned(),
            to: name.to_owned(),
            rule: format!("-j {name}"),
            place,
        }));
    }

    fn has(&self, table: &str, name: &str) -> bool {
        self.chains
            .iter()
            .any(|chain| chain.table == table && chain.name == name)
    }
}

/// Chains and jumps of one family.
pub(super) fn wanted(options: &RulesOptions, family: Family) -> Wanted {
    let mut wanted = Wanted::default();
    let saved = options.saved_bits();
    let from_here = options.holds(QueueHook::Output);
    if options.event_mask {
        let from: &[&str] = if from_here {
            &["PREROUTING", "OUTPUT"]
        } else {
            &["PREROUTING"]
        };
        let rule = "-j CT --ctevents new,related,reply,destroy".to_owned();
        wanted.add("raw", from, "NUFW_EVENTS", Place::Last, vec![rule]);
    }
    for hook in QueueHook::ALL.into_iter().filter(|hook| options.holds(*hook)) {
        let from = hook.to_string().to_uppercase();
        let name = format!("NUFW_{from}");
        let mut refused = refused(options, family);
        if hook == QueueHook::Input && saved != 0 {
            // What is for the gateway itself never reaches POSTROUTING.
            refused.push(save(saved));
        }
        wanted.add("filter", &[&from], &name, Place::First, refused);
        let held = held(options, family, hook);
        wanted.add("mangle", &[&from], &name, Place::First, held);
    }
    // After the chains that they go before.
    for hook in QueueHook::ALL.into_iter().filter(|hook| options.ends_in(*hook)) {
        let from = hook.to_string().to_uppercase();
        let name = format!("NUFW_ENDED_{from}");
        wanted.add(
            "filter",
            &[&from],
            &name,
            Place::First,
            ended(options, family, hook),
        );
    }
    if options.set_marks {
        let rules = vec![restore(options.mask)];
        wanted.add("mangle", &["PREROUTING"], "NUFW_RESTORE", Place::First, rules);
    }
    if saved != 0 && (options.holds(QueueHook::Forward) || from_here) {
        let rules = vec![save(saved)];
        wanted.add("mangle", &["POSTROUTING"], "NUFW_SAVE", Place::Last, rules);
    }
    wanted
}

fn restore(bits: u32) -> String {
    format!("-j CONNMARK --restore-mark --nfmask {bits:#x} --ctmask {bits:#x}")
}

fn save(bits: u32) -> String {
    format!(
        "-m conntrack --ctstate NEW -m mark ! --mark 0x0/{bits:#x} -j CONNMARK --save-mark --nfmask {bits:#x} --ctmask {bits:#x}"
    )
}

/// The chain that refuses what was rejected.
fn refused(options: &RulesOptions, family: Family) -> Vec<String> {
    if options.reject_bit == 0 {
        return Vec::new();
    }
    let bit = format!("{:#x}", options.reject_bit);
    refuse(family, &format!("-m mark --mark {bit}/{bit}"))
}

/// The chain that refuses what belongs to a connection that was ended.
fn ended(options: &RulesOptions, family: Family, hook: QueueHook) -> Vec<String> {
    // The resets and errors that tell the other end are of the connection, too; those for the gateway come by lo.
    let mut rules = match hook {
        QueueHook::Forward => Vec::new(),
        QueueHook::Input => vec!["-i lo -m conntrack --ctstate RELATED -j RETURN".to_owned()],
        QueueHook::Output => vec!["-m conntrack --ctstate RELATED -j RETURN".to_owned()],
    };
    let bit = format!("{:#x}", options.kill_bit);
    rules.extend(refuse(family, &format!("-m connmark --mark {bit}/{bit}")));
    rules
}

/// Refuses what matches, in the way of its protocol.
fn refuse(family: Family, matches: &str) -> Vec<String> {
    vec![
        format!("-p tcp {matches} -j REJECT --reject-with tcp-reset"),
        format!("{matches} -j REJECT --reject-with {}", family.prohibited()),
    ]
}

/// The chain that holds new connections back.
fn held(options: &RulesOptions, family: Family, hook: QueueHook) -> Vec<String> {
    let mut rules = Vec::new();
    match hook {
        QueueHook::Forward => {}
        QueueHook::Input => rules.push("-i lo -j RETURN".to_owned()),
        QueueHook::Output => {
            rules.push("-o lo -j RETURN".to_owned());
            if options.set_marks {
                // What begins here does not come through PREROUTING.
                rules.push(restore(options.mask));
            }
        }
    }
    if let Some(queue) = options.flags_queue.filter(|_| hook == QueueHook::Forward) {
        // While nobody reads that queue they pass all the same.
        rules.extend(["SYN,ACK SYN,ACK", "FIN FIN", "RST RST"].map(|flags| {
            format!(
                "-p tcp -m conntrack --ctstate ESTABLISHED -m connmark ! --mark 0x0/{:#x} -m tcp --tcp-flags {flags} -j NFQUEUE --queue-num {queue} --queue-bypass",
                options.mask
            )
        }));
    }
    rules.push("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned());
    rules.push("-m conntrack --ctstate INVALID -j DROP".to_owned());
    let bits = family.bits();
    for (server, gateway_port) in options.servers.iter().filter(|(address, _)| family.has(address)) {
        for port in [gateway_port, &options.client_port] {
            let rule = format!("-d {server}/{bits} -p tcp -m tcp --dport {port} -j RETURN");
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    // A connection that was let in and has no answer yet is still NEW, but confirmed: asked once is enough.
    rules.push("-m conntrack --ctstate NEW --ctstatus CONFIRMED -j RETURN".to_owned());
    if options.marks_before() {
        let bit = format!("{:#x}", options.blind_bit);
        rules.push(format!(
            "-m conntrack --ctstate NEW -j MARK --set-xmark {bit}/{bit}"
        ));
    }
    let queues = options.queues;
    let queue = if queues.first == queues.last {
        format!("--queue-num {}", queues.first)
    } else {
        format!("--queue-balance {}:{}", queues.first, queues.last)
    };
    let bypass = if options.bypasses() { " --queue-bypass" } else { "" };
    rules.push(format!("-m conntrack --ctstate NEW -j NFQUEUE {queue}{bypass}"));
    if hook == QueueHook::Forward {
        if family == Family::V6 {
            // Neighbour discovery, which conntrack does not follow, passes through a gateway that is a bridge; a router would
            // have counted the hop limit down.
            rules.extend(NEIGHBOURS.map(|kind| {
                format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -m hl --hl-eq 255 -j RETURN")
            }));
        }
        // What else conntrack does not follow could never be accounted for. For the gateway itself that is neighbour
        // discovery, which must pass.
        rules.push("-j DROP".to_owned());
    }
    rules
}

pub(super) fn install(options: &RulesOptions) -> String {
    let mut script = Lines::default();
    script.line("#!/bin/sh");
    script.line(
        "# Rules of nufw-agent. Load: nufw-agent rules --apply (or pipe this to sh)    Remove: nufw-agent rules --remove",
    );
    if options.servers.is_empty() {
        script.line(NO_SERVER);
    }
    script.line("set -eu");
    // First of all: a rule with an event mask that is made while nf_conntrack_events is 2 and nobody listens has no
    // effect, then or later, because the kernel gives its template no events to mask.
    script.line("modprobe -q nf_conntrack 2>/dev/null || :");
    for (key, value, reason) in options.settings() {
        script.line(format!("sysctl -q -w {key}={value}    # {reason}"));
    }
    for family in [Family::V4, Family::V6] {
        let wanted = wanted(options, family);
        script.line("");
        script.line(format!("{}-restore --noflush <<'END'", family.command()));
        for table in TABLES {
            restore_table(&mut script, table, &wanted);
        }
        script.line("END");
        for jump in &wanted.jumps {
            add_jump(&mut script, family, jump);
        }
        drop_unless(
            &mut script,
            family,
            |table, name| wanted.has(table, name),
            |call| {
                wanted
                    .jumps
                    .iter()
                    .any(|jump| (jump.table.as_str(), jump.from.as_str(), jump.to.as_str()) == call)
            },
        );
    }
    script.0
}

pub(super) fn remove() -> String {
    let mut script = Lines::default();
    script.line("#!/bin/sh");
    script.line("# Removes the rules of nufw-agent; conntrack's settings stay as they are.");
    for family in [Family::V4, Family::V6] {
        script.line("");
        drop_unless(&mut script, family, |_, _| false, |_| false);
    }
    script.line("exit 0");
    script.0
}

fn restore_table(script: &mut Lines, table: &str, wanted: &Wanted) {
    let chains: Vec<_> = wanted
        .chains
        .iter()
        .filter(|chain| chain.table == table)
        .collect();
    if chains.is_empty() {
        return;
    }
    script.line(format!("*{table}"));
    for chain in &chains {
        script.line(format!(":{} - [0:0]", chain.name));
    }
    for chain in chains {
        for rule in &chain.rules {
            script.line(format!("-A {} {rule}", chain.name));
        }
    }
    script.line("COMMIT");
}

fn add_jump(script: &mut Lines, family: Family, jump: &Jump) {
    let Jump {
        table,
        from,
        to,
        place,
        ..
    } = jump;
    let command = family.command();
    let how = if *place == Place::Last { "-A" } else { "-I" };
    script.line(format!(
        "{command} -t {table} -C {from} -j {to} 2>/dev/null || {command} -t {table} {how} {from} -j {to}"
    ));
}

fn drop_unless(
    script: &mut Lines,
    family: Family,
    keeps: impl Fn(&str, &str) -> bool,
    calls: impl Fn((&str, &str, &str)) -> bool,
) {
    let command = family.command();
    for (table, from, name) in CALLS.into_iter().filter(|call| !calls(*call)) {
        script.line(format!(
            "while {command} -t {table} -D {from} -j {name} 2>/dev/null; do :; done"
        ));
    }
    for (table, name) in OURS.into_iter().filter(|(table, name)| !keeps(table, name)) {
        script.line(format!(
            "{command} -t {table} -F {name} 2>/dev/null && {command} -t {table} -X {name} || :"
        ));
    }
}
