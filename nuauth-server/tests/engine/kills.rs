//! Live connections whose right is over: when they are ended, and who is believed about it.

use crate::world::{World, answered, counters, entry, natted, reversed, rules, user};
use nuauth_server::engine::{
    Decision, Input, Judge, Leaving, Limits, LinkId, LogMode, OnEnd, Ruling, Subject,
};
use nufw_proto::gateway::{Capabilities, KillStep, Killed, Live, ToAgent, ToServer};
use nufw_proto::{
    Batch, ConnId, CtEntry, CtEvent, CtEventKind, MAX_BATCH, Mark, Removal, SessionId, TcpState, Timestamp,
    Tuple,
};
use nulog::{ActiveRow, CloseReason, State, Translated};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const ALICE: &str = "10.0.0.7";
const BOB: &str = "10.0.0.8";

fn tcp(src: &str, port: u16, dst: &str, to: u16) -> Tuple {
    crate::world::tcp(&format!("{src}:{port}"), &format!("{dst}:{to}"))
}

/// The entry at its end.
fn ended(entry: CtEntry) -> CtEntry {
    crate::world::ended(entry, TcpState::CLOSE)
}

fn all_kill(limits: &mut Limits) {
    limits.on_session_end = OnEnd::Kill;
    limits.on_removal = OnEnd::Kill;
    limits.on_reload = OnEnd::Kill;
}

impl World {
    fn killer(&mut self) -> LinkId {
        self.killer_as("gw")
    }

    fn killer_as(&mut self, name: &str) -> LinkId {
        self.gateway_as(name, |hello| hello.capabilities = Capabilities::KILL)
    }

    /// What was ordered over a link since the last call.
    fn orders(&mut self, link: LinkId) -> Vec<Live> {
        let mut orders = Vec::new();
        self.agent.retain(|(to, message)| match message {
            ToAgent::Kill(batch) if *to == link => {
                assert!(batch.iter().count() <= MAX_BATCH);
                orders.extend(batch.iter().copied());
                false
            }
            _ => true,
        });
        orders
    }

    fn ordered_rows(&mut self, link: LinkId) -> Vec<ConnId> {
        self.orders(link).iter().map(|live| live.row).collect()
    }

    fn tell(&mut self, link: LinkId, row: ConnId, step: KillStep) {
        let killed = Batch::try_from(vec![Killed { row, step }]).unwrap();
        self.said(link, ToServer::Killed(killed));
    }

    /// A connection that is answered, under this id of the kernel.
    fn living(&mut self, link: LinkId, session: SessionId, tuple: Tuple, id: u32) -> ConnId {
        let row = self.granted(link, session, tuple);
        self.event(link, CtEventKind::New, entry(id, tuple));
        self.event(link, CtEventKind::Update, answered(entry(id, tuple)));
        row
    }

    fn tick(&mut self) {
        self.pass(Duration::from_millis(100));
    }

    fn reload(&mut self, judge: Arc<dyn Judge>, names: &[&str]) {
        self.input(Input::Judge(judge));
        let users: HashMap<_, _> = names
            .iter()
            .map(|name| user(name))
            .map(|user| (Arc::clone(&user.user.name), user))
            .collect();
        self.input(Input::Users(users));
    }
}

#[test]
fn a_logout_ends_the_users_own_connections_and_no_others() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let (alice, bob) = (w.login("alice", ALICE), w.login("bob", BOB));
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.living(gw, alice, tuple, 7);
    w.living(gw, bob, tcp(BOB, 4000, "192.0.2.1", 443), 8);
    w.logout(alice);
    w.tick();
    assert_eq!(
        w.orders(gw),
        [Live {
            row,
            id: 7,
            zone: 0,
            original: tuple
        }]
    );
    assert!(w.ends().is_empty(), "only the kernel's own end closes the row");
    let last = ended(answered(entry(7, tuple)));
    w.event(gw, CtEventKind::Destroy, last);
    let close = w.closed()[0];
    assert_eq!((close.id, close.reason), (row, CloseReason::KilledSession));
    assert_eq!(close.counters, Some(counters()));
    w.pass(Duration::from_mins(5));
    assert_eq!(w.orders(gw), []);
    assert_eq!(w.stats().waiting_kills, 0);
}

#[test]
fn a_session_end_changes_nothing_unless_it_is_configured() {
    let mut w = World::new();
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    w.leave(alice, Leaving::Removed);
    w.reload(rules(), &["bob"]);
    w.pass(Duration::from_mins(5));
    assert_eq!(w.orders(gw), []);
    assert_eq!(w.stats().live_connections, 1);
}

#[test]
fn another_session_of_the_same_user_at_the_address_keeps_the_connections() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let (first, second) = (w.login("alice", ALICE), w.login("alice", ALICE));
    let row = w.living(gw, first, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    w.logout(first);
    w.tick();
    assert_eq!(w.orders(gw), []);
    w.login("bob", ALICE);
    w.logout(second);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row], "bob is there, but not alice");
}

#[test]
fn a_client_that_comes_back_within_the_grace_keeps_its_connections() {
    let grace = Limits::default().session_grace;
    for comes_back in [true, false] {
        let mut w = World::with(all_kill);
        let gw = w.killer();
        let alice = w.login("alice", ALICE);
        let row = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
        w.leave(alice, Leaving::Lost);
        w.pass(grace / 2);
        assert_eq!(w.orders(gw), [], "the grace is not over");
        if comes_back {
            w.login("alice", ALICE);
        }
        w.pass(grace);
        let wanted = if comes_back { vec![] } else { vec![row] };
        assert_eq!(w.ordered_rows(gw), wanted);
    }
}

#[test]
fn a_grace_is_short_when_too_many_wait_for_it() {
    let mut w = World::with(|limits| {
        all_kill(limits);
        limits.sessions = 100_000;
        limits.levels.sessions = false;
    });
    let lost: Vec<_> = (0..65_536_u32)
        .map(|n| w.login("bob", &std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string()))
        .collect();
    for session in lost {
        w.leave(session, Leaving::Lost);
    }
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let row = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    w.leave(alice, Leaving::Lost);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
}

#[test]
fn an_address_that_is_not_proven_again_ends_its_connections() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    w.prove(alice, "10.0.0.9").unwrap();
    let kept = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    let row = w.living(gw, alice, tcp("10.0.0.9", 4000, "192.0.2.1", 443), 8);
    let limits = Limits::default();
    w.pass(limits.address_lease + Duration::from_millis(1));
    w.pass(limits.session_grace + Duration::from_millis(1));
    assert_eq!(w.ordered_rows(gw), [row]);
    assert_ne!(kept, row);
}

#[test]
fn an_order_is_repeated_until_the_end_is_seen() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.living(gw, alice, tuple, 7);
    w.logout(alice);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
    w.pass(Duration::from_secs(14));
    assert_eq!(w.orders(gw), []);
    w.pass(Duration::from_secs(1));
    assert_eq!(w.ordered_rows(gw), [row], "nothing was heard of it");
    w.tell(gw, row, KillStep::Refused);
    w.pass(Duration::from_secs(44));
    assert_eq!(w.orders(gw), [], "the agent is at it");
    w.pass(Duration::from_secs(1));
    assert_eq!(w.ordered_rows(gw), [row]);
    w.tell(gw, row, KillStep::Failed);
    w.pass(Duration::from_secs(15));
    assert_eq!(w.ordered_rows(gw), [row]);
    assert_eq!(w.stats().kills_failed, 1);
}

#[test]
fn an_entry_that_is_said_to_be_gone_is_looked_for_in_a_dump() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let first = w.requested().unwrap();
    let alice = w.login("alice", ALICE);
    w.dump(gw, first, &[], true);
    w.pass(Limits::default().dump_interval);
    let row = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    w.logout(alice);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
    w.tell(gw, row, KillStep::Gone);
    w.tick();
    assert_eq!(w.requested(), Some(first), "the event may be on its way");
    assert!(w.ends().is_empty(), "an agent's word closes no row");
    w.pass(Duration::from_secs(5));
    let dump = w.requested().unwrap();
    assert_ne!(dump, first);
    w.dump(gw, dump, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::KilledSession)]);
}

#[test]
fn a_gateway_that_is_away_gets_the_order_when_it_is_back() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let row = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    w.down(gw);
    w.logout(alice);
    w.pass(Duration::from_mins(1));
    let gw = w.killer();
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
}

#[test]
fn an_agent_that_cannot_end_connections_is_not_told_to() {
    let mut w = World::with(all_kill);
    let gw = w.gateway();
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.living(gw, alice, tuple, 7);
    w.logout(alice);
    w.pass(Duration::from_mins(1));
    assert_eq!(w.orders(gw), []);
    w.event(gw, CtEventKind::Destroy, ended(answered(entry(7, tuple))));
    assert_ne!(
        w.ends(),
        [(row, CloseReason::KilledSession)],
        "it was not ended by us"
    );
}

#[test]
fn a_connection_whose_entry_is_not_known_yet_is_ended_when_it_is() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.granted(gw, alice, tuple);
    w.logout(alice);
    w.tick();
    assert_eq!(w.orders(gw), []);
    w.event(gw, CtEventKind::New, entry(7, tuple));
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
}

#[test]
fn what_an_agent_says_of_another_gateways_row_or_unasked_is_worth_nothing() {
    let mut w = World::with(all_kill);
    let (gw, hostile) = (w.killer(), w.killer_as("hostile"));
    let (alice, bob) = (w.login("alice", ALICE), w.login("bob", BOB));
    let row = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    let bobs = w.living(gw, bob, tcp(BOB, 4000, "192.0.2.1", 443), 8);
    w.logout(alice);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
    for step in [KillStep::Refused, KillStep::Gone, KillStep::Failed] {
        w.tell(hostile, row, step);
        w.tell(hostile, bobs, step);
        w.tell(hostile, ConnId::try_from(999_999).unwrap(), step);
        w.tell(gw, bobs, step);
    }
    assert_eq!(w.stats().foreign_kills, 6);
    w.pass(Duration::from_secs(15));
    assert_eq!(w.ordered_rows(gw), [row], "the order is repeated all the same");
    assert!(w.ends().is_empty());
    assert_eq!(w.stats().live_connections, 2);
}

#[test]
fn more_ends_than_a_batch_holds_come_one_batch_a_tick() {
    let mut w = World::with(all_kill);
    w.input(Input::Ids(1000..10_000));
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    for port in 0..2100_u16 {
        w.living(
            gw,
            alice,
            tcp(ALICE, 1000 + port, "192.0.2.1", 443),
            u32::from(port),
        );
    }
    w.logout(alice);
    for expected in [1024, 1024, 52, 0] {
        w.tick();
        assert_eq!(w.orders(gw).len(), expected);
    }
}

/// Forbids port 443, or 443 to alice.
struct Stricter;

impl Judge for Stricter {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        let alice = subject.user.is_some_and(|user| &*user.user.name == "alice");
        let web = subject
            .tuple
            .transport()
            .ports()
            .is_some_and(|ports| ports.dst == 443);
        Ruling {
            decision: if web && alice {
                Decision::Reject
            } else {
                Decision::Accept
            },
            rule: Arc::from("rule"),
            prefix: Arc::from(""),
            log: LogMode::Default,
            expires: None,
            until: None,
            mark: Mark(0),
        }
    }
}

#[test]
fn a_reload_ends_what_the_lists_do_not_allow_any_more() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let (alice, bob) = (w.login("alice", ALICE), w.login("bob", BOB));
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.living(gw, alice, tuple, 7);
    w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 80), 8);
    w.living(gw, bob, tcp(BOB, 4000, "192.0.2.1", 443), 9);
    w.reload(Arc::new(Stricter), &["alice", "bob"]);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
    w.event(gw, CtEventKind::Destroy, ended(answered(entry(7, tuple))));
    assert_eq!(w.ends(), [(row, CloseReason::KilledPolicy)]);
}

#[test]
fn a_reload_looks_at_the_translated_destination_as_the_packet_did() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    // The client connects to port 8443, the packet in FORWARD shows 443.
    let (original, shown) = (
        tcp(ALICE, 4000, "203.0.113.1", 8443),
        tcp(ALICE, 4000, "192.0.2.1", 443),
    );
    let ask = w.ask(gw, shown);
    w.claim_as(alice, original);
    w.commit();
    let row = w.accepted(ask).unwrap();
    let ct = natted(7, original, reversed(&shown));
    w.event(gw, CtEventKind::New, ct);
    w.reload(Arc::new(Stricter), &["alice"]);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
}

#[test]
fn a_user_who_is_removed_loses_connections_wherever_they_come_from() {
    let mut w = World::with(|limits| limits.on_removal = OnEnd::Kill);
    let gw = w.killer();
    let (alice, bob) = (w.login("alice", ALICE), w.login("bob", BOB));
    let row = w.living(gw, alice, tcp(ALICE, 4000, "192.0.2.1", 443), 7);
    w.living(gw, bob, tcp(BOB, 4000, "192.0.2.1", 443), 8);
    w.logout(alice);
    w.tick();
    assert_eq!(w.orders(gw), [], "logging out is another thing");
    w.reload(rules(), &["bob"]);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
}

fn row_of_before(id: u64, tuple: Tuple, received: Timestamp) -> ActiveRow {
    ActiveRow {
        id: ConnId::try_from(id).unwrap(),
        gateway: Arc::from("gw"),
        state: State::Open,
        received,
        zone: 0,
        original: tuple,
        translated: Translated::Shown(tuple),
        mark: Mark(1),
        user_id: Some(user("alice").user.id),
        username: Some(Arc::from("alice")),
        client_os: None,
        client_app: None,
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        auth: None,
    }
}

#[test]
fn connections_of_an_earlier_run_are_judged_when_users_and_rows_are_known() {
    for rows_first in [true, false] {
        let mut w = World::with(all_kill);
        let (web, mail) = (
            tcp(ALICE, 4000, "192.0.2.1", 443),
            tcp(ALICE, 4000, "192.0.2.1", 2030),
        );
        let half_an_hour_ago = Timestamp::from_micros(w.wall().micros() - 1_800_000_000);
        let rows = vec![
            row_of_before(5001, web, half_an_hour_ago),
            row_of_before(5002, mail, half_an_hour_ago),
        ];
        let loaded = Input::Loaded {
            rows,
            acknowledged: Vec::new(),
        };
        let users = Input::Users(HashMap::from([(Arc::from("alice"), user("alice"))]));
        if rows_first {
            w.input(loaded);
            w.input(users);
        } else {
            w.input(users);
            w.input(loaded);
        }
        let gw = w.killer();
        w.tick();
        let dump = w.requested().unwrap();
        w.dump(gw, dump, &[entry(7, web), entry(8, mail)], true);
        w.tick();
        assert_eq!(w.orders(gw), []);
        // Its rule lets it live for an hour, half of which is over.
        w.pass(Duration::from_mins(29));
        assert_eq!(w.orders(gw), []);
        w.pass(Duration::from_mins(1));
        assert_eq!(w.ordered_rows(gw), [ConnId::try_from(5002).unwrap()]);
    }
}

/// Accepts one port for programs with a certain hash.
struct Hashing;

impl Judge for Hashing {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        let ports = subject.tuple.transport().ports();
        let is_hashed = subject.any_hash || subject.program_hash == Some(&[7; 32]);
        let is_open = is_hashed && ports.is_some_and(|ports| ports.dst == 443);
        let decision = if is_open { Decision::Accept } else { Decision::Drop };
        Ruling {
            decision,
            ..rules().judge(subject)
        }
    }

    fn looks_at_hashes(&self) -> bool {
        true
    }
}

#[test]
fn a_hash_that_a_restart_forgot_is_no_reason_to_end_a_connection() {
    let mut w = World::with(all_kill);
    let at = w.wall();
    let (web, mail) = (
        tcp(ALICE, 4000, "192.0.2.1", 443),
        tcp(ALICE, 4000, "192.0.2.1", 2030),
    );
    let rows = vec![row_of_before(5001, web, at), row_of_before(5002, mail, at)];
    let acknowledged = Vec::new();
    w.input(Input::Loaded { rows, acknowledged });
    w.reload(Arc::new(Hashing), &["alice"]);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    w.tick();
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[entry(7, web), entry(8, mail)], true);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [ConnId::try_from(5002).unwrap()]);
    // One of this run whose client tells no hash.
    w.reload(rules(), &["alice"]);
    let row = w.living(gw, alice, tcp(ALICE, 4001, "192.0.2.1", 443), 9);
    w.reload(Arc::new(Hashing), &["alice"]);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
}

#[test]
fn a_rule_can_limit_how_long_a_connection_lives() {
    let mut w = World::new();
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 2030);
    let row = w.living(gw, alice, tuple, 7);
    let short = tcp(ALICE, 4001, "192.0.2.1", 2030);
    w.living(gw, alice, short, 8);
    w.living(gw, alice, tcp(ALICE, 4002, "192.0.2.1", 443), 9);
    w.event(gw, CtEventKind::Destroy, ended(answered(entry(8, short))));
    w.pass(Duration::from_mins(59));
    assert_eq!(w.orders(gw), []);
    w.pass(Duration::from_mins(1));
    assert_eq!(w.ordered_rows(gw), [row]);
    w.event(gw, CtEventKind::Destroy, ended(answered(entry(7, tuple))));
    assert_eq!(w.ends().last(), Some(&(row, CloseReason::KilledExpired)));
}

#[test]
fn a_large_table_is_judged_in_portions() {
    let mut w = World::with(all_kill);
    let at = w.wall();
    let rows = (0..45_000_u32)
        .map(|n| {
            let src = std::net::Ipv4Addr::from(0x0a00_0000 + n / 60_000).to_string();
            let tuple = tcp(&src, u16::try_from(n % 60_000).unwrap(), "192.0.2.1", 443);
            row_of_before(u64::from(n) + 5000, tuple, at)
        })
        .collect();
    let acknowledged = Vec::new();
    w.input(Input::Loaded { rows, acknowledged });
    w.reload(Arc::new(Stricter), &["alice"]);
    let mut wanted = Vec::new();
    for _ in 0..3 {
        w.tick();
        wanted.push(w.stats().waiting_kills);
    }
    assert!(wanted[0] <= 20_000 && wanted[1] <= 40_000, "{wanted:?}");
    assert_eq!(wanted[2], 45_000);
}

#[test]
fn a_user_who_is_removed_has_no_session_either() {
    for (on_removal, reason) in [
        (OnEnd::Keep, CloseReason::KilledSession),
        (OnEnd::Kill, CloseReason::KilledRemoved),
    ] {
        let mut w = World::with(|limits| {
            limits.on_session_end = OnEnd::Kill;
            limits.on_removal = on_removal;
        });
        let gw = w.killer();
        let alice = w.login("alice", ALICE);
        let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
        let row = w.living(gw, alice, tuple, 7);
        w.leave(alice, Leaving::Removed);
        w.tick();
        assert_eq!(w.ordered_rows(gw), [row], "without any grace");
        w.tell(gw, row, KillStep::Refused);
        w.event(gw, CtEventKind::Destroy, ended(answered(entry(7, tuple))));
        assert_eq!(w.ends(), [(row, reason)]);
    }
}

#[test]
fn what_could_not_be_ended_and_ends_by_itself_says_so() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.living(gw, alice, tuple, 7);
    w.logout(alice);
    w.tick();
    w.tell(gw, row, KillStep::Failed);
    w.event(gw, CtEventKind::Destroy, ended(answered(entry(7, tuple))));
    assert_eq!(w.ends(), [(row, CloseReason::Reset)]);
}

#[test]
fn the_agents_own_deletion_of_what_was_ordered_is_nobody_elses() {
    let mut w = World::with(all_kill);
    let gw = w.killer();
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 443);
    let row = w.living(gw, alice, tuple, 7);
    w.logout(alice);
    w.tick();
    assert_eq!(w.ordered_rows(gw), [row]);
    let last = CtEvent {
        removal: Removal::ByProgram,
        ..w.event_now(CtEventKind::Destroy, ended(answered(entry(7, tuple))))
    };
    w.next_event(gw, last);
    assert_eq!(w.ends(), [(row, CloseReason::KilledSession)]);
    w.pass(Duration::from_mins(5));
    assert_eq!(w.gaps().len(), 0);
}
