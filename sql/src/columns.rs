//! How a tuple is spread over columns, and put together again.
//!
//! The column lists are the one place that fixes an order; the statements are built from them.

use crate::StoreError;
use crate::change::OpenRow;
use nufw_proto::{Addr, ConnId, Counters, IcmpKey, Ports, Timestamp, Transport, Tuple};
use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;
use std::sync::Arc;

/// Columns of the original tuple, in the order of [`Values::original`].
pub(crate) const ORIGINAL: [&str; 12] = [
    "ip_protocol",
    "ip_saddr",
    "ip_daddr",
    "tcp_sport",
    "tcp_dport",
    "udp_sport",
    "udp_dport",
    "sport",
    "dport",
    "icmp_type",
    "icmp_code",
    "icmp_id",
];

/// Columns of the reply tuple, in the order of [`Values::reply`].
pub(crate) const REPLY: [&str; 7] = [
    "reply_saddr",
    "reply_daddr",
    "reply_sport",
    "reply_dport",
    "reply_icmp_type",
    "reply_icmp_code",
    "reply_icmp_id",
];

/// Columns of the counters, in the order of [`counts`].
pub(crate) const COUNTERS: [&str; 4] = ["packets_in", "packets_out", "bytes_in", "bytes_out"];

/// The reasons of ends that were not seen ([`crate::CloseReason::is_inferred`]).
pub(crate) const INFERRED_REASONS: [&str; 2] = ["resync", "replaced"];

/// The same as a list of SQL.
pub(crate) const INFERRED: &str = "('resync', 'replaced')";

/// The parameters of a statement, value by value.
#[derive(Default)]
pub(crate) struct Values(SqliteArguments);

impl Values {
    pub(crate) fn with_capacity(values: usize) -> Self {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(values, 0);
        Self(arguments)
    }

    pub(crate) fn into_arguments(self) -> SqliteArguments {
        self.0
    }

    fn push<'q, T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) {
        let added = self.0.add(value);
        debug_assert!(added.is_ok(), "integers and text always encode");
    }

    pub(crate) fn int(&mut self, value: impl Into<i64>) {
        self.push(value.into());
    }

    pub(crate) fn maybe_int(&mut self, value: Option<impl Into<i64>>) {
        self.push(value.map(Into::into));
    }

    pub(crate) fn text(&mut self, value: &Arc<str>) {
        self.push(Arc::clone(value));
    }

    pub(crate) fn word(&mut self, value: &str) {
        self.push(value);
    }

    /// Text, with NULL for the empty one, which means "unknown".
    pub(crate) fn known_text(&mut self, value: &Arc<str>) {
        self.push((!value.is_empty()).then(|| Arc::clone(value)));
    }

    pub(crate) fn maybe_text(&mut self, value: Option<&Arc<str>>) {
        self.push(value.map(Arc::clone));
    }

    pub(crate) fn address(&mut self, value: Addr) {
        self.push(value.to_string());
    }

    pub(crate) fn nulls(&mut self, count: usize) {
        for _ in 0..count {
            self.push(None::<i64>);
        }
    }

    /// The columns of [`ORIGINAL`].
    pub(crate) fn original(&mut self, tuple: &Tuple) {
        self.int(tuple.protocol());
        self.address(tuple.src());
        self.address(tuple.dst());
        let ports = |values: &mut Self, Ports { src, dst }: Ports| {
            values.int(src);
            values.int(dst);
        };
        match tuple.transport() {
            Transport::Tcp(p) => {
                ports(self, p);
                self.nulls(7);
            }
            Transport::Udp(p) | Transport::UdpLite(p) => {
                self.nulls(2);
                ports(self, p);
                self.nulls(5);
            }
            Transport::Sctp(p) | Transport::Dccp(p) | Transport::Gre(p) => {
                self.nulls(4);
                ports(self, p);
                self.nulls(3);
            }
            Transport::Icmp(key) | Transport::Icmpv6(key) => {
                self.nulls(6);
                self.icmp(Some(key));
            }
            Transport::Other(_) => self.nulls(9),
        }
    }

    /// The columns of [`REPLY`].
    pub(crate) fn reply(&mut self, tuple: &Tuple) {
        self.address(tuple.src());
        self.address(tuple.dst());
        let ports = tuple.transport().ports();
        self.maybe_int(ports.map(|p| p.src));
        self.maybe_int(ports.map(|p| p.dst));
        self.icmp(tuple.transport().icmp());
    }

    fn icmp(&mut self, key: Option<IcmpKey>) {
        self.maybe_int(key.map(|k| k.kind));
        self.maybe_int(key.map(|k| k.code));
        self.maybe_int(key.map(|k| k.id));
    }
}

/// A number that is an id, if its column can hold it.
pub(crate) fn storable(value: u64, id: ConnId, what: &'static str) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Unstorable { id, what })
}

/// `NuFW`'s two columns of one time.
pub(crate) fn oob_time(at: Timestamp) -> (i64, i64) {
    (
        at.micros().div_euclid(1_000_000),
        at.micros().rem_euclid(1_000_000),
    )
}

/// Refuses a text with a NUL, which not every database can hold and no honest peer sends.
pub(crate) fn expect_text(row: &OpenRow) -> Result<(), StoreError> {
    let texts = [
        ("oob_prefix", Some(&row.prefix)),
        ("oob_in", Some(&row.in_dev)),
        ("oob_out", Some(&row.out_dev)),
        ("phys_in", Some(&row.phys_in)),
        ("phys_out", Some(&row.phys_out)),
        ("username", row.user.as_ref().map(|user| &user.name)),
        ("client_os", row.client_os.as_ref()),
        ("client_app", row.client_app.as_ref()),
        ("gateway", Some(&row.gateway)),
        ("acl", Some(&row.acl)),
        ("policy", Some(&row.policy)),
        ("auth", row.auth.as_ref()),
    ];
    for (what, text) in texts {
        if text.is_some_and(|text| text.contains('\0')) {
            return Err(StoreError::Unstorable { id: row.id, what });
        }
    }
    Ok(())
}

/// A number that is known to be below a million.
pub(crate) fn small(value: i64) -> i32 {
    i32::try_from(value).unwrap_or_default()
}

/// `packets_in`, `packets_out`, `bytes_in`, `bytes_out`. One beyond 2^63 cannot be true, and is not known then.
pub(crate) fn counts(counters: Option<Counters>) -> [Option<i64>; 4] {
    let Some(Counters { original, reply }) = counters else {
        return [None; 4];
    };
    [original.packets, reply.packets, original.bytes, reply.bytes].map(|count| i64::try_from(count).ok())
}

/// The columns of one direction as they were read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direction<'a> {
    pub(crate) protocol: i64,
    pub(crate) src: &'a str,
    pub(crate) dst: &'a str,
    pub(crate) sport: Option<i64>,
    pub(crate) dport: Option<i64>,
    pub(crate) icmp: [Option<i64>; 3],
}

impl Direction<'_> {
    /// The tuple; an error is the name of what cannot be right.
    pub(crate) fn tuple(&self) -> Result<Tuple, &'static str> {
        fn narrow<T: TryFrom<i64>>(
            value: Option<i64>,
            what: &'static str,
        ) -> Result<Option<T>, &'static str> {
            value.map(|v| T::try_from(v).map_err(|_| what)).transpose()
        }
        let protocol = u8::try_from(self.protocol).map_err(|_| "ip_protocol")?;
        let src: Addr = self.src.parse().map_err(|_| "source address")?;
        let dst: Addr = self.dst.parse().map_err(|_| "destination address")?;
        let ports = match (
            narrow(self.sport, "source port")?,
            narrow(self.dport, "destination port")?,
        ) {
            (Some(src), Some(dst)) => Some(Ports { src, dst }),
            _ => None,
        };
        let [kind, code, id] = self.icmp;
        let icmp = match (
            narrow(kind, "icmp_type")?,
            narrow(code, "icmp_code")?,
            narrow(id, "icmp_id")?,
        ) {
            (Some(kind), Some(code), Some(id)) => Some(IcmpKey { kind, code, id }),
            _ => None,
        };
        let transport = Transport::from_parts(protocol, ports, icmp).ok_or("ports or ICMP type (missing)")?;
        Tuple::new(src, dst, transport).map_err(|_| "address family")
    }
}
