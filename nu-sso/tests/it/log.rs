//! A log with connections of every kind, written as the server writes it.

use nufw_proto::{Addr, ConnId, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Change, Close, CloseReason, Established, Location, OpenRow, Store, User};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn tcp(src: &str, dst: &str) -> Tuple {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let ports = Ports {
        src: src.port(),
        dst: dst.port(),
    };
    Tuple::new(Addr::from(src.ip()), Addr::from(dst.ip()), Transport::Tcp(ports)).unwrap()
}

fn id(sequence: u64) -> ConnId {
    ConnId::try_from((1 << 49) + sequence).unwrap()
}

/// A connection: how the client sees it, what the gateway makes of it, and who it is.
#[derive(Debug, Clone)]
pub(crate) struct Conn {
    pub(crate) number: u64,
    pub(crate) user: Option<&'static str>,
    pub(crate) original: Tuple,
    /// From the service's side: source is the service.
    pub(crate) reply: Tuple,
    pub(crate) received: Timestamp,
}

impl Conn {
    pub(crate) fn new(number: u64, user: &'static str, original: Tuple, reply: Tuple) -> Self {
        Self {
            number,
            user: Some(user),
            original,
            reply,
            received: Timestamp::from_micros(1_700_000_000_000_000),
        }
    }

    /// Without translation.
    pub(crate) fn plain(number: u64, user: &'static str, src: &str, dst: &str) -> Self {
        Self::new(number, user, tcp(src, dst), tcp(dst, src))
    }

    /// Its packet has just been received.
    pub(crate) fn just(mut self) -> Self {
        self.received = nufw_common::clock::wall();
        self
    }

    pub(crate) fn open(&self) -> Change {
        // What the packet shows in the queue: the source as it is, the destination after DNAT.
        let ports = Ports {
            src: self.original.transport().ports().unwrap().src,
            dst: self.reply.transport().ports().unwrap().src,
        };
        let shown = Tuple::new(self.original.src(), self.reply.src(), Transport::Tcp(ports)).unwrap();
        Change::Open(Box::new(OpenRow {
            id: id(self.number),
            gateway: Arc::from("gw1"),
            received: self.received,
            prefix: Arc::from("web"),
            mark: Mark(1001),
            in_dev: Arc::from("lan"),
            out_dev: Arc::from("wan"),
            phys_in: Arc::from(""),
            phys_out: Arc::from(""),
            zone: 0,
            original: self.original,
            shown,
            user: self.user.map(|name| User {
                id: 1001,
                name: Arc::from(name),
            }),
            client_os: None,
            client_app: None,
            acl: Arc::from("web"),
            parent: None,
            policy: Arc::from(""),
            auth: None,
        }))
    }

    fn binding(&self) -> Binding {
        Binding {
            ct_id: 7,
            ct_mark: Mark(1001),
            original: self.original,
            reply: self.reply,
        }
    }

    pub(crate) fn established(&self) -> Change {
        Change::Established(Box::new(Established {
            id: id(self.number),
            at: Some(self.received),
            binding: Some(self.binding()),
        }))
    }

    pub(crate) fn close(&self) -> Change {
        Change::Close(Box::new(Close {
            id: id(self.number),
            at: Some(self.received),
            reason: CloseReason::Finished,
            counters: None,
            binding: Some(self.binding()),
        }))
    }

    pub(crate) fn live(&self) -> [Change; 2] {
        [self.open(), self.established()]
    }
}

pub(crate) fn location(directory: &Path) -> Location {
    Location::parse(&format!("sqlite:{}/nulog.db", directory.display())).unwrap()
}

pub(crate) async fn store(directory: &Path) -> Store {
    Store::open(&location(directory), 1).await.unwrap()
}

/// A runtime for tests that are otherwise about processes.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}
