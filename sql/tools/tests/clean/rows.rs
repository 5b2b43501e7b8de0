//! Rows of any age.

use nufw_common::clock;
use nufw_proto::{Addr, ConnId, Count, Counters, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Change, Close, CloseReason, Established, OpenRow, User};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn id(sequence: u64) -> ConnId {
    ConnId::try_from((1 << 49) + sequence).unwrap()
}

pub(crate) fn ago(time: Duration) -> Timestamp {
    Timestamp::from_micros(clock::wall().micros() - i64::try_from(time.as_micros()).unwrap())
}

fn tuple(sequence: u64) -> Tuple {
    let addr = |text: &str| text.parse::<Addr>().unwrap();
    let ports = Ports {
        src: u16::try_from(1024 + sequence % 60_000).unwrap(),
        dst: 443,
    };
    Tuple::new(addr("10.0.0.7"), addr("192.0.2.80"), Transport::Tcp(ports)).unwrap()
}

pub(crate) fn row(sequence: u64, received: Timestamp) -> Box<OpenRow> {
    Box::new(OpenRow {
        id: id(sequence),
        gateway: Arc::from("gw1"),
        received,
        prefix: Arc::from("web"),
        mark: Mark(1001),
        in_dev: Arc::from("eth0"),
        out_dev: Arc::from("eth1"),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        zone: 0,
        original: tuple(sequence),
        shown: tuple(sequence),
        user: Some(User {
            id: 1001,
            name: Arc::from("alice \"O'Neil\""),
        }),
        client_os: Some(Arc::from("Linux")),
        client_app: Some(Arc::from("/usr/bin/firefox")),
        acl: Arc::from("web-out"),
        parent: None,
        policy: Arc::from(""),
        auth: None,
    })
}

pub(crate) fn open(sequence: u64, received: Timestamp) -> Change {
    Change::Open(row(sequence, received))
}

pub(crate) fn open_of(gateway: &str, sequence: u64, received: Timestamp) -> Change {
    let mut row = row(sequence, received);
    row.gateway = Arc::from(gateway);
    Change::Open(row)
}

pub(crate) fn dropped(sequence: u64, received: Timestamp) -> Change {
    let mut row = row(sequence, received);
    row.mark = Mark(0);
    Change::Drop(row)
}

pub(crate) fn established(sequence: u64, at: Timestamp) -> Change {
    let original = tuple(sequence);
    Change::Established(Box::new(Established {
        id: id(sequence),
        at: Some(at),
        binding: Some(Binding {
            ct_id: 77,
            ct_mark: Mark(1001),
            original,
            reply: original,
        }),
    }))
}

/// With counters, or without anything that is known.
pub(crate) fn close(sequence: u64, at: Option<Timestamp>) -> Change {
    Change::Close(Box::new(Close {
        id: id(sequence),
        at,
        reason: match at {
            Some(_) => CloseReason::Finished,
            None => CloseReason::Resync,
        },
        counters: at.map(|_| Counters {
            original: Count {
                packets: sequence + 1,
                bytes: 5_000_000_000,
            },
            reply: Count {
                packets: 4,
                bytes: 400,
            },
        }),
        binding: None,
    }))
}

pub(crate) fn heartbeat(gateway: &str, at: Timestamp) -> Change {
    Change::Heartbeat {
        gateway: Arc::from(gateway),
        at,
    }
}
