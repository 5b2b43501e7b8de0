//! Searching and `whois`: what is found, in which order, and how sure it is; over both tables, while rows move.

use crate::lab::{COLUMNS, Lab};
use crate::make::*;
use nufw_proto::{Ports, Transport, Tuple};
use nulog::{
    AddrRange, Binding, Change, Close, CloseReason, Covers, Established, OpenRow, Order, RowKey, Search,
    SearchFilter, State, User, WhoisQuestion,
};
use std::sync::Arc;
use std::time::Duration;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const INJECTION: &str = "al'i\"ce; DROP TABLE ulog --";

/// One life: when, who, from where, to where, seen from outside as.
struct Life<'a> {
    number: u64,
    begin: i64,
    end: Option<i64>,
    user: &'a str,
    original: Tuple,
    outside: (&'a str, u16),
}

impl<'a> Life<'a> {
    fn new(
        number: u64,
        begin: i64,
        end: Option<i64>,
        user: &'a str,
        port: u16,
        outside: (&'a str, u16),
    ) -> Self {
        Self {
            number,
            begin,
            end,
            user,
            original: tcp("10.0.0.7", port, "198.51.100.1", 443),
            outside,
        }
    }

    fn binding(&self) -> Binding {
        let ports = self.original.transport().ports().unwrap();
        let back = Ports {
            src: ports.dst,
            dst: self.outside.1,
        };
        Binding {
            ct_id: 77,
            ct_mark: nufw_proto::Mark(1001),
            original: self.original,
            reply: Tuple::new(self.original.dst(), addr(self.outside.0), Transport::Tcp(back)).unwrap(),
        }
    }

    fn open(&self) -> OpenRow {
        OpenRow {
            received: at(self.begin),
            user: Some(User {
                id: 1001,
                name: Arc::from(self.user),
            }),
            original: self.original,
            shown: self.original,
            ..open_row(self.number)
        }
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = vec![
            Change::Open(Box::new(self.open())),
            Change::Established(Box::new(Established {
                id: id(self.number),
                at: Some(at(self.begin)),
                binding: Some(self.binding()),
            })),
        ];
        if let Some(end) = self.end {
            changes.push(Change::Close(Box::new(Close {
                id: id(self.number),
                at: Some(at(end)),
                reason: CloseReason::Finished,
                counters: Some(counters()),
                binding: Some(self.binding()),
            })));
        }
        changes
    }
}

async fn search(lab: &Lab) -> Search {
    Search::open(&lab.location(), Duration::from_mins(1))
        .await
        .unwrap()
}

/// Sequence numbers of what is found.
async fn found(lab: &Lab, filter: SearchFilter) -> Vec<u64> {
    let mut search = search(lab).await;
    numbers(&search.page(&filter, None, 1000).await.unwrap())
}

fn numbers(rows: &[nulog::Row]) -> Vec<u64> {
    let number = |row: &nulog::Row| row.values["id"].as_str().unwrap().parse::<u64>().unwrap() - (1 << 49);
    rows.iter().map(number).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "a filter's value")]
fn range(first: &str, last: &str) -> Option<AddrRange> {
    Some(AddrRange {
        first: addr(first),
        last: addr(last),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "a filter's value")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Moves rows up to this one to the archive.
async fn archive(lab: &Lab, last: u64) {
    let which = format!("state IN (0, 3) AND id <= {}", id(last).get());
    let statements = format!(
        "BEGIN; INSERT INTO ulog ({COLUMNS}) SELECT {COLUMNS} FROM conntrack_ulog WHERE {which}; \
         DELETE FROM conntrack_ulog WHERE {which}; COMMIT"
    );
    lab.execute(&statements).await;
}

/// What is set in a filter, and what it finds.
type Case = (fn(&mut SearchFilter), &'static [u64]);

const CASES: &[Case] = &[
    (|_| (), &[5, 4, 3, 2, 1]),
    (|f| f.user = text("alice"), &[4, 3, 1]),
    (|f| f.user = text("Alice"), &[]),
    (|f| f.user = text("alice "), &[]),
    (|f| f.user = text("al\0ice"), &[]),
    (|f| f.user = text(INJECTION), &[2]),
    (|f| f.app = text("firefox"), &[5, 3, 2, 1]),
    (|f| f.app = text("0%_c"), &[4]),
    (|f| f.app = text("%"), &[4]),
    (|f| f.source = range("10.0.0.7", "10.0.0.7"), &[5, 4, 1]),
    (|f| f.source = range("10.0.0.0", "10.0.255.255"), &[5, 4, 2, 1]),
    (|f| f.source = range("0.0.0.0", "255.255.255.255"), &[5, 4, 2, 1]),
    (|f| f.source = range("fd00::", "fd00::ffff"), &[3]),
    (
        |f| f.source = range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        &[3],
    ),
    (|f| f.destination = range("198.51.100.2", "198.51.100.2"), &[2]),
    (|f| f.destination = range("198.51.100.2", "198.51.101.0"), &[2]),
    (|f| f.port = Some(53), &[3]),
    (|f| f.source_port = Some(40001), &[2]),
    (|f| f.protocol = Some(17), &[3]),
    (|f| f.gateway = text("gw2"), &[4]),
    (|f| f.acl = text("other"), &[4]),
    (|f| f.close_reason = text("never-confirmed"), &[4]),
    (|f| f.states = vec![State::Drop], &[5]),
    (|f| f.states = vec![State::Open, State::Drop], &[5, 3]),
    (|f| f.since = Some(at(2 * HOUR)), &[5, 4, 3, 2]),
    (|f| f.since = Some(at(2 * HOUR + 1)), &[5, 4, 3]),
    (|f| f.until = Some(at(2 * HOUR)), &[1]),
    (|f| f.until = Some(at(2 * HOUR + 1)), &[2, 1]),
    (
        |f| {
            f.user = text("alice");
            f.states = vec![State::Close];
            f.port = Some(443);
        },
        &[4, 1],
    ),
];

pub(crate) async fn every_filter_finds_its_rows_in_both_tables(lab: Lab) {
    let mut store = lab.store().await;
    let nowhere = ("203.0.113.5", 61000);
    let mut changes = Vec::new();
    for n in 1..=4 {
        let begin = i64::try_from(n).unwrap() * 3600 * SECOND;
        let mut life = Life::new(n, begin, Some(begin + SECOND), "alice", 40000, nowhere);
        if n == 2 {
            life.user = INJECTION;
            life.original = tcp("10.0.1.7", 40001, "198.51.100.2", 80);
        }
        if n == 3 {
            life.original = tuple(
                "fd00::7",
                "2001:db8::1",
                Transport::Udp(Ports { src: 53, dst: 53 }),
            );
            life.outside = ("2001:db8:1::1", 53);
        }
        let mut open = life.open();
        if n == 4 {
            open.client_app = Some(Arc::from("/usr/bin/100%_curl"));
            open.gateway = Arc::from("gw2");
            open.acl = Arc::from("other");
        }
        changes.push(Change::Open(Box::new(open)));
        if n != 3 && n != 4 {
            changes.extend(life.changes().into_iter().skip(1));
        }
    }
    let dropped = Life::new(5, 5 * 3600 * SECOND, None, "mallory", 9, nowhere);
    changes.push(Change::Drop(Box::new(dropped.open())));
    store.apply(&changes).await.unwrap();
    store
        .apply(&[close_with(4, |close| {
            close.binding = None;
            close.reason = CloseReason::NeverConfirmed;
        })])
        .await
        .unwrap();
    archive(&lab, 3).await;

    for (number, (set, expected)) in CASES.iter().enumerate() {
        let mut filter = SearchFilter::default();
        set(&mut filter);
        assert_eq!(
            found(&lab, filter.clone()).await,
            *expected,
            "{number}: {filter:?}"
        );
        filter.order = Order::OldestFirst;
        let mut reversed = expected.to_vec();
        reversed.reverse();
        assert_eq!(found(&lab, filter).await, reversed, "{number}");
    }
    // Everything of a row, the same whatever the database.
    let mut search = search(&lab).await;
    let rows = search.page(&SearchFilter::default(), None, 10).await.unwrap();
    let row = &rows[4].values;
    assert_eq!(row.len(), nulog::Row::COLUMNS.len());
    let expected = serde_json::json!({
        "id": id(1).to_string(), "oob_time": "2027-01-15T09:00:00.000000Z", "state": 3, "username": "alice",
        "user_id": "1001", "ip_saddr": "10.0.0.7", "sport": 40000, "ip_daddr": "198.51.100.1", "dport": 443,
        "reply_daddr": "203.0.113.5", "reply_dport": 61000, "start_timestamp": "2027-01-15T09:00:00.000000Z",
        "end_timestamp": "2027-01-15T09:00:01.000000Z", "duration": 1.0, "bytes_in": 5_000_000_000_i64,
        "close_reason": "finished", "acl": "web-out", "icmp_type": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
}

pub(crate) async fn pages_give_each_row_once_in_order_while_rows_move(lab: Lab) {
    let mut store = lab.store().await;
    // Rows of one instant among them, and times that go against the ids.
    let mut expected = Vec::new();
    let mut changes = Vec::new();
    for n in 1..=60_u64 {
        let begin = i64::try_from((n * 37) % 20).unwrap() * 40_000 * SECOND + i64::from(n % 3 == 0);
        let life = Life::new(n, begin, Some(begin + 1), "alice", 1, ("203.0.113.5", 1));
        changes.extend(life.changes());
        expected.push((begin, n));
    }
    store.apply(&changes).await.unwrap();
    expected.sort_unstable();
    let mut expected: Vec<u64> = expected.into_iter().map(|(_, n)| n).collect();
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut search = search(&lab).await;
        let filter = SearchFilter {
            order,
            user: Some("alice".to_owned()),
            ..SearchFilter::default()
        };
        let (mut all, mut after): (Vec<u64>, Option<RowKey>) = (Vec::new(), None);
        for turn in 0.. {
            let page = search.page(&filter, after, 7).await.unwrap();
            all.extend(numbers(&page));
            let Some(last) = page.last() else { break };
            after = Some(last.key.to_string().parse().unwrap());
            archive(&lab, turn * 5).await;
        }
        assert_eq!(all, expected);
        expected.reverse();
    }
    // A row that is in both while it moves is one row.
    let both = format!(
        "INSERT INTO conntrack_ulog ({COLUMNS}) SELECT {COLUMNS} FROM ulog WHERE id = {}",
        id(1).get()
    );
    lab.execute(&both).await;
    assert_eq!(found(&lab, SearchFilter::default()).await.len(), 60);
}

async fn whois(lab: &Lab, endpoint: (&str, u16), when: i64, error: Duration) -> Vec<(u64, Covers)> {
    let question = WhoisQuestion {
        address: addr(endpoint.0),
        port: endpoint.1,
        protocol: None,
        at: at(when),
        clock_error: error,
    };
    let found = search(lab).await.whois(&question).await.unwrap();
    assert!(!found.more);
    let holders = found.holders.iter();
    holders
        .map(|holder| {
            assert_eq!(holder.covers == Covers::Surely, holder.doubt.is_empty());
            (numbers(std::slice::from_ref(&holder.row))[0], holder.covers)
        })
        .collect()
}

pub(crate) async fn an_end_that_was_not_seen_is_never_taken_for_certain(lab: Lab) {
    let mut store = lab.store().await;
    let outside = ("203.0.113.5", 61003);
    let unseen = Life::new(10, 400 * SECOND, None, "judy", 10, outside);
    store.apply(&unseen.changes()).await.unwrap();
    let end = Close {
        id: id(10),
        at: Some(at(500 * SECOND)),
        reason: CloseReason::Resync,
        counters: None,
        binding: Some(unseen.binding()),
    };
    store.apply(&[Change::Close(Box::new(end))]).await.unwrap();
    let ask = |when: i64| whois(&lab, outside, when * SECOND, Duration::from_secs(1));
    // It had begun, and may have ended at any time until the bound.
    assert_eq!(ask(450).await, [(10, Covers::Possibly)]);
    assert_eq!(ask(600).await, []);
    assert_eq!(ask(300).await, []);
    // Once the kernel has said when, that is certain.
    let seen = Close {
        at: Some(at(490 * SECOND)),
        reason: CloseReason::Finished,
        ..end
    };
    store.apply(&[Change::Close(Box::new(seen))]).await.unwrap();
    assert_eq!(ask(450).await, [(10, Covers::Surely)]);
    assert_eq!(ask(495).await, []);
}

pub(crate) async fn whois_names_everybody_who_may_have_had_the_address_and_port_and_nobody_else(lab: Lab) {
    let mut store = lab.store().await;
    let outside = ("203.0.113.5", 61000);
    let lives = [
        // Who had the port before and after, and who has it.
        Life::new(1, 0, Some(100 * SECOND), "alice", 1, outside),
        Life::new(2, 101 * SECOND, Some(200 * SECOND), "bob", 2, outside),
        Life::new(3, 300 * SECOND, None, "carol", 3, outside),
        // Without translation; over IPv6; another port.
        Life::new(4, 0, Some(100 * SECOND), "dave", 4000, ("10.0.0.7", 4000)),
        Life::new(6, 0, Some(100 * SECOND), "frank", 6, ("203.0.113.5", 61001)),
    ];
    for life in &lives {
        store.apply(&life.changes()).await.unwrap();
    }
    let v6 = Life {
        original: tuple(
            "fd00::7",
            "2001:db8::1",
            Transport::Tcp(Ports { src: 9, dst: 53 }),
        ),
        ..Life::new(5, 0, Some(100 * SECOND), "erin", 9, ("::1", 53))
    };
    store.apply(&v6.changes()).await.unwrap();
    // Never confirmed by the kernel; dropped.
    let unconfirmed = Life::new(7, 50 * SECOND, None, "grace", 4000, outside);
    store
        .apply(&[Change::Open(Box::new(unconfirmed.open()))])
        .await
        .unwrap();
    let dropped = Life::new(8, 50 * SECOND, None, "heidi", 4000, outside);
    store
        .apply(&[Change::Drop(Box::new(dropped.open()))])
        .await
        .unwrap();
    // Its end is not known.
    let endless = Life::new(9, 250 * SECOND, None, "ivan", 9, ("203.0.113.5", 61002));
    store.apply(&endless.changes()).await.unwrap();
    store
        .apply(&[Change::Close(Box::new(Close {
            id: id(9),
            at: None,
            reason: CloseReason::Finished,
            counters: None,
            binding: Some(endless.binding()),
        }))])
        .await
        .unwrap();

    let second = Duration::from_secs(1);
    for archived in [false, true] {
        if archived {
            archive(&lab, 100).await;
        }
        let ask = |when: i64, error| whois(&lab, outside, when * SECOND, error);
        assert_eq!(ask(50, second).await, [(1, Covers::Surely)]);
        assert_eq!(ask(150, Duration::ZERO).await, [(2, Covers::Surely)]);
        // In doubt: both, the one that was there at the instant first.
        assert_eq!(
            ask(100, 2 * second).await,
            [(1, Covers::Possibly), (2, Covers::Possibly)]
        );
        assert_eq!(
            ask(102, 2 * second).await,
            [(2, Covers::Possibly), (1, Covers::Possibly)]
        );
        assert_eq!(ask(250, 2 * second).await, []);
        // Still live.
        assert_eq!(ask(100_000, second).await, [(3, Covers::Surely)]);
        assert_eq!(ask(299, second).await, [(3, Covers::Possibly)]);
        assert_eq!(ask(-10, second).await, []);
        assert_eq!(
            whois(&lab, ("::1", 53), 10 * SECOND, second).await,
            [(5, Covers::Surely)]
        );
        assert_eq!(whois(&lab, ("fd00::7", 9), 10 * SECOND, second).await, []);
        assert_eq!(
            whois(&lab, ("10.0.0.7", 4000), 60 * SECOND, second).await,
            [(4, Covers::Surely), (7, Covers::Possibly)]
        );
        assert_eq!(
            whois(&lab, ("203.0.113.5", 61002), 9000 * SECOND, second).await,
            [(9, Covers::Possibly)]
        );
    }
    let question = WhoisQuestion {
        address: addr("203.0.113.5"),
        port: 61000,
        protocol: Some(17),
        at: at(50 * SECOND),
        clock_error: second,
    };
    assert!(
        search(&lab)
            .await
            .whois(&question)
            .await
            .unwrap()
            .holders
            .is_empty()
    );
}
