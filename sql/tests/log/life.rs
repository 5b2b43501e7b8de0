//! The life of a row: forward only, nothing true overwritten, nothing done twice.

use crate::lab::{Lab, after, from};
use crate::make::*;
use nufw_proto::{Count, Counters, Mark, Ports, Transport};
use nulog::{
    ActiveRow, Binding, Change, CloseReason, Established, OpenRow, RowFilter, State, StoreError, Translated,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(crate) async fn a_whole_life_fills_every_column_as_numbers_texts_and_times(lab: Lab) {
    let mut store = lab.store().await;
    store.apply(&[open(1)]).await.unwrap();
    let row = &lab.rows().await[0];
    assert_eq!(row["state"], 1);
    // The destination that the packet showed is there from the start; the rest of the NAT side is not known.
    assert_eq!(
        (&row["reply_saddr"], &row["reply_sport"]),
        (&json!("192.168.0.9"), &json!(8443))
    );
    for column in [
        "reply_daddr",
        "reply_dport",
        "ct_id",
        "start_timestamp",
        "packets_in",
        "close_reason",
    ] {
        assert_eq!(row[column], json!(null), "{column}");
    }

    store.apply(&[established(1)]).await.unwrap();
    assert_eq!(lab.rows().await[0]["state"], 2);

    store.apply(&[close(1)]).await.unwrap();
    let expected = json!({
        "id": id(1).get().to_string(), "state": 3, "oob_time": "2027-01-15T08:00:00.000005Z",
        "oob_time_sec": 1_800_000_000, "oob_time_usec": 5, "oob_prefix": "web", "oob_mark": 1001,
        "oob_in": "eth0", "oob_out": null, "ip_protocol": 6,
        // The kernel's tuple, not the client's.
        "ip_saddr": "10.0.0.7", "ip_daddr": "10.1.1.2", "sport": 40312, "dport": 444,
        "tcp_sport": 40312, "tcp_dport": 444, "udp_sport": null, "udp_dport": null,
        "icmp_type": null, "icmp_code": null, "icmp_id": null,
        "user_id": "1001", "username": "alice", "client_os": "Linux", "client_app": "/usr/bin/firefox",
        "start_timestamp": "2027-01-15T08:00:01.000000Z", "end_timestamp": "2027-01-15T08:00:03.500000Z",
        "duration": 2.5,
        "packets_in": 3, "packets_out": 4, "bytes_in": 5_000_000_000_u64, "bytes_out": 400,
        "reply_saddr": "192.168.0.9", "reply_daddr": "203.0.113.5", "reply_sport": 8443, "reply_dport": 61000,
        "reply_icmp_type": null, "reply_icmp_code": null, "reply_icmp_id": null,
        "gateway": "gw1", "ct_id": "77", "ct_mark": 1001, "ct_zone": 7, "acl": "web-out",
        "close_reason": "finished", "parent_id": null, "phys_in": "port1", "phys_out": null,
        "policy": "0123456789ab", "auth": "password",
    });
    assert_eq!(json!(lab.rows().await[0]), expected);
}

pub(crate) async fn live_rows_of_every_protocol_come_back_as_they_were(lab: Lab) {
    let ports = |src, dst| Ports { src, dst };
    let p = ports(1, 65535);
    let transports = [
        (Transport::Tcp(p), Transport::Tcp(ports(65535, 9))),
        (Transport::Udp(p), Transport::Udp(ports(65535, 9))),
        (Transport::UdpLite(p), Transport::UdpLite(ports(65535, 9))),
        (Transport::Sctp(p), Transport::Sctp(ports(65535, 9))),
        (Transport::Dccp(p), Transport::Dccp(ports(65535, 9))),
        (Transport::Icmp(icmp(8, 0, 65535)), Transport::Icmp(icmp(0, 0, 9))),
        (
            Transport::Icmpv6(icmp(128, 0, 7)),
            Transport::Icmpv6(icmp(129, 0, 8)),
        ),
        (Transport::Gre(ports(0, 9)), Transport::Gre(ports(9, 0))),
        (Transport::Other(50), Transport::Other(50)),
    ];
    let mut store = lab.store().await;
    let mut expected = Vec::new();
    let mut changes = Vec::new();
    for (n, (there, back)) in (0..).zip(transports) {
        let v6 = matches!(there, Transport::Icmpv6(_)) || n % 2 == 0 && !matches!(there, Transport::Icmp(_));
        let [src, dst, shown, nat] = if v6 {
            ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"]
        } else {
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
        };
        for bound in [false, true] {
            let row = OpenRow {
                original: tuple(src, dst, there),
                shown: tuple(src, shown, there),
                user: None,
                ..open_row(2 * n + 1 + u64::from(bound))
            };
            let binding = Binding {
                ct_id: u32::MAX,
                ct_mark: Mark(u32::MAX),
                original: row.original,
                reply: tuple(shown, nat, back),
            };
            expected.push(ActiveRow {
                id: row.id,
                gateway: Arc::clone(&row.gateway),
                state: if bound { State::Established } else { State::Open },
                received: row.received,
                zone: row.zone,
                original: row.original,
                translated: if bound {
                    Translated::Bound(binding)
                } else {
                    Translated::Shown(row.shown)
                },
                mark: row.mark,
                user_id: None,
                username: None,
                client_os: row.client_os.clone(),
                client_app: row.client_app.clone(),
                in_dev: Arc::clone(&row.in_dev),
                out_dev: Arc::clone(&row.out_dev),
                phys_in: Arc::clone(&row.phys_in),
                phys_out: Arc::clone(&row.phys_out),
                auth: row.auth.clone(),
            });
            if bound {
                changes.push(Change::Established(Box::new(Established {
                    id: row.id,
                    at: None,
                    binding: Some(binding),
                })));
            }
            changes.insert(0, Change::Open(Box::new(row)));
        }
    }
    store.apply(&changes).await.unwrap();
    store
        .apply(&[open(100), close(100), drop_row(101)])
        .await
        .unwrap();
    assert_eq!(store.active_rows().await.unwrap(), expected);
    store.close().await.unwrap();
    let mut store = lab.store().await;
    assert_eq!(store.active_rows().await.unwrap(), expected);
}

pub(crate) async fn a_connection_that_another_brought_names_it(lab: Lab) {
    let mut store = lab.store().await;
    let data = OpenRow {
        parent: Some(id(1)),
        ..open_row(2)
    };
    store
        .apply(&[open(1), Change::Open(Box::new(data))])
        .await
        .unwrap();
    let parents: Vec<_> = lab
        .rows()
        .await
        .iter()
        .map(|row| row["parent_id"].clone())
        .collect();
    assert_eq!(parents, [Value::Null, Value::from(id(1).to_string())]);
    let live = store.active_rows().await.unwrap();
    assert_eq!(live[0].username.as_deref(), Some("alice"));
    assert_eq!(live[0].client_app.as_deref(), Some("/usr/bin/firefox"));
}

pub(crate) async fn only_tcp_and_udp_use_their_columns_and_the_view_has_ports_for_all(lab: Lab) {
    let ports = Ports { src: 5, dst: 6 };
    let mut store = lab.store().await;
    let transports = [
        Transport::Tcp(ports),
        Transport::Udp(ports),
        Transport::UdpLite(ports),
        Transport::Sctp(ports),
    ];
    for (n, transport) in (1..).zip(transports) {
        let tuple = tuple("10.0.0.1", "10.0.0.2", transport);
        let row = OpenRow {
            original: tuple,
            shown: tuple,
            ..open_row(n)
        };
        store.apply(&[Change::Open(Box::new(row))]).await.unwrap();
    }
    let found: Vec<_> = lab
        .rows()
        .await
        .iter()
        .map(|row| {
            (
                row["tcp_dport"].as_u64(),
                row["udp_dport"].as_u64(),
                row["sport"].as_u64(),
                row["dport"].as_u64(),
            )
        })
        .collect();
    let view = (Some(5), Some(6));
    assert_eq!(
        found,
        [
            (Some(6), None, view.0, view.1),
            (None, Some(6), view.0, view.1),
            (None, Some(6), view.0, view.1),
            (None, None, view.0, view.1)
        ]
    );
}

pub(crate) async fn a_late_established_never_reopens_a_closed_row_but_fills_what_is_unknown(lab: Lab) {
    let mut store = lab.store().await;
    let inferred = close_with(1, |close| {
        close.at = None;
        close.counters = None;
        close.binding = None;
        close.reason = CloseReason::Resync;
    });
    store.apply(&[open(1), inferred]).await.unwrap();
    store.apply(&[established(1)]).await.unwrap();
    let row = &lab.rows().await[0];
    assert_eq!(
        (&row["state"], &row["close_reason"], &row["ct_id"]),
        (&json!(3), &json!("resync"), &json!("77"))
    );
    assert_eq!(row["end_timestamp"], json!(null));

    // A late DESTROY fills end and counters, and says how it ended.
    store.apply(&[close(1)]).await.unwrap();
    let row = &lab.rows().await[0];
    assert_eq!(
        (&row["close_reason"], &row["bytes_out"]),
        (&json!("finished"), &json!(400))
    );
    assert_eq!(row["end_timestamp"], "2027-01-15T08:00:03.500000Z");
    assert!(store.active_rows().await.unwrap().is_empty());
}

pub(crate) async fn an_inferred_end_gives_way_to_the_kernels_word_and_never_the_reverse(lab: Lab) {
    let mut store = lab.store().await;
    let inferred = |row, reason| {
        close_with(row, |close| {
            close.at = Some(at(9_000_000));
            close.counters = None;
            close.reason = reason;
        })
    };
    let changes = [
        open(1),
        open(2),
        open(3),
        inferred(1, CloseReason::Resync),
        inferred(2, CloseReason::Replaced),
        close(3),
    ];
    store.apply(&changes).await.unwrap();
    let ends = || async {
        let rows = lab.rows().await;
        let end = |row: &Map<String, Value>| (row["close_reason"].clone(), row["end_timestamp"].clone());
        rows.iter().map(end).collect::<Vec<_>>()
    };
    let bound = "2027-01-15T08:00:09.000000Z";
    let seen = (json!("finished"), json!("2027-01-15T08:00:03.500000Z"));
    assert_eq!(
        ends().await,
        [
            (json!("resync"), json!(bound)),
            (json!("replaced"), json!(bound)),
            seen.clone()
        ]
    );
    // Twice, and then the bounds once more, as a replay would.
    for _ in 0..2 {
        store.apply(&[close(1), close(2)]).await.unwrap();
        let again = [
            inferred(1, CloseReason::Resync),
            inferred(2, CloseReason::Resync),
            inferred(3, CloseReason::Resync),
        ];
        store.apply(&again).await.unwrap();
        assert_eq!(ends().await, [seen.clone(), seen.clone(), seen.clone()]);
    }
}

pub(crate) async fn interim_counters_fill_live_rows_and_never_go_back(lab: Lab) {
    let mut store = lab.store().await;
    let counted = |row, packets: u64| Change::Counted {
        id: id(row),
        counters: Counters {
            original: Count {
                packets,
                bytes: packets * 100,
            },
            reply: Count {
                packets: 2 * packets,
                bytes: packets * 1000,
            },
        },
    };
    let found = |row: usize| {
        let lab = &lab;
        async move {
            let rows = lab.rows().await;
            let row = &rows[row];
            ["state", "packets_in", "packets_out", "bytes_in", "bytes_out"].map(|column| row[column].as_u64())
        }
    };
    // In the transaction of the OPEN, before and after ESTABLISHED, and of a row that is not there.
    store
        .apply(&[
            open(1),
            counted(1, 1),
            open(2),
            established(2),
            counted(2, 5),
            counted(9, 1),
        ])
        .await
        .unwrap();
    assert_eq!(found(0).await, [1, 1, 2, 100, 1000].map(Some));
    assert_eq!(found(1).await, [2, 5, 10, 500, 5000].map(Some));
    store
        .apply(&[counted(1, 3), counted(2, 4), counted(1, 2)])
        .await
        .unwrap();
    assert_eq!(found(0).await, [1, 3, 6, 300, 3000].map(Some));
    assert_eq!(found(1).await, [2, 5, 10, 500, 5000].map(Some));
    // An end that was not seen leaves what was last counted; one that was seen counts itself.
    let unseen = close_with(1, |close| {
        close.counters = None;
        close.reason = CloseReason::Resync;
    });
    let seen = close_with(2, |close| {
        close.counters = Some(Counters {
            original: Count {
                packets: 6,
                bytes: 600,
            },
            reply: Count {
                packets: 12,
                bytes: 6000,
            },
        });
    });
    store.apply(&[unseen, seen]).await.unwrap();
    store.apply(&[counted(1, 1), counted(2, 1)]).await.unwrap();
    assert_eq!(found(0).await, [3, 3, 6, 300, 3000].map(Some));
    assert_eq!(found(1).await, [3, 6, 12, 600, 6000].map(Some));
    // Many at once, of rows that are and rows that are not.
    let opens: Vec<_> = (10..400).map(open).collect();
    store.apply(&opens).await.unwrap();
    let many: Vec<_> = (10..500).map(|row| counted(row, row)).collect();
    store.apply(&many).await.unwrap();
    let rows = lab.rows().await;
    let wrong = rows
        .iter()
        .skip(2)
        .zip(10_u64..)
        .find(|(row, packets)| row["packets_in"].as_u64() != Some(*packets));
    assert!(wrong.is_none(), "{wrong:?}");
}

pub(crate) async fn what_is_set_is_not_overwritten(lab: Lab) {
    let mut store = lab.store().await;
    store.apply(&[open(1), established(1), close(1)]).await.unwrap();
    let before = lab.rows().await;
    let other = Binding {
        ct_id: 78,
        original: tcp("10.9.9.9", 1, "10.9.9.8", 2),
        ..binding()
    };
    let later = Established {
        id: id(1),
        at: Some(at(9)),
        binding: Some(other),
    };
    let again = close_with(1, |close| {
        close.at = Some(at(9));
        close.reason = CloseReason::Reset;
        close.counters = None;
        close.binding = Some(other);
    });
    store
        .apply(&[Change::Established(Box::new(later)), again])
        .await
        .unwrap();
    assert_eq!(lab.rows().await, before);
}

pub(crate) async fn a_drop_row_is_never_touched(lab: Lab) {
    let mut store = lab.store().await;
    store.apply(&[drop_row(1)]).await.unwrap();
    let before = lab.rows().await;
    assert_eq!(before[0]["state"], 0);
    let applied = store.apply(&[established(1), close(1)]).await.unwrap();
    assert_eq!(applied.missing, 2);
    assert_eq!(lab.rows().await, before);
}

pub(crate) async fn the_same_row_twice_is_one_row_even_when_it_has_moved_on(lab: Lab) {
    let mut store = lab.store().await;
    for changes in [
        vec![open(1)],
        vec![open(1), established(1)],
        vec![open(1)],
        vec![open(1), open(1), close(1)],
    ] {
        store.apply(&changes).await.unwrap();
    }
    let rows = lab.rows().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["state"], 3);
}

pub(crate) async fn an_id_with_other_content_is_a_conflict_and_nothing_of_the_transaction_happens(lab: Lab) {
    let mut store = lab.store().await;
    store.apply(&[open(1)]).await.unwrap();
    let other = |change: fn(&mut OpenRow)| {
        let mut row = open_row(1);
        change(&mut row);
        Change::Open(Box::new(row))
    };
    let others = [
        ("oob_time", other(|row| row.received = at(6))),
        ("gateway", other(|row| row.gateway = Arc::from("gw2"))),
        ("user_id", other(|row| row.user = None)),
        (
            "destination port",
            other(|row| row.original = tcp("10.0.0.7", 40312, "10.1.1.1", 80)),
        ),
        ("state", drop_row(1)),
    ];
    for (column, change) in others {
        match store.apply(&[open(2), change]).await {
            Err(StoreError::Conflict { id: found, what }) => assert_eq!((found, what), (id(1), column)),
            other => panic!("{column}: {other:?}"),
        }
    }
    assert_eq!(lab.rows().await.len(), 1);
    // The store goes on.
    store.apply(&[open(2)]).await.unwrap();
    assert_eq!(lab.rows().await.len(), 2);
}

pub(crate) async fn a_user_id_beyond_63_bits_is_refused_by_row_and_an_absurd_counter_is_unknown(lab: Lab) {
    let mut store = lab.store().await;
    let mut row = open_row(1);
    row.user.as_mut().unwrap().id = u64::MAX;
    let error = store
        .apply(&[open(2), Change::Open(Box::new(row))])
        .await
        .unwrap_err();
    assert_eq!(error.spoiled_row(), Some(id(1)));
    assert!(lab.rows().await.is_empty());
    let absurd = close_with(2, |close| {
        close.counters.as_mut().unwrap().original.bytes = u64::MAX;
    });
    store.apply(&[open(2), absurd]).await.unwrap();
    let row = &lab.rows().await[0];
    assert_eq!((&row["bytes_in"], &row["bytes_out"]), (&json!(null), &json!(400)));
}

pub(crate) async fn groups_of_every_size_are_applied_wholly(lab: Lab) {
    let mut store = lab.store().await;
    let mut first = 1;
    for count in [1, 2, 4, 5, 64, 65, 256, 257, 700] {
        let ids = first..first + count;
        let mut changes = Vec::new();
        for n in ids.clone() {
            // Interleaved, as they come from many connections.
            changes.push(open(n));
            changes.push(established(n));
            changes.push(close(n));
        }
        assert_eq!(store.apply(&changes).await.unwrap().missing, 0);
        first += count;
    }
    let closed = RowFilter {
        state: Some(State::Close),
        ..RowFilter::default()
    };
    let rows = lab.rows_where(&closed).await;
    assert_eq!(rows.len() as u64, first - 1);
    assert!(
        rows.iter()
            .all(|row| row["duration"] == 2.5 && row["bytes_out"] == 400)
    );
}

pub(crate) async fn updates_of_unknown_rows_are_counted_and_archived_rows_are_filled(lab: Lab) {
    let mut store = lab.store().await;
    let unfinished = close_with(1, |close| close.counters = None);
    store.apply(&[open(1), unfinished]).await.unwrap();
    lab.archive().await;
    let applied = store.apply(&[close(1), close(2), established(3)]).await.unwrap();
    assert_eq!(applied.missing, 2);
    let rows = lab.rows().await;
    assert_eq!(rows.len(), 1, "the view shows the archive too");
    assert_eq!(rows[0]["bytes_in"], 5_000_000_000_u64);
}

pub(crate) async fn rows_are_filtered_by_user_source_state_and_id(lab: Lab) {
    let mut store = lab.store().await;
    let mut bob = open_row(3);
    bob.user = Some(nulog::User {
        id: 1002,
        name: Arc::from("bob"),
    });
    let six = tcp("2001:db8::7", 1, "2001:db8::8", 2);
    bob.original = six;
    bob.shown = six;
    store
        .apply(&[open(1), open(2), established(2), Change::Open(Box::new(bob))])
        .await
        .unwrap();
    let count = async |filter: RowFilter| lab.rows_where(&filter).await.len();
    let of_alice = RowFilter {
        username: Some("alice".to_owned()),
        ..RowFilter::default()
    };
    assert_eq!(count(of_alice).await, 2);
    assert_eq!(count(from("2001:db8::7")).await, 1);
    assert_eq!(count(from("10.0.0.7")).await, 2);
    let only_open = RowFilter {
        state: Some(State::Open),
        ..RowFilter::default()
    };
    assert_eq!(count(only_open).await, 2);
    assert_eq!(count(after(1)).await, 2);
    let one = RowFilter {
        limit: Some(1),
        ..RowFilter::default()
    };
    assert_eq!(count(one).await, 1);
}

pub(crate) async fn texts_of_any_kind_come_back_whole_and_one_with_a_nul_is_refused_by_row(lab: Lab) {
    let mut store = lab.store().await;
    let texts = [
        "O'Brien \"the\" \\ ; DROP TABLE users; -- %s ?1 $1 {1,NULL}".to_owned(),
        "\u{1f525}\u{fffd}\u{202e}ß\u{65}\u{301}\t\r\n\u{1}\u{7f}".to_owned(),
        "x".repeat(10_000),
        "NULL".to_owned(),
        " trailing ".to_owned(),
    ];
    for (n, text) in (1..).zip(&texts) {
        let mut row = open_row(n);
        row.user.as_mut().unwrap().name = Arc::from(text.as_str());
        row.client_app = Some(Arc::from(text.as_str()));
        row.acl = Arc::from(text.as_str());
        // Alone, and repeated in a group.
        store.apply(&[Change::Open(Box::new(row.clone()))]).await.unwrap();
        store
            .apply(&[Change::Open(Box::new(row)), open(100 + n), established(n)])
            .await
            .unwrap();
    }
    let rows = lab.rows().await;
    for (row, text) in rows.iter().zip(&texts) {
        for column in ["username", "client_app", "acl"] {
            assert_eq!(row[column], text.as_str(), "{column}");
        }
    }
    let mut row = open_row(50);
    row.client_app = Some(Arc::from("a\0b"));
    let error = store
        .apply(&[open(51), Change::Open(Box::new(row))])
        .await
        .unwrap_err();
    assert_eq!(error.spoiled_row(), Some(id(50)), "{error}");
    store.apply(&[open(51)]).await.unwrap();
}

pub(crate) async fn times_are_kept_to_the_microsecond_however_far_away(lab: Lab) {
    let mut store = lab.store().await;
    for (n, micros) in (1..).zip([1, 4_102_444_800_999_999, 253_402_300_799_999_999]) {
        let time = nufw_proto::Timestamp::from_micros(micros);
        let row = OpenRow {
            received: time,
            ..open_row(n)
        };
        let closed = close_with(n, |close| close.at = Some(time));
        store.apply(&[Change::Open(Box::new(row)), closed]).await.unwrap();
    }
    let expected = [
        "1970-01-01T00:00:00.000001Z",
        "2100-01-01T00:00:00.999999Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    for (row, expected) in lab.rows().await.iter().zip(expected) {
        assert_eq!(
            (&row["oob_time"], &row["end_timestamp"]),
            (&json!(expected), &json!(expected))
        );
    }
}
