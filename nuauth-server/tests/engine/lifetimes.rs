//! How sessions end other than by their client: limits of a user, age, idleness, the time of the day, an order.

use crate::world::{World, answered, entry, tcp, user};
use nuauth_server::engine::{Effect, Input, Leaving, OnEnd, OnUserLimit};
use nuauth_server::hours::{Hours, Week};
use nufw_proto::client::{EndCause, Refusal};
use nufw_proto::{CtEventKind, SessionId};
use std::collections::BTreeMap;
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);

impl World {
    /// Who was ended since the last call, and why.
    fn ended(&mut self) -> Vec<(SessionId, Option<EndCause>)> {
        let ended = self.others.iter().filter_map(|effect| match effect {
            Effect::EndSession { session, cause, .. } => Some((*session, *cause)),
            _ => None,
        });
        let ended = ended.collect();
        self.others.clear();
        ended
    }

    fn refusal(&self, of: SessionId) -> Option<Refusal> {
        self.others.iter().find_map(|effect| match effect {
            Effect::NotAdmitted { session, cause } if *session == of => Some(*cause),
            _ => None,
        })
    }

    fn asked_to_renew(&mut self) -> Vec<SessionId> {
        let asked = self.others.iter().filter_map(|effect| match effect {
            Effect::Renew { session, .. } => Some(*session),
            _ => None,
        });
        let asked = asked.collect();
        self.others.clear();
        asked
    }
}

#[test]
fn a_user_has_so_many_sessions_and_others_have_theirs() {
    let mut w = World::with(|limits| limits.sessions_per_user = Some(2));
    let first = w.login("alice", "10.0.0.1");
    w.login("alice", "10.0.0.2");
    let third = w.login("alice", "10.0.0.3");
    assert_eq!(w.refusal(third), Some(Refusal::UserFull));
    let bob = w.login("bob", "10.0.0.3");
    assert_eq!(w.refusal(bob), None);
    w.logout(first);
    let fourth = w.login("alice", "10.0.0.3");
    assert_eq!(w.refusal(fourth), None);
    assert_eq!((w.stats().sessions, w.stats().logins_user_full), (3, 1));
}

#[test]
fn the_oldest_session_gives_way_where_it_is_configured() {
    let mut w = World::with(|limits| {
        limits.sessions_per_user = Some(1);
        limits.on_user_limit = OnUserLimit::EndOldest;
    });
    let first = w.login("alice", "10.0.0.1");
    let second = w.login("alice", "10.0.0.2");
    assert_eq!(w.refusal(second), None);
    assert_eq!(w.ended(), [(first, Some(EndCause::Replaced))]);
    let gw = w.gateway();
    let ask = w.ask(gw, tcp("10.0.0.1:4000", "192.0.2.1:443"));
    assert!(w.verdict(ask).is_some(), "nobody is at the old address");
    w.granted(gw, second, tcp("10.0.0.2:4000", "192.0.2.1:443"));
}

#[test]
fn who_comes_back_by_a_ticket_takes_the_place_of_the_session_that_had_it() {
    let mut w = World::with(|limits| {
        limits.sessions_per_user = Some(1);
        limits.sessions_per_address = 1;
        limits.sessions = 1;
        limits.on_session_end = OnEnd::Kill;
        limits.session_grace = Duration::ZERO;
    });
    let old = w.login("alice", "10.0.0.1");
    let new = w.login_with("alice", "10.0.0.1", |facts| facts.replaces = Some(old));
    assert_eq!(w.refusal(new), None);
    assert_eq!(w.ended(), [(old, None)], "its ticket stays good");
    assert_eq!(w.stats().sessions, 1);
    let mallory = w.login_with("mallory", "10.0.0.1", |facts| facts.replaces = Some(new));
    assert_eq!(
        w.refusal(mallory),
        Some(Refusal::Full),
        "only the same user replaces"
    );
    assert_eq!(w.ended(), []);
}

#[test]
fn credentials_are_asked_for_before_a_session_is_too_old() {
    let mut w = World::with(|limits| limits.session_age = Some(10 * MINUTE));
    let renews = w.login_with("alice", "10.0.0.1", |facts| facts.renewable = true);
    let silent = w.login_with("bob", "10.0.0.2", |facts| facts.renewable = true);
    let older_client = w.login("carol", "10.0.0.3");
    w.pass(8 * MINUTE);
    assert_eq!(w.asked_to_renew(), []);
    w.pass(MINUTE);
    assert_eq!(w.asked_to_renew(), [renews, silent]);
    w.input(Input::Renewed { session: renews });
    w.pass(MINUTE / 2);
    assert_eq!(w.asked_to_renew(), [], "once is enough");
    w.pass(MINUTE);
    assert_eq!(
        w.ended(),
        [
            (silent, Some(EndCause::Expired)),
            (older_client, Some(EndCause::Expired))
        ]
    );
    w.pass(8 * MINUTE);
    assert_eq!(w.asked_to_renew(), [renews], "and again in its next life");
    assert_eq!((w.stats().renewals, w.stats().ended_expired), (1, 2));
}

#[test]
fn a_ticket_does_not_make_a_session_younger() {
    let mut w = World::with(|limits| limits.session_age = Some(10 * MINUTE));
    let back = w.login_with("alice", "10.0.0.1", |facts| facts.age = 9 * MINUTE);
    assert_eq!(w.refusal(back), None);
    w.pass(2 * MINUTE);
    assert_eq!(w.ended(), [(back, Some(EndCause::Expired))]);
    let too_old = w.login_with("alice", "10.0.0.1", |facts| facts.age = 10 * MINUTE);
    assert_eq!(w.refusal(too_old), Some(Refusal::Ticket));
}

#[test]
fn an_idle_session_ends_and_one_with_a_live_connection_does_not() {
    let mut w = World::with(|limits| limits.session_idle = Some(10 * MINUTE));
    let gw = w.gateway();
    let idle = w.login("alice", "10.0.0.1");
    let talks = w.login("bob", "10.0.0.2");
    let holds = w.login("carol", "10.0.0.3");
    let long = entry(1, tcp("10.0.0.3:4000", "192.0.2.1:22"));
    w.granted(gw, holds, long.original);
    w.event(gw, CtEventKind::New, long);
    w.event(gw, CtEventKind::Update, answered(long));
    w.pass(6 * MINUTE);
    w.granted(gw, talks, tcp("10.0.0.2:4000", "192.0.2.1:443"));
    w.pass(5 * MINUTE);
    assert_eq!(w.ended(), [(idle, Some(EndCause::Idle))]);
    for _ in 0..30 {
        w.pass(MINUTE);
    }
    let over: Vec<SessionId> = w.ended().into_iter().map(|(session, _)| session).collect();
    assert!(!over.contains(&holds), "its connection lives");
}

#[test]
fn the_time_of_the_day_refuses_and_ends() {
    let mut w = World::new();
    // The world begins at 2027-01-15 08:01 UTC, a Friday.
    let week = Week::parse(&["fri 08:00-08:10"]).unwrap();
    let hours = Hours::new(Some(jiff::tz::TimeZone::UTC), Some(week), BTreeMap::new());
    let before = w.login("alice", "10.0.0.1");
    w.input(Input::Hours(hours));
    w.pass(MINUTE);
    assert_eq!(w.ended(), []);
    w.pass(9 * MINUTE);
    assert_eq!(w.ended(), [(before, Some(EndCause::Hours))]);
    let late = w.login("bob", "10.0.0.2");
    assert_eq!(w.refusal(late), Some(Refusal::Hours));
    assert_eq!((w.stats().ended_hours, w.stats().logins_hours), (1, 1));
}

#[test]
fn an_order_ends_whom_it_means_and_their_connections() {
    let mut w = World::with(|limits| limits.on_removal = OnEnd::Kill);
    let gw = w.gateway_as("gw", |hello| {
        hello.capabilities = nufw_proto::gateway::Capabilities::KILL;
    });
    let alice = [w.login("alice", "10.0.0.1"), w.login("alice", "10.0.0.2")];
    let bob = w.login("bob", "10.0.0.3");
    let long = entry(1, tcp("10.0.0.1:4000", "192.0.2.1:22"));
    w.granted(gw, alice[0], long.original);
    w.event(gw, CtEventKind::New, long);
    assert_eq!(w.disconnect("alice"), alice);
    assert_eq!(w.ended(), alice.map(|session| (session, Some(EndCause::Ordered))));
    w.pass(Duration::from_secs(1));
    assert_eq!(w.stats().kills_ordered, 1);
    assert_eq!(w.disconnect("alice"), []);
    w.granted(gw, bob, tcp("10.0.0.3:4000", "192.0.2.1:443"));
}

#[test]
fn a_client_that_floods_claims_is_thrown_out_and_the_others_stay() {
    let mut w = World::new();
    let gw = w.gateway();
    let mallory = w.login("mallory", "10.0.0.6");
    let alice = w.login("alice", "10.0.0.7");
    // What a slow client may do by mistake does no harm.
    for _ in 0..1000 {
        w.announce(mallory, tcp("10.0.0.7:4000", "192.0.2.1:443"));
    }
    assert_eq!(w.ended(), []);
    for _ in 0..50_000 {
        w.announce(mallory, tcp("10.0.0.7:4000", "192.0.2.1:443"));
    }
    assert_eq!(w.ended(), [(mallory, Some(EndCause::Misbehaved))]);
    w.granted(gw, alice, tcp("10.0.0.7:4000", "192.0.2.1:443"));
}

#[test]
fn odd_claims_of_another_time_do_not_add_up() {
    let mut w = World::new();
    let alice = w.login("alice", "10.0.0.7");
    for _ in 0..3 {
        for _ in 0..40_000 {
            w.announce(alice, tcp("10.0.0.8:4000", "192.0.2.1:443"));
        }
        w.pass(Duration::from_secs(10));
    }
    assert_eq!(w.ended(), []);
}

#[test]
fn a_server_that_drains_takes_nobody_and_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.1");
    let before = w.ask(gw, tcp("10.0.0.1:4000", "192.0.2.1:443"));
    w.input(Input::Drain);
    assert!(!w.engine.is_idle());
    let after = w.ask(gw, tcp("10.0.0.1:4001", "192.0.2.1:443"));
    w.claim(alice);
    w.commit();
    assert!(w.accepted(before).is_some());
    assert_eq!(w.verdict(after), None, "its agent asks elsewhere");
    let bob = w.login("bob", "10.0.0.2");
    assert_eq!(w.refusal(bob), Some(Refusal::Unavailable));
    assert!(w.engine.is_idle());
}

#[test]
fn begin_and_end_are_told_where_somebody_listens() {
    let mut w = World::with(|limits| limits.tells_sessions = true);
    let alice = w.login("alice", "10.0.0.1");
    w.leave(alice, Leaving::Lost);
    let told: Vec<_> = w
        .others
        .iter()
        .filter_map(|effect| match effect {
            Effect::Session(word) => Some((word.user.clone(), word.end)),
            _ => None,
        })
        .collect();
    let who = user("alice").user.clone();
    assert_eq!(told, [(who.clone(), None), (who, Some("lost"))]);
}

#[test]
fn a_server_that_ends_writes_when_its_sessions_did() {
    use nulog::Change;
    let mut w = World::new();
    w.login("alice", "10.0.0.1");
    w.login("bob", "10.0.0.2");
    w.input(Input::Stopping);
    let ends = w
        .log
        .iter()
        .filter(|entry| matches!(entry.change, Change::SessionEnd { .. }));
    assert_eq!(ends.count(), 2);
}

#[test]
fn what_is_shown_comes_a_page_at_a_time() {
    let mut w = World::new();
    let gw = w.gateway();
    let sessions: Vec<SessionId> = (1..=5)
        .map(|host| w.login("alice", &format!("10.0.0.{host}")))
        .collect();
    let now = w.moment();
    let page = |after, most| -> Vec<SessionId> {
        let page = w.engine.sessions_after(after, most, now);
        page.iter().map(|view| view.id).collect()
    };
    assert_eq!(page(0, 2), sessions[..2]);
    assert_eq!(page(sessions[1].0, 9), sessions[2..]);
    let ask = tcp("10.0.0.1:4000", "192.0.2.1:443");
    w.ask(gw, ask);
    let waiting = w.engine.pending_after(0, 9, w.moment());
    assert_eq!(
        (waiting.len(), waiting[0].tuple, waiting[0].unanswered),
        (1, ask, 1)
    );
    let rows: Vec<_> = (2..=5)
        .map(|host| {
            let tuple = tcp(&format!("10.0.0.{host}:4000"), "192.0.2.1:443");
            w.granted(gw, sessions[host - 1], tuple)
        })
        .collect();
    let (first, next) = w.engine.connections_from(0, 3, |_| true);
    let (rest, end) = w.engine.connections_from(next.unwrap(), 3, |_| true);
    let seen: Vec<_> = first.iter().chain(&rest).map(|view| view.id).collect();
    assert_eq!((seen, end), (rows, None));
    let (one, _) = w
        .engine
        .connections_from(0, 9, |view| view.original.src() == crate::world::addr("10.0.0.3"));
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].username.as_deref(), Some("alice"));
}
