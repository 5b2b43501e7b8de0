//! What a viewer sees of the live rows.

use crate::lab::Lab;
use crate::make::*;
use nulog::{Change, Live, LiveConnection, OpenRow};

pub(crate) async fn a_viewer_sees_the_live_rows_the_newest_first(lab: Lab) {
    let mut store = lab.store().await;
    let nobodys = OpenRow {
        user: None,
        ..open_row(4)
    };
    let changes = [
        open(1),
        established(1),
        open(2),
        open(3),
        close(3),
        Change::Open(Box::new(nobodys)),
        drop_row(5),
    ];
    store.apply(&changes).await.unwrap();
    let mut live = Live::new(lab.location(), "nutop");
    let picture = live.read(10).await.unwrap();
    assert!(!picture.cut);
    let ids: Vec<i64> = picture.connections.iter().map(|row| row.id).collect();
    assert_eq!(ids, [id(4).get(), id(2).get(), id(1).get()]);
    assert_eq!(picture.connections[0].username, None, "it passed unasked");
    let text = |text: &str| Some(text.to_owned());
    let expected = LiveConnection {
        id: id(1).get(),
        state: 2,
        received: at(5),
        oob_prefix: text("web"),
        oob_mark: Some(1001),
        oob_in: text("eth0"),
        oob_out: None,
        ip_protocol: 6,
        ip_saddr: "10.0.0.7".to_owned(),
        ip_daddr: "10.1.1.2".to_owned(),
        sport: Some(40312),
        dport: Some(444),
        icmp_type: None,
        icmp_code: None,
        icmp_id: None,
        user_id: Some(1001),
        username: text("alice"),
        client_os: text("Linux"),
        client_app: text("/usr/bin/firefox"),
        start_timestamp: Some(at(1_000_000)),
        packets_in: None,
        packets_out: None,
        bytes_in: None,
        bytes_out: None,
        reply_saddr: text("192.168.0.9"),
        reply_daddr: text("203.0.113.5"),
        reply_sport: Some(8443),
        reply_dport: Some(61000),
        gateway: "gw1".to_owned(),
        ct_id: Some(77),
        ct_mark: Some(1001),
        ct_zone: Some(7),
        acl: text("web-out"),
        phys_in: text("port1"),
        phys_out: None,
    };
    assert_eq!(picture.connections[2], expected);

    // The same reader sees what has happened since.
    store.apply(&[close(2), open(6)]).await.unwrap();
    let picture = live.read(10).await.unwrap();
    let ids: Vec<i64> = picture.connections.iter().map(|row| row.id).collect();
    assert_eq!(ids, [id(6).get(), id(4).get(), id(1).get()]);
}

pub(crate) async fn a_viewer_is_told_when_there_are_more_rows_than_it_asked_for(lab: Lab) {
    let mut store = lab.store().await;
    // More than one page.
    let all = 4_100;
    for first in (1..=all).step_by(410) {
        let changes: Vec<_> = (first..first + 410).map(open).collect();
        store.apply(&changes).await.unwrap();
    }
    let mut live = Live::new(lab.location(), "nutop");
    let all = i64::try_from(all).unwrap();
    for (limit, rows, cut) in [
        (4_200, all, false),
        (4_100, all, false),
        (4_099, 4_099, true),
        (2_000, 2_000, true),
        (1, 1, true),
    ] {
        let picture = live.read(limit).await.unwrap();
        let found: Vec<i64> = picture.connections.iter().map(|row| row.id).collect();
        let newest = id(0).get() + all;
        let expected: Vec<i64> = (newest - rows + 1..=newest).rev().collect();
        assert!(
            found == expected && picture.cut == cut,
            "{limit}: {} rows",
            found.len()
        );
    }
}

pub(crate) async fn a_row_that_was_changed_by_hand_does_not_blind_the_viewer(lab: Lab) {
    let mut store = lab.store().await;
    store
        .apply(&[open(1), established(1), open(2), established(2)])
        .await
        .unwrap();
    lab.execute(&format!(
        "UPDATE conntrack_ulog SET tcp_sport = 100000, reply_sport = -1, ct_id = -5, bytes_in = -9, packets_in = 7, \
         bytes_out = 9223372036854775807, oob_time_sec = -1, user_id = NULL WHERE id = {}",
        id(1)
    ))
    .await;
    let picture = Live::new(lab.location(), "nutop").read(10).await.unwrap();
    let row = &picture.connections[1];
    assert_eq!((row.sport, row.dport, row.reply_sport), (None, Some(444), None));
    assert_eq!((row.ct_id, row.bytes_in, row.packets_in), (None, None, Some(7)));
    assert_eq!(row.bytes_out, Some(9_223_372_036_854_775_807));
    assert_eq!((row.received.micros(), row.user_id), (-999_995, None));
}
