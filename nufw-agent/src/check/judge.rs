//! What the facts mean: a pure function from what was seen to what is said.
//!
//! Each need is one function; each finding that is not fine names the command that mends it.

use super::{AgentConfigView, Finding, HostFacts, Level, RuleFacts, whole};
use crate::queue::Holder;
use crate::rules::QueueHook;
use nufw_common::exit::Exit;
use nufw_common::sandbox::Mode;

pub(super) fn ok(need: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding {
        need: need.into(),
        level: Level::Ok,
        found: found.into(),
        mend: None,
        exit: None,
    }
}

pub(super) fn warn(need: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        level: Level::Warn,
        mend: Some(mend.into()),
        ..ok(need, found)
    }
}

fn missing(
    exit: Exit,
    need: impl Into<String>,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding {
        level: Level::Missing,
        exit: Some(exit),
        ..warn(need, found, mend)
    }
}

/// Says for each need whether it is met.
pub fn judge(view: &AgentConfigView, facts: &HostFacts) -> Vec<Finding> {
    let mut findings = vec![capability(facts), sandbox(view), queue(view, facts)];
    findings.extend(settings(view, facts));
    findings.extend(buffers(view, facts));
    findings.push(queue_rule(view, facts));
    findings.extend(reject_rules(view, facts));
    findings.extend(end_rules(view, facts));
    findings.extend(rules(view, facts));
    findings.extend(flag_rules(view, facts));
    findings.extend(whole::generated(view, facts));
    findings.extend(whole::escapes(view, facts));
    findings.extend(whole::choices(view, facts));
    for (file, problem) in view.files.iter().zip(&facts.files) {
        findings.push(match problem {
            None => ok(file.key, file.path.display().to_string()),
            Some(problem) => missing(
                Exit::Config,
                file.key,
                format!("{}: {problem}", file.path.display()),
                format!("correct {} or the file", file.key),
            ),
        });
    }
    findings
}

fn capability(facts: &HostFacts) -> Finding {
    let need = "capability CAP_NET_ADMIN";
    if facts.net_admin {
        ok(need, "effective")
    } else {
        missing(
            Exit::NoPerm,
            need,
            "not effective",
            "start as root, or with AmbientCapabilities=CAP_NET_ADMIN in the unit",
        )
    }
}

fn sandbox(view: &AgentConfigView) -> Finding {
    let need = "sandbox";
    match view.sandbox {
        Mode::Off => warn(
            need,
            "off: whoever finds a fault in the agent can do what its user can",
            "privileges.sandbox = \"best-effort\" or \"enforce\"",
        ),
        mode => ok(need, mode.to_string()),
    }
}

/// Whether a program is this one: the check is also asked while the agent runs.
fn is_agent(holder: &Holder) -> bool {
    holder.program.as_deref() == Some("nufw-agent")
}

fn queue(view: &AgentConfigView, facts: &HostFacts) -> Finding {
    let need = format!("queue {}", view.queue);
    match &facts.queue_holder {
        None => ok(need, "free"),
        Some(holder) if is_agent(holder) => ok(need, format!("read by {holder}, which runs")),
        Some(holder) => missing(
            Exit::Unavailable,
            need,
            format!("taken by {holder}"),
            match holder.pid {
                Some(pid) => format!("kill {pid}    # or another queue.number"),
                None => "stop that program, or choose another queue.number".to_owned(),
            },
        ),
    }
}

fn settings(view: &AgentConfigView, facts: &HostFacts) -> Vec<Finding> {
    let wanted = [
        ("acct", facts.acct, "rows have no counters"),
        (
            "timestamp",
            facts.timestamp,
            "rows have no kernel times, only those of receipt",
        ),
        (
            "events",
            facts.events,
            "connections older than the agent end unseen",
        ),
    ];
    let mut findings: Vec<_> = wanted
        .into_iter()
        .filter(|_| view.relays_events)
        .map(|(name, value, without)| {
            let need = format!("sysctl nf_conntrack_{name} = 1");
            let mut mend = format!("sysctl -w net.netfilter.nf_conntrack_{name}=1");
            if name == "events" {
                // The kernel ignores the event mask of a rule that was made while the setting was 2.
                mend = format!("{mend} && {LOAD_RULES}");
            }
            match value {
                Some(1) => ok(need, "1"),
                Some(value) => missing(Exit::Config, need, format!("{value}: {without}"), mend),
                None => missing(
                    Exit::Config,
                    need,
                    "not there: conntrack is not loaded, or the kernel lacks it",
                    format!("modprobe nf_conntrack && {mend}"),
                ),
            }
        })
        .collect();
    if let Some(loose) = facts.tcp_loose {
        let need = "sysctl nf_conntrack_tcp_loose";
        let asked = format!(
            "{loose}: packets from the middle of an unknown TCP connection are asked about like new ones"
        );
        findings.push(if loose == 0 {
            ok(
                need,
                "0: packets from the middle of an unknown TCP connection are dropped",
            )
        } else if view.relays_events {
            warn(
                need,
                format!("{asked}, also of one that the server has ended"),
                "sysctl -w net.netfilter.nf_conntrack_tcp_loose=0    # then a flush of the table ends TCP connections",
            )
        } else {
            ok(need, asked)
        });
    }
    findings
}

fn buffers(view: &AgentConfigView, facts: &HostFacts) -> Option<Finding> {
    let need = "receive buffers";
    let wanted = view
        .queue_buffer
        .max(if view.relays_events { view.event_buffer } else { 0 });
    if facts.force_buffer {
        return Some(ok(need, format!("{wanted} bytes can be had")));
    }
    // In a namespace the host's limit may not be visible; then the granted size in the log is all there is to see.
    let limit = facts.rmem_max?;
    Some(if limit >= wanted {
        ok(
            need,
            format!("{wanted} bytes can be had (net.core.rmem_max {limit})"),
        )
    } else {
        warn(
            need,
            format!("only {limit} of {wanted} bytes can be had: bursts will be lost and counted"),
            format!("sysctl -w net.core.rmem_max={wanted}    # on the host"),
        )
    })
}

const LOAD_RULES: &str = whole::APPLY;

fn queue_rule(view: &AgentConfigView, facts: &HostFacts) -> Finding {
    let need = format!("a rule that sends to queue {}", view.queue);
    let seen = [("IPv4", &facts.rules_v4), ("IPv6", &facts.rules_v6)];
    let known: Vec<_> = seen
        .iter()
        .filter_map(|(family, rules)| Some((*family, rules.as_ref()?)))
        .collect();
    if known.is_empty() {
        return warn(
            need,
            "the rules cannot be seen",
            "run the check with CAP_NET_ADMIN where iptables-save or nft is installed",
        );
    }
    let (with, without): (Vec<_>, Vec<_>) = known.iter().partition(|(_, rules)| rules.queues(view.queue));
    let names = |list: &[(&str, &RuleFacts)]| {
        list.iter()
            .map(|(family, _)| *family)
            .collect::<Vec<_>>()
            .join(" and ")
    };
    if with.is_empty() {
        return missing(
            Exit::Config,
            need,
            "none: every connection passes or falls without being asked about",
            LOAD_RULES,
        );
    }
    if without.is_empty() {
        ok(need, names(&with))
    } else {
        warn(
            need,
            format!(
                "for {} only, nothing asks about {}",
                names(&with),
                names(&without)
            ),
            LOAD_RULES,
        )
    }
}

/// Whether what the server rejects is answered; without, the agent drops it.
fn reject_rules(view: &AgentConfigView, facts: &HostFacts) -> Option<Finding> {
    let need = "rules that refuse what the server rejects";
    if view.reject_bit == 0 {
        return Some(ok(need, "not wanted (marks.reject-bit = 0): it is dropped"));
    }
    let hooks = QueueHook::ALL;
    let (mut there, mut lacking, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for (family, rules) in [("IPv4", &facts.rules_v4), ("IPv6", &facts.rules_v6)] {
        let Some(rules) = rules else { continue };
        for hook in hooks {
            if !rules.queues_at(view.queue, hook.into()) {
                continue;
            }
            if !used.contains(&hook) {
                used.push(hook);
            }
            let place = format!("{family} {hook}");
            if rules.refuses(view.queue, view.reject_bit, hook.into()) {
                there.push(place);
            } else {
                lacking.push(place);
            }
        }
    }
    if lacking.is_empty() {
        // Where nothing is queued, or nothing can be seen, that is what is said.
        return (!there.is_empty()).then(|| ok(need, there.join(", ")));
    }
    Some(warn(
        need,
        format!(
            "none for {}, or another rule comes before it: there the agent drops what the server rejects, and nobody is told",
            lacking.join(", ")
        ),
        load_rules(&used),
    ))
}

/// Whether what the server ends is refused in both directions; without, it is only forgotten.
fn end_rules(view: &AgentConfigView, facts: &HostFacts) -> Option<Finding> {
    let need = "rules that refuse connections that the server ends";
    if !view.relays_events {
        return None;
    }
    if view.kill_bit == 0 {
        return Some(ok(need, "not wanted (marks.kill-bit = 0): they are deleted"));
    }
    let (mut there, mut lacking, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for (family, rules) in [("IPv4", &facts.rules_v4), ("IPv6", &facts.rules_v6)] {
        let Some(rules) = rules else { continue };
        for hook in [QueueHook::Forward, QueueHook::Input] {
            if !rules.queues_at(view.queue, hook.into()) {
                continue;
            }
            if !used.contains(&hook) {
                used.push(hook);
            }
            let list = if rules.ends(view.kill_bit, hook.into()) {
                &mut there
            } else {
                &mut lacking
            };
            list.push(format!("{family} {hook}"));
        }
    }
    if lacking.is_empty() {
        return (!there.is_empty()).then(|| ok(need, there.join(", ")));
    }
    Some(warn(
        need,
        format!(
            "none for {}, or another rule comes before it: there the agent only deletes what the server ends, and neither end is told",
            lacking.join(", ")
        ),
        load_rules(&used),
    ))
}

/// Whether the segments are queued by which connections are followed without conntrack's events.
fn flag_rules(view: &AgentConfigView, facts: &HostFacts) -> Option<Finding> {
    let queue = view.flags_queue?;
    let need = format!("rules that send SYN/ACK, FIN and RST to queue {queue}");
    let known: Vec<_> = [&facts.rules_v4, &facts.rules_v6].into_iter().flatten().collect();
    if known.is_empty() {
        // Said of the other queue already.
        return None;
    }
    let (there, passes) = (
        known.iter().all(|rules| rules.queues(queue)),
        known.iter().all(|rules| rules.bypasses(queue)),
    );
    Some(match (there, passes) {
        (true, true) => ok(need, "there; rows have no counters, and UDP ends as untracked"),
        (true, false) => warn(
            need,
            "without --queue-bypass: while the agent does not run, established connections break",
            LOAD_RULES,
        ),
        (false, _) => missing(
            Exit::Config,
            need,
            "none: nobody tells how connections go on, and rows stay open until limits.flags-timeout",
            LOAD_RULES,
        ),
    })
}

/// The command that loads the rules for some hooks; those of other hooks it removes.
fn load_rules(hooks: &[QueueHook]) -> String {
    let hooks: Vec<_> = hooks.iter().map(ToString::to_string).collect();
    format!(
        "nufw-agent rules --hook {} --apply    # then SIGHUP to the agent",
        hooks.join(",")
    )
}

fn rules(view: &AgentConfigView, facts: &HostFacts) -> Vec<Finding> {
    let known: Vec<_> = [&facts.rules_v4, &facts.rules_v6]
        .into_iter()
        .flatten()
        .filter(|rules| rules.queues(view.queue))
        .collect();
    let mut findings = Vec::new();
    if known.is_empty() {
        return findings;
    }
    if view.sets_marks {
        let need = "a rule that saves the user's mark";
        findings.push(if known.iter().all(|rules| rules.saves_mark) {
            ok(need, "there")
        } else {
            missing(
                Exit::Config,
                need,
                "none: connections do not carry the mark of their user",
                LOAD_RULES,
            )
        });
    }
    if view.relays_events {
        let need = "an event mask (new, reply, destroy)";
        let masked = known.iter().all(|rules| rules.masks_events);
        findings.push(if masked {
            ok(need, "there")
        } else {
            warn(
                need,
                "none: about seven events a connection where three are needed",
                LOAD_RULES,
            )
        });
        if known.iter().any(|rules| rules.masks_related) && !facts.helpers.is_empty() {
            findings.push(warn(
                "events of connections that others bring with them",
                format!(
                    "the event mask leaves out \"related\", and helpers are in use ({}): such connections get their rows late, from a comparison with the table, or none",
                    facts.helpers.join(", ")
                ),
                LOAD_RULES,
            ));
        }
        let listeners: Vec<_> = facts
            .listeners
            .iter()
            .filter(|holder| !is_agent(holder))
            .map(ToString::to_string)
            .collect();
        if masked && !listeners.is_empty() {
            findings.push(warn(
                "no other listener for conntrack events",
                format!(
                    "{}: the event mask hides most events from it",
                    listeners.join(", ")
                ),
                "nufw-agent rules --all-events --apply    # if it needs them",
            ));
        }
    }
    findings
}
