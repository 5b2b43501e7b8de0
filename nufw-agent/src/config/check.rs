//! What the values of the configuration may be, each by itself and together.
//!
//! Changes nothing; every complaint names the place where the value was set.

use super::{Config, chosen, flags};
use nufw_common::config::{ConfigError, HumanDuration, Loaded, Problems};
use nufw_common::listen::Place;
use std::time::Duration;

/// What names a place to listen at.
const PLACE: &str =
    "an address and port (\"127.0.0.1:9641\", \"[::1]:9641\"), \"unix:/path/of/socket\", or \"\" for nowhere";
/// Least and most time that a packet may wait. The server gives up two seconds earlier.
const PACKET_TIMEOUT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_mins(5));
/// Least time between two looks at the rules: each runs the listing commands.
const LEAST_WATCH: Duration = Duration::from_secs(1);
/// Most queues that one agent reads; each costs the kernel `queue.length` packets at worst.
const MAX_QUEUES: u16 = 64;
/// Least bytes of a packet that hold the headers of an ordinary one.
const MIN_COPY_RANGE: u16 = 80;
/// Least and most time that a worker may be silent. It says that it lives four times a second.
const HUNG_AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// The kernel reads the size of a buffer as a signed 32-bit number and doubles it.
const MAX_BUFFER: u64 = 0x3fff_ffff;

/// Every problem at once.
pub(super) fn check(loaded: &Loaded<Config>) -> Result<(), ConfigError> {
    let Config {
        server,
        queue,
        conntrack,
        marks,
        rules,
        worker,
        ..
    } = &loaded.value;
    let mut problems = Problems::default();
    server.check(loaded, &mut problems);
    check_watching(loaded, &mut problems);
    let mut within = |key: &str, found: u64, least: u64, most: u64| {
        if found < least || found > most {
            problems.push(loaded.reject(key, found, format_args!("a number from {least} to {most}")));
        }
    };
    within("queue.length", queue.length.into(), 1, 1 << 20);
    within(
        "queue.count",
        queue.count.into(),
        1,
        u64::from(MAX_QUEUES).min(u64::from(u16::MAX - queue.number) + 1),
    );
    within(
        "queue.copy-range",
        queue.copy_range.into(),
        MIN_COPY_RANGE.into(),
        u16::MAX.into(),
    );
    within("queue.max-pending", queue.max_pending as u64, 1, 1 << 20);
    within(
        "queue.receive-buffer",
        queue.receive_buffer.0,
        128 * 1024,
        MAX_BUFFER,
    );
    within(
        "conntrack.receive-buffer",
        conntrack.receive_buffer.0,
        128 * 1024,
        MAX_BUFFER,
    );
    within(
        "conntrack.max-unacknowledged",
        conntrack.max_unacknowledged as u64,
        1024,
        1 << 24,
    );
    check_lists(loaded, &mut problems);
    flags::check(loaded, &mut problems);
    for (key, found, (least, most)) in [
        ("queue.packet-timeout", queue.packet_timeout, PACKET_TIMEOUT),
        ("worker.hung-after", worker.hung_after, HUNG_AFTER),
    ] {
        if found.0 < least || found.0 > most {
            let expected = format!("a time from {} to {}", HumanDuration(least), HumanDuration(most));
            problems.push(loaded.reject(key, found, expected));
        }
    }
    if marks.mask.0 == 0 {
        problems.push(loaded.reject(
            "marks.mask",
            "0x00000000",
            "at least one bit for the user's number",
        ));
    }
    check_bits(loaded, &mut problems);
    if rules.hooks.is_empty() {
        problems.push(loaded.reject(
            "rules.hooks",
            "none",
            "forward, input, output, or several of them",
        ));
    }
    if !rules.watch.0.is_zero() && rules.watch.0 < LEAST_WATCH {
        problems.push(loaded.reject(
            "rules.watch",
            rules.watch,
            format_args!("at least {}, or 0s to never look", HumanDuration(LEAST_WATCH)),
        ));
    }
    problems.finish(())
}

/// The zones of the queues, and of which connections events are relayed.
fn check_lists(loaded: &Loaded<Config>, problems: &mut Problems) {
    let Config { queue, conntrack, .. } = &loaded.value;
    if ![1, usize::from(queue.count)].contains(&queue.zones.len()) {
        problems.push(loaded.reject(
            "queue.zones",
            format_args!("{:?}", queue.zones),
            format_args!(
                "one conntrack zone for all queues, or one for each of the {}",
                queue.count
            ),
        ));
    }
    if let Err((key, found, expected)) = chosen::check(conntrack) {
        problems.push(loaded.reject(key, format_args!("{found:?}"), expected));
    }
}

/// The reserved bits of marks: one each, outside of the mask and of one another.
fn check_bits(loaded: &Loaded<Config>, problems: &mut Problems) {
    let marks = &loaded.value.marks;
    let (mask, reject, blind) = (marks.mask.0, marks.reject_bit.0, marks.blind_bit.0);
    let kill = marks.kill_bit.0;
    if reject.count_ones() > 1 || reject & mask != 0 {
        problems.push(loaded.reject(
            "marks.reject-bit",
            format_args!("{reject:#010x}"),
            format_args!("one bit outside of marks.mask ({mask:#010x}), or 0 to drop instead"),
        ));
    }
    if kill.count_ones() > 1 || kill & (mask | reject) != 0 {
        problems.push(loaded.reject(
            "marks.kill-bit",
            format_args!("{kill:#010x}"),
            format_args!(
                "one bit outside of marks.mask ({mask:#010x}) and other than marks.reject-bit, or 0 to delete instead"
            ),
        ));
    }
    let blind_needed = loaded.value.on_loss().may_be_blind();
    if blind.count_ones() > 1 || blind & (mask | reject | kill) != 0 || (blind == 0 && blind_needed) {
        problems.push(loaded.reject(
            "marks.blind-bit",
            format_args!("{blind:#010x}"),
            format_args!(
                "one bit outside of marks.mask ({mask:#010x}) and marks.reject-bit, and other than marks.kill-bit, by which the rows can say what passed unasked; or 0 where nothing may"
            ),
        ));
    }
}

/// Where the agent can be watched.
fn check_watching(loaded: &Loaded<Config>, problems: &mut Problems) {
    let Config { metrics, status, .. } = &loaded.value;
    if let Some(listen) = metrics.listen.as_deref().filter(|listen| !listen.is_empty())
        && Place::parse(listen).is_none()
    {
        problems.push(loaded.reject("metrics.listen", format_args!("{listen:?}"), PLACE));
    }
    if let Some(socket) = &status.socket
        && !socket.as_os_str().is_empty()
        && !socket.is_absolute()
    {
        problems.push(loaded.reject(
            "status.socket",
            format_args!("{:?}", socket.display().to_string()),
            "the whole path of a socket, or \"\" to go without",
        ));
    }
}
