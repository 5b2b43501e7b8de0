//! What the access lists are told of a packet, and what their answers come to beyond yes and no.

use crate::world::{World, rules, user};
use nuauth_server::engine::{
    Decision, Effect, Input, Judge, LogMode, Quality, Ruling, SessionFacts, Subject,
};
use nufw_proto::client::{OsInfo, ProgramHash};
use nufw_proto::gateway::{BridgedAsk, ToAgent, ToServer, Verdict};
use nufw_proto::{AskId, Batch, CtEventKind, Mark, SessionId, Text, Timestamp, Tuple};
use nulog::CloseReason;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ALICE: &str = "10.0.0.7";
const STRANGER: &str = "10.0.0.99";

fn tcp(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    crate::world::tcp(&format!("{src}:{sport}"), &format!("{dst}:{dport}"))
}

/// Notes what it is told. Strangers may reach port 53, and are told of port 25; port 8080 is only for a while.
#[derive(Default)]
struct Listening {
    told: Mutex<Vec<String>>,
    until: Option<Timestamp>,
}

fn ruling(decision: Decision) -> Ruling {
    Ruling {
        decision,
        rule: Arc::from("listening"),
        prefix: Arc::from("L"),
        log: LogMode::Default,
        expires: None,
        until: None,
        mark: Mark(0x0050_0000),
    }
}

impl Judge for Listening {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        self.told.lock().unwrap().push(format!(
            "{} by {} with {} on {} from {} to {} at {}, ports {}>{}",
            subject.user.map_or("nobody", |user| &user.user.name),
            subject.quality.word(),
            subject.program.unwrap_or("-"),
            subject.os.unwrap_or("-"),
            subject.in_dev,
            subject.out_dev,
            subject.gateway,
            subject.phys_in,
            subject.phys_out,
        ));
        Ruling {
            until: self.until,
            ..ruling(Decision::Accept)
        }
    }

    fn judge_stranger(&self, subject: &Subject<'_>) -> Option<Ruling> {
        assert!(subject.user.is_none() && subject.program.is_none());
        match subject.tuple.transport().ports()?.dst {
            53 => Some(ruling(Decision::Accept)),
            25 => Some(ruling(Decision::Reject)),
            _ => None,
        }
    }

    fn judges_strangers(&self) -> bool {
        true
    }

    fn version(&self) -> Arc<str> {
        Arc::from("0123456789ab")
    }
}

fn listening(w: &mut World, judge: Listening) -> Arc<Listening> {
    let judge = Arc::new(judge);
    w.input(Input::Judge(Arc::clone(&judge) as Arc<dyn Judge>));
    judge
}

#[test]
fn the_lists_are_told_all_that_is_known_and_the_row_says_which_lists_they_were() {
    let mut w = World::new();
    let judge = listening(&mut w, Listening::default());
    let gw = w.gateway();
    let session = SessionId(77);
    let os = OsInfo {
        name: Text::lossy("Linux"),
        release: Text::lossy("6.12"),
        version: Text::lossy("#1"),
    };
    let facts = SessionFacts {
        quality: Quality::Certificate,
        ..SessionFacts::new(user("alice"), ALICE.parse().unwrap(), os)
    };
    w.input(Input::SessionUp { session, facts });
    let mut told = String::from(
        "alice by certificate with /usr/bin/curl on Linux-#1-6.12 from eth0 to eth1 at gw, ports ",
    );
    let ask = AskId(1000);
    w.ask_with(gw, tcp(ALICE, 4000, "192.0.2.1", 443), |packet| packet.id = ask);
    w.claim(session);
    w.commit();
    assert_eq!(judge.told.lock().unwrap().pop(), Some(format!("{told}>")));
    told.push_str("p1>p2");
    let bridged = BridgedAsk {
        ask: w.packet(tcp(ALICE, 4001, "192.0.2.1", 443)),
        phys_in: Text::lossy("p1"),
        phys_out: Text::lossy("p2"),
    };
    w.said(gw, ToServer::BridgedAsks(Batch::try_from(vec![bridged]).unwrap()));
    w.claim(session);
    w.commit();
    assert_eq!(judge.told.lock().unwrap().pop(), Some(told));
    let opened = w.opened();
    assert_eq!(
        (&*opened[0].policy, opened[0].auth.as_deref()),
        ("0123456789ab", Some("certificate"))
    );
    let mark = Mark(0x0050_0000 | user("alice").mark.0);
    let row = opened[0].id;
    assert_eq!(opened[0].mark, mark);
    assert_eq!(w.verdict(ask), Some(Verdict::Accept { row, mark }));
}

#[test]
fn rules_for_nobody_decide_where_nobody_is_logged_in() {
    let mut w = World::new();
    let gw = w.gateway();
    let asks_for_others = |w: &World| {
        w.agent.iter().rev().find_map(|(_, message)| match message {
            ToAgent::KnownAddresses(known) => Some((known.others_can_pass, known.reset)),
            _ => None,
        })
    };
    assert_eq!(asks_for_others(&w), Some((false, true)));
    listening(&mut w, Listening::default());
    assert_eq!(
        asks_for_others(&w),
        Some((true, false)),
        "gateways are told at once"
    );
    let late = w.gateway_as("late", |_| {});
    assert_eq!(asks_for_others(&w), Some((true, true)));
    w.down(late);

    let accepted = w.ask(gw, tcp(STRANGER, 4000, "192.0.2.1", 53));
    assert_eq!(w.verdict(accepted), None, "the row comes first");
    w.commit();
    let row = w.opened()[0].clone();
    assert_eq!((row.user, row.auth, &*row.acl), (None, None, "listening"));
    let mark = Mark(0x0050_0000);
    assert_eq!(w.verdict(accepted), Some(Verdict::Accept { row: row.id, mark }));
    let rejected = w.ask(gw, tcp(STRANGER, 4000, "192.0.2.1", 25));
    assert_eq!(w.verdict(rejected), Some(Verdict::Reject));
    let dropped = w.ask(gw, tcp(STRANGER, 4000, "192.0.2.1", 80));
    assert_eq!(w.verdict(dropped), Some(Verdict::Drop));
    let rows: Vec<&str> = w.dropped().iter().map(|row| &*row.acl).collect();
    assert_eq!(rows, ["listening", "(nobody)"]);
    // Where somebody is logged in, only that one's claim counts.
    let alice = w.login("alice", ALICE);
    let asked = w.ask(gw, tcp(ALICE, 4000, "192.0.2.1", 53));
    w.disclaim(alice);
    assert_eq!(w.verdict(asked), Some(Verdict::Drop));
    w.input(Input::Judge(rules()));
    assert_eq!(asks_for_others(&w), Some((false, false)));
}

#[test]
fn a_retransmission_of_a_stranger_has_the_row_of_its_first_packet() {
    let mut w = World::new();
    let gw = w.gateway();
    listening(&mut w, Listening::default());
    let tuple = tcp(STRANGER, 4000, "192.0.2.1", 53);
    let first = w.ask(gw, tuple);
    w.commit();
    let second = w.ask(gw, tuple);
    assert_eq!(w.accepted(second), w.accepted(first));
    assert_eq!(w.opened().len(), 1);
}

#[test]
fn the_end_of_a_period_ends_what_it_accepted() {
    let mut w = World::new();
    let gw = w.gateway_as("gw", |hello| {
        hello.capabilities = nufw_proto::gateway::Capabilities::KILL;
    });
    let until = Timestamp::from_micros(w.wall().micros() + 60_000_000);
    listening(
        &mut w,
        Listening {
            until: Some(until),
            ..Listening::default()
        },
    );
    let alice = w.login("alice", ALICE);
    let tuple = tcp(ALICE, 4000, "192.0.2.1", 8080);
    w.granted(gw, alice, tuple);
    w.event(gw, CtEventKind::New, crate::world::entry(7, tuple));
    let kills = |w: &World| {
        w.agent
            .iter()
            .filter(|(_, m)| matches!(m, ToAgent::Kill(_)))
            .count()
    };
    w.pass(Duration::from_secs(58));
    assert_eq!(kills(&w), 0);
    w.pass(Duration::from_secs(3));
    assert_eq!(kills(&w), 1);
}

#[test]
fn a_strict_rule_closes_what_the_kernel_has_forgotten_under_the_same_tuple() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", ALICE);
    let rows = [2004_u16, 2001].map(|port| {
        let tuple = tcp(ALICE, 4000, "192.0.2.1", port);
        let older = w.granted(gw, alice, tuple);
        w.event(gw, CtEventKind::New, crate::world::entry(u32::from(port), tuple));
        // Its end is not told; the same tuple is asked for again.
        w.pass(Duration::from_secs(5));
        (older, w.granted(gw, alice, tuple))
    });
    assert_eq!(
        w.ends(),
        [(rows[0].0, CloseReason::Replaced)],
        "only where the rule is strict"
    );
    assert_ne!(rows[0].0, rows[0].1);
}

/// Accepts the program with one hash, and says so.
struct Hashing;

const GOOD_HASH: [u8; 32] = [7; 32];

impl Judge for Hashing {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        ruling(if subject.program_hash == Some(&GOOD_HASH) {
            Decision::Accept
        } else {
            Decision::Drop
        })
    }

    fn looks_at_hashes(&self) -> bool {
        true
    }
}

#[test]
fn hashes_are_asked_for_when_a_rule_needs_them_and_count_for_the_next_claims_alone() {
    let mut w = World::new();
    let gw = w.gateway();
    let session = SessionId(77);
    let facts = SessionFacts {
        hashes: true,
        ..SessionFacts::new(user("alice"), ALICE.parse().unwrap(), OsInfo::default())
    };
    w.input(Input::SessionUp { session, facts });
    w.login("bob", "10.0.0.8");
    w.others.clear();
    w.input(Input::Judge(Arc::new(Hashing)));
    let told = |w: &mut World, wanted| {
        let only = [Effect::HashPrograms { session, wanted }];
        assert_eq!(
            std::mem::take(&mut w.others),
            only,
            "only who can tell them is asked"
        );
    };
    told(&mut w, true);
    let mut port = 4000;
    let mut verdict = |w: &mut World, hash: Option<[u8; 32]>| {
        port += 1;
        let ask = w.ask(gw, tcp(ALICE, port, "192.0.2.1", 443));
        if let Some(sha256) = hash {
            let id = w.question(session).id;
            let hashes = Batch::try_from(vec![ProgramHash { id, sha256 }]).unwrap();
            let message = nufw_proto::client::ToServer::ProgramHashes(hashes);
            w.input(Input::Client { session, message });
        }
        w.claim(session);
        w.commit();
        w.accepted(ask).is_some()
    };
    assert!(verdict(&mut w, Some(GOOD_HASH)));
    assert!(!verdict(&mut w, Some([8; 32])));
    assert!(!verdict(&mut w, None), "a hash of before is not this one's");
    w.input(Input::Judge(rules()));
    told(&mut w, false);
}
