//! The agent's metrics: a line for each.
//!
//! A number that is counted anywhere in [`Status`] becomes a metric by one line here; the dashboard and the alerts of `conf/`
//! are compared with this table by a test.

use super::status::Status;
use nufw_common::observe::Metric;
use std::time::Duration;

type Row = Metric<Status>;

const ACCEPT: &[(&str, &str)] = &[("verdict", "accept"), ("reason", "server")];
const DROP: &[(&str, &str)] = &[("verdict", "drop"), ("reason", "server")];
const REJECT: &[(&str, &str)] = &[("verdict", "reject"), ("reason", "server")];
const NO_LINK: &[(&str, &str)] = &[("verdict", "drop"), ("reason", "no-link")];
const UNPARSABLE: &[(&str, &str)] = &[("verdict", "drop"), ("reason", "unparsable")];
const UNKNOWN_SOURCE: &[(&str, &str)] = &[("verdict", "drop"), ("reason", "unknown-source")];
const TABLE_FULL: &[(&str, &str)] = &[("verdict", "drop"), ("reason", "table-full")];
const TIMEOUT: &[(&str, &str)] = &[("verdict", "drop"), ("reason", "timeout")];

#[expect(
    clippy::unnecessary_wraps,
    reason = "a line of the table may not know its number"
)]
fn flag(set: bool) -> Option<u64> {
    Some(u64::from(set))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a line of the table may not know its number"
)]
fn whole_seconds(seconds: u64) -> Option<f64> {
    Some(Duration::from_secs(seconds).as_secs_f64())
}

/// The table.
// A row a line, however long its help is.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    // Packets.
    Row::counter("nufw_agent_packets", "Packets read from the queue: each is the first of a connection, or a retransmission of it.", |s| Some(s.counters.packets)),
    Row::counter("nufw_agent_asked", "Packets that the server was asked about.", |s| Some(s.counters.asked)),
    Row::counter("nufw_agent_verdicts", "Verdicts given, by kind and reason. reason=\"server\" is the server's decision; every other drop was made here, without it: no-link while no server is linked, timeout when it did not answer in time, unknown-source when nobody is logged in at the packet's source and it sent too many, table-full when queue.max-pending packets waited, unparsable when the packet has no tuple.", |s| Some(s.counters.accepted)).with(ACCEPT),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.dropped)).with(DROP),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.rejected)).with(REJECT),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.without_link)).with(NO_LINK),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.timed_out)).with(TIMEOUT),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.unknown_source)).with(UNKNOWN_SOURCE),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.table_full)).with(TABLE_FULL),
    Row::counter("nufw_agent_verdicts", "", |s| Some(s.counters.unparsable)).with(UNPARSABLE),
    Row::waits("nufw_agent_wait_seconds", "How long packets waited for the server's answer, from their asking on. Users feel this as the time to connect.", |s| Some(s.seen.waits)),
    Row::gauge("nufw_agent_pending_packets", "Packets that wait for the server's answer at this moment.", |s| Some(s.pending)),
    Row::gauge("nufw_agent_pending_packets_max", "Packets that may wait for an answer (queue.max-pending); a further one is dropped.", |s| Some(s.set.max_pending)),
    Row::counter("nufw_agent_late_answers", "Answers for packets that did not wait any more: the server is slower than queue.packet-timeout.", |s| Some(s.counters.late_answers)),
    Row::counter("nufw_agent_gone_packets", "Accepted packets that were gone from the kernel when their verdict came; their rows close as never-forwarded.", |s| Some(s.counters.gone)),
    Row::counter("nufw_agent_refused_verdicts", "Verdicts that the kernel refused although the packet was there. Should be zero.", |s| Some(s.counters.refused)),
    Row::counter("nufw_agent_asked_again", "Packets that were asked about again over another link, or at another server.", |s| Some(s.counters.asked_again)),
    Row::counter("nufw_agent_blind", "Packets that passed without a decision, as queue.on-server-loss, on-queue-full or on-agent-loss allow. What the kernel lets pass by itself is not among them.", |s| Some(s.counters.blind)),
    Row::counter("nufw_agent_kills", "Connections that the server ordered to be ended, by how far that is.", |s| Some(s.counters.kills_ordered)).with(&[("step", "ordered")]),
    Row::counter("nufw_agent_kills", "", |s| Some(s.counters.killed)).with(&[("step", "ended")]),
    Row::counter("nufw_agent_kills", "", |s| Some(s.counters.kills_failed)).with(&[("step", "failed")]),
    // The queue in the kernel.
    Row::gauge("nufw_agent_queue_depth", "Packets that wait in the kernel's queue for a verdict. Absent where the agent may not read /proc/net/netfilter, which only root may.", |s| s.kernel.queue.map(|queue| queue.waiting)),
    Row::gauge("nufw_agent_queue_length", "Packets that may wait in the kernel (queue.length); a further one is dropped.", |s| Some(s.set.queue_length)),
    Row::counter("nufw_agent_queue_dropped", "Packets that the kernel dropped before the agent saw them. cause=\"queue-full\": queue.length waited; cause=\"buffer-full\": the receive buffer had no room. Absent where the agent may not read /proc/net/netfilter.", |s| s.kernel.queue.map(|queue| queue.queue_dropped)).with(&[("cause", "queue-full")]),
    Row::counter("nufw_agent_queue_dropped", "", |s| s.kernel.queue.map(|queue| queue.user_dropped)).with(&[("cause", "buffer-full")]),
    Row::counter("nufw_agent_unreadable_messages", "Messages of the queue that could not be understood; their packets were dropped. Should be zero.", |s| Some(s.queue.unreadable)),
    // Receive buffers.
    Row::gauge("nufw_agent_receive_buffer_bytes", "Bytes of each receive buffer as the kernel granted it, which may be less than the configuration asks for.", |s| Some(s.set.queue_buffer)).with(&[("socket", "queue")]),
    Row::gauge("nufw_agent_receive_buffer_bytes", "", |s| s.set.event_buffer).with(&[("socket", "events")]),
    Row::gauge("nufw_agent_receive_buffer_used_bytes", "Bytes that wait in each receive buffer, the kernel's overhead included.", |s| s.kernel.queue_socket.map(|socket| socket.used)).with(&[("socket", "queue")]),
    Row::gauge("nufw_agent_receive_buffer_used_bytes", "", |s| s.kernel.event_socket.map(|socket| socket.used)).with(&[("socket", "events")]),
    Row::counter("nufw_agent_receive_buffer_drops", "Messages that found no room in a receive buffer: packets of the queue, which are dropped, or events, after which the table is compared instead.", |s| s.kernel.queue_socket.map(|socket| socket.drops)).with(&[("socket", "queue")]),
    Row::counter("nufw_agent_receive_buffer_drops", "", |s| s.kernel.event_socket.map(|socket| socket.drops)).with(&[("socket", "events")]),
    // Events.
    Row::counter("nufw_agent_events", "Conntrack events read, by type: new connections, changed ones, ended ones.", |s| Some(s.seen.new)).with(&[("type", "new")]),
    Row::counter("nufw_agent_events", "", |s| Some(s.seen.updates)).with(&[("type", "update")]),
    Row::counter("nufw_agent_events", "", |s| Some(s.seen.destroys)).with(&[("type", "destroy")]),
    Row::counter("nufw_agent_event_overruns", "Times the kernel lost events because conntrack.receive-buffer was full. Each is followed by a dump, which puts the rows right.", |s| Some(s.counters.overruns)),
    Row::counter("nufw_agent_events_forgotten", "Events forgotten because conntrack.max-unacknowledged others waited for the server. A dump follows.", |s| Some(s.counters.forgotten_events)),
    Row::counter("nufw_agent_unrepresentable", "Entries and events that the protocol has no form for; they are left out.", |s| Some(s.counters.unrepresentable)),
    Row::gauge("nufw_agent_unacknowledged_events", "Events that the server has not made durable yet. Grows while the server is away.", |s| Some(s.unacknowledged)),
    Row::gauge("nufw_agent_unacknowledged_events_max", "Events that are kept (conntrack.max-unacknowledged); beyond that the oldest is forgotten.", |s| Some(s.set.max_unacknowledged)),
    Row::counter("nufw_agent_dumps", "Dumps of the connection table, broken ones included: asked for by the server, or after lost events.", |s| Some(s.counters.dumps)),
    Row::gauge("nufw_agent_dump_running", "1 while a dump is on its way to the server.", |s| flag(s.dumping)),
    Row::gauge("nufw_agent_conntrack_entries", "Entries of the kernel's connection table, of all programs.", |s| s.kernel.entries),
    Row::gauge("nufw_agent_conntrack_entries_max", "Entries that the table may have (nf_conntrack_max); a connection beyond that is dropped by the kernel.", |s| s.kernel.max_entries),
    // The link.
    Row::gauge("nufw_agent_link_up", "1 while the server is linked. While it is 0 every new connection is dropped.", |s| flag(s.link_for.is_some())),
    Row::seconds("nufw_agent_link_age_seconds", "Seconds since the server welcomed the present link; absent without one.", |s| s.link_for.and_then(whole_seconds)),
    Row::counter("nufw_agent_links", "Links that the server welcomed.", |s| Some(s.seen.links)),
    Row::counter("nufw_agent_link_failures", "Links that were lost, and attempts that failed.", |s| Some(s.seen.link_failures)),
    Row::gauge("nufw_agent_known_sources", "Addresses with a session, as the server told; packets of others are asked for at a bounded rate.", |s| Some(s.known_sources)),
    Row::gauge("nufw_agent_interfaces", "Network interfaces whose names are remembered.", |s| Some(s.interfaces)),
    // The process.
    Row::seconds("nufw_agent_snapshot_age_seconds", "How old the main loop's numbers are. More than a second or two means that it hangs.", |s| Some(Duration::from_millis(s.age_ms).as_secs_f64())),
    Row::info("nufw_agent_build", "What runs, in words.", |s| vec![("version", s.version.clone())]),
    Row::seconds("process_start_time_seconds", "When the process began, seconds since 1970.", |s| whole_seconds(s.process.started)),
    Row::gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes.", |s| s.process.resident),
    Row::gauge("process_open_fds", "Descriptors that the process has open.", |s| s.process.descriptors),
];

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_common::observe::{Scrape, mistakes, names, render};
    use std::collections::HashSet;

    #[test]
    fn the_table_has_no_mistakes_and_reads_back() {
        assert_eq!(mistakes(TABLE), Vec::<String>::new());
        let text = render(TABLE, Status::default()).unwrap();
        let scrape = Scrape::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let told: HashSet<_> = scrape
            .samples()
            .iter()
            .map(|sample| sample.name.clone())
            .collect();
        let named: HashSet<_> = names(TABLE).into_iter().collect();
        assert!(told.is_subset(&named), "{told:?}");
        assert!(
            scrape.get("nufw_agent_queue_depth", &[]).is_none(),
            "unknown is not zero"
        );
    }

    /// Every counter of the agent, each with a number of its own, is told somewhere.
    #[test]
    fn every_counter_is_a_metric() {
        let mut json = serde_json::to_value(Status::default()).unwrap();
        let mut expected = Vec::new();
        for section in ["counters", "seen"] {
            for (_, value) in json[section].as_object_mut().unwrap() {
                if value.is_number() {
                    let number = 1_000_000 + 7 * expected.len();
                    *value = number.into();
                    expected.push(number.to_string());
                }
            }
        }
        let events = json["counters"]["events"].to_string();
        let status: Status = serde_json::from_value(json.clone()).unwrap();
        let text = render(TABLE, status).unwrap();
        for number in expected {
            let found = text.lines().any(|line| line.ends_with(&format!(" {number}")));
            // `events` is the sum of the types.
            assert!(found || events == number, "no metric tells {number} of {json:#}");
        }
    }
}
