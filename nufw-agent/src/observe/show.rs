//! The status for people: sections of lines, as `conntrackd -s` shows its own.
//!
//! Shows what the agent told, also when it is another version's; what is not known is a dash.

use super::status::Status;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

/// Width of the names in front of the numbers.
const WIDTH: usize = 26;

/// Writes it.
pub fn show(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out };
    page.agent(status)?;
    page.queue(status)?;
    page.packets(status)?;
    page.events(status)?;
    page.link(status)?;
    page.dumps(status)?;
    page.marks(status)
}

struct Page<'a> {
    out: &'a mut dyn Write,
}

fn known<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// 3d 4h 5m 6s
fn span(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let from = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown: Vec<_> = parts[from..]
        .iter()
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    shown.join(" ")
}

fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}

impl Page<'_> {
    fn section(&mut self, name: &str) -> io::Result<()> {
        writeln!(self.out, "\n{name}:")
    }

    fn line(&mut self, name: &str, value: impl Display) -> io::Result<()> {
        writeln!(self.out, "  {name:<WIDTH$} {value}")
    }

    fn agent(&mut self, status: &Status) -> io::Result<()> {
        writeln!(
            self.out,
            "nufw-agent {}, pid {}, up {}",
            status.version,
            status.process.pid,
            span(status.uptime)
        )?;
        if status.hung {
            writeln!(
                self.out,
                "IT HANGS: its main loop told nothing for {:.1?}",
                Duration::from_millis(status.age_ms)
            )?;
        }
        self.line("resident memory", known(status.process.resident.map(bytes)))
    }

    fn queue(&mut self, status: &Status) -> io::Result<()> {
        let (set, kernel) = (&status.set, &status.kernel);
        self.section(&format!("queue {}", set.queue))?;
        let waiting = known(kernel.queue.map(|queue| queue.waiting));
        self.line(
            "waiting in the kernel",
            format!("{waiting} of {}", set.queue_length),
        )?;
        let pending = format!("{} of {}", status.pending, set.max_pending);
        self.line("waiting for an answer", pending)?;
        self.line(
            "dropped, queue full",
            known(kernel.queue.map(|queue| queue.queue_dropped)),
        )?;
        self.line(
            "dropped, buffer full",
            known(kernel.queue.map(|queue| queue.user_dropped)),
        )?;
        let used = known(kernel.queue_socket.map(|socket| bytes(socket.used)));
        self.line(
            "receive buffer",
            format!("{used} used of {} granted", bytes(set.queue_buffer)),
        )?;
        self.line(
            "socket drops",
            known(kernel.queue_socket.map(|socket| socket.drops)),
        )?;
        self.line("unreadable messages", status.queue.unreadable)
    }

    fn packets(&mut self, status: &Status) -> io::Result<()> {
        let (counters, waits) = (&status.counters, &status.seen.waits);
        self.section("packets")?;
        for (name, value) in [
            ("read", counters.packets),
            ("asked", counters.asked),
            ("accepted", counters.accepted),
            ("dropped by the server", counters.dropped),
            ("rejected", counters.rejected),
            ("dropped, no link", counters.without_link),
            ("dropped, no answer", counters.timed_out),
            ("dropped, unknown source", counters.unknown_source),
            ("dropped, too many wait", counters.table_full),
            ("dropped, no tuple", counters.unparsable),
            ("answers too late", counters.late_answers),
            ("gone before the verdict", counters.gone),
            ("verdicts refused", counters.refused),
        ] {
            self.line(name, value)?;
        }
        let most = |hundredths| known(waits.at_most(hundredths).map(|end| format!("{end:?}")));
        self.line(
            "waited, 50 % / 99 % / most",
            format!(
                "<= {} / <= {} / {:.1?}",
                most(50),
                most(99),
                Duration::from_micros(waits.max_us)
            ),
        )
    }

    fn events(&mut self, status: &Status) -> io::Result<()> {
        let (set, counters, seen) = (&status.set, &status.counters, &status.seen);
        self.section("events")?;
        let which = match (set.relays_events, set.marked_only) {
            (false, _) => "no",
            (true, true) => "of marked connections",
            (true, false) => "all",
        };
        self.line("relayed", which)?;
        self.line(
            "new / changed / ended",
            format!("{} / {} / {}", seen.new, seen.updates, seen.destroys),
        )?;
        self.line(
            "unacknowledged",
            format!("{} of {}", status.unacknowledged, set.max_unacknowledged),
        )?;
        self.line("last sent", status.last_sent)?;
        self.line("overruns", counters.overruns)?;
        self.line("forgotten", counters.forgotten_events)?;
        self.line("without a form", counters.unrepresentable)?;
        let used = known(status.kernel.event_socket.map(|socket| bytes(socket.used)));
        let granted = known(set.event_buffer.map(bytes));
        let forced = if set.event_buffer_forced == Some(false) {
            ", less than asked for"
        } else {
            ""
        };
        self.line(
            "receive buffer",
            format!("{used} used of {granted} granted{forced}"),
        )?;
        self.line(
            "socket drops",
            known(status.kernel.event_socket.map(|socket| socket.drops)),
        )
    }

    fn link(&mut self, status: &Status) -> io::Result<()> {
        self.section("link")?;
        self.line("server", &status.set.server)?;
        let up = status
            .link_for
            .map_or_else(|| "no".to_owned(), |seconds| format!("for {}", span(seconds)));
        self.line("up", up)?;
        self.line("made", status.seen.links)?;
        self.line("lost or not made", status.seen.link_failures)?;
        self.line("addresses with a session", status.known_sources)
    }

    fn dumps(&mut self, status: &Status) -> io::Result<()> {
        self.section("connection table")?;
        let entries = known(status.kernel.entries);
        self.line(
            "entries",
            format!("{entries} of {}", known(status.kernel.max_entries)),
        )?;
        self.line("dumps", status.counters.dumps)?;
        self.line("one is running", yes(status.dumping))?;
        self.line("interfaces seen", status.interfaces)
    }

    fn marks(&mut self, status: &Status) -> io::Result<()> {
        self.section("marks")?;
        self.line("set", yes(status.set.sets_marks))?;
        self.line("mask", format_args!("{:#010x}", status.set.mark_mask))?;
        self.line("reject bit", format_args!("{:#010x}", status.set.reject_bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_for_people() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(3 * 86_400 + 61), "3d 0h 1m 1s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_a_hanging_loop_is_shouted() {
        let mut status = Status::default();
        let mut out = Vec::new();
        show(&status, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("waiting in the kernel      - of 0\n"), "{text}");
        assert!(!text.contains("HANGS"), "{text}");
        status.hung = true;
        let mut out = Vec::new();
        show(&status, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("IT HANGS"));
    }
}
