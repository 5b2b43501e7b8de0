//! Makes rows and stores for the tests.

use nufw_proto::{Addr, ConnId, Count, Counters, IcmpKey, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{
    Binding, Change, Close, CloseReason, Established, Location, OpenRow, Reader, RowFilter, Store, User,
};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// 2027-01-15T08:00:00Z.
pub(crate) const EPOCH: i64 = 1_800_000_000_000_000;

pub(crate) fn id(sequence: u64) -> ConnId {
    ConnId::try_from((1 << 49) + sequence).unwrap()
}

pub(crate) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(EPOCH + micros)
}

pub(crate) fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

pub(crate) fn tuple(src: &str, dst: &str, transport: Transport) -> Tuple {
    Tuple::new(addr(src), addr(dst), transport).unwrap()
}

pub(crate) fn tcp(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    tuple(
        src,
        dst,
        Transport::Tcp(Ports {
            src: sport,
            dst: dport,
        }),
    )
}

pub(crate) fn icmp(kind: u8, code: u8, id: u16) -> IcmpKey {
    IcmpKey { kind, code, id }
}

/// A connection through DNAT: the client's socket has 10.1.1.1:443, the packet shows 192.168.0.9:8443.
pub(crate) fn open_row(sequence: u64) -> OpenRow {
    OpenRow {
        id: id(sequence),
        gateway: Arc::from("gw1"),
        received: at(5),
        prefix: Arc::from("web"),
        mark: Mark(1001),
        in_dev: Arc::from("eth0"),
        out_dev: Arc::from(""),
        phys_in: Arc::from("port1"),
        phys_out: Arc::from(""),
        zone: 7,
        original: tcp("10.0.0.7", 40312, "10.1.1.1", 443),
        shown: tcp("10.0.0.7", 40312, "192.168.0.9", 8443),
        user: Some(User {
            id: 1001,
            name: Arc::from("alice"),
        }),
        client_os: Some(Arc::from("Linux")),
        client_app: Some(Arc::from("/usr/bin/firefox")),
        acl: Arc::from("web-out"),
        parent: None,
        policy: Arc::from("0123456789ab"),
        auth: Some(Arc::from("password")),
    }
}

/// What the kernel says of it: also masqueraded, to 203.0.113.5:61000.
pub(crate) fn binding() -> Binding {
    Binding {
        ct_id: 77,
        ct_mark: Mark(1001),
        original: tcp("10.0.0.7", 40312, "10.1.1.2", 444),
        reply: tcp("192.168.0.9", 8443, "203.0.113.5", 61000),
    }
}

pub(crate) fn counters() -> Counters {
    Counters {
        original: Count {
            packets: 3,
            bytes: 5_000_000_000,
        },
        reply: Count {
            packets: 4,
            bytes: 400,
        },
    }
}

pub(crate) fn open(sequence: u64) -> Change {
    Change::Open(Box::new(open_row(sequence)))
}

pub(crate) fn drop_row(sequence: u64) -> Change {
    Change::Drop(Box::new(OpenRow {
        mark: Mark(0),
        ..open_row(sequence)
    }))
}

pub(crate) fn established(sequence: u64) -> Change {
    Change::Established(Box::new(Established {
        id: id(sequence),
        at: Some(at(1_000_000)),
        binding: Some(binding()),
    }))
}

pub(crate) fn close_with(sequence: u64, close: impl FnOnce(&mut Close)) -> Change {
    let mut full = Close {
        id: id(sequence),
        at: Some(at(3_500_000)),
        reason: CloseReason::Finished,
        counters: Some(counters()),
        binding: Some(binding()),
    };
    close(&mut full);
    Change::Close(Box::new(full))
}

pub(crate) fn close(sequence: u64) -> Change {
    close_with(sequence, |_| ())
}

pub(crate) fn location(directory: &Path) -> Location {
    Location::parse(&format!("sqlite:{}/nulog.db", directory.display())).unwrap()
}

pub(crate) async fn store(directory: &Path) -> Store {
    Store::open(&location(directory), 1).await.unwrap()
}

/// All rows as JSON, read beside the open store.
pub(crate) async fn rows(directory: &Path) -> Vec<Map<String, Value>> {
    rows_where(directory, &RowFilter::default()).await
}

pub(crate) async fn rows_where(directory: &Path, filter: &RowFilter) -> Vec<Map<String, Value>> {
    let mut reader = Reader::open(&location(directory)).await.unwrap();
    let rows = reader.rows_json(filter).await.unwrap();
    reader.close().await.unwrap();
    rows
}
