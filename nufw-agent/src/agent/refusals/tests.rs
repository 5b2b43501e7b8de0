use super::*;
use crate::check::scan_iptables;

const BIT: Mark = Mark(0x0100_0000);
const KILL: Mark = Mark(0x0200_0000);
const QUEUE: &str = "*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j NFQUEUE --queue-num 3\nCOMMIT\n";
const REFUSE: &str =
    "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m mark --mark 0x1000000/0x1000000 -j REJECT\nCOMMIT\n";

fn seen(v4: Option<&str>, v6: Option<&str>) -> Seen {
    Seen::new(3, BIT, KILL, &(v4.map(scan_iptables), v6.map(scan_iptables)))
}

fn refusals(bit: Mark) -> Refusals {
    Refusals {
        watched: Watched::new(Watch::default(), clock::wall()),
        gap: None,
        access: Access::Own,
        queue: 3,
        bit,
        kill_bit: if bit.0 == 0 { Mark(0) } else { KILL },
        seen: Seen::default(),
        looked: clock::mono(),
        looking: None,
        wanted: false,
        at_once: false,
        tell_again: false,
        warned: Vec::new(),
        warned_of_ends: [false; 2],
    }
}

#[test]
fn only_what_was_seen_is_sure() {
    let whole = format!("{QUEUE}{REFUSE}");
    let mut refusals = refusals(BIT);
    assert!(!refusals.sure(Hook::Forward, true), "nothing was seen yet");
    refusals.learn(seen(Some(&whole), Some(QUEUE)));
    assert!(refusals.sure(Hook::Forward, true));
    for place in [(Hook::Forward, false), (Hook::Input, true), (Hook::Output, true)] {
        assert!(!refusals.sure(place.0, place.1), "{place:?}");
    }
    // What cannot be seen any more counts as gone.
    refusals.learn(seen(None, Some(QUEUE)));
    assert!(!refusals.sure(Hook::Forward, true));
}

#[test]
fn it_is_said_once_until_it_is_mended() {
    let mut refusals = refusals(BIT);
    refusals.learn(seen(Some(QUEUE), Some(QUEUE)));
    assert_eq!(refusals.warned, [(Hook::Forward, true), (Hook::Forward, false)]);
    assert!(!refusals.sure(Hook::Forward, true));
    assert_eq!(refusals.warned.len(), 2);
    refusals.learn(seen(Some(&format!("{QUEUE}{REFUSE}")), Some(QUEUE)));
    assert_eq!(refusals.warned, [(Hook::Forward, false)]);
}

#[test]
fn looks_are_seldom_unless_asked_for() {
    let mut refusals = refusals(BIT);
    let start = refusals.looked;
    refusals.step(start + 2 * LOOK_EVERY);
    assert!(refusals.looking.is_none(), "nobody wants to know");
    refusals.sure(Hook::Forward, true);
    refusals.step(start + LOOK_EVERY / 2);
    assert!(refusals.looking.is_none(), "too early");
    refusals.look_at_once();
    refusals.step(start + LOOK_EVERY / 2);
    assert!(refusals.looking.take().is_some());
    refusals.sure(Hook::Forward, true);
    refusals.step(start + LOOK_EVERY);
    assert!(refusals.looking.is_none(), "too early after the last one");
    refusals.step(start + 2 * LOOK_EVERY);
    assert!(refusals.looking.is_some());
}

#[test]
fn a_look_that_does_not_end_makes_nothing_sure() {
    let mut refusals = refusals(BIT);
    refusals.learn(seen(Some(&format!("{QUEUE}{REFUSE}")), None));
    assert!(refusals.sure(Hook::Forward, true));
    let (_tell, told) = mpsc::channel();
    refusals.looking = Some(told);
    refusals.step(refusals.looked + PATIENCE / 2);
    assert!(refusals.sure(Hook::Forward, true));
    refusals.step(refusals.looked + PATIENCE);
    assert!(!refusals.sure(Hook::Forward, true));
}

#[test]
fn without_a_bit_nothing_is_looked_for() {
    let mut refusals = refusals(Mark(0));
    refusals.look_at_once();
    refusals.step(refusals.looked + LOOK_EVERY);
    assert!(refusals.looking.is_none());
    assert!(!refusals.sure(Hook::Forward, true));
    assert!(refusals.warned.is_empty());
}

#[test]
fn a_connection_is_refused_only_where_every_hook_that_queues_does_so() {
    const ENDS: &str = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m connmark --mark 0x2000000/0x2000000 -j REJECT\nCOMMIT\n";
    let mut refusals = refusals(BIT);
    assert!(!refusals.ends(true), "nothing was seen yet");
    refusals.learn(seen(
        Some(&format!("{QUEUE}{ENDS}")),
        Some(&format!("{QUEUE}{REFUSE}")),
    ));
    assert!(refusals.ends(true));
    assert!(!refusals.ends(false), "the packet's mark is another thing");
    let both = QUEUE.replace(
        "COMMIT",
        ":INPUT ACCEPT [0:0]\n-A INPUT -j NFQUEUE --queue-num 3\nCOMMIT",
    );
    refusals.learn(seen(Some(&format!("{both}{ENDS}")), Some(ENDS)));
    assert!(!refusals.ends(true), "it may have come by INPUT");
    assert!(!refusals.ends(false), "nothing is queued there");
}
