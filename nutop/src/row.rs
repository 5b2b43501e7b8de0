//! One connection as it is looked at: the row of the log and what follows from it.
//!
//! Texts are as the log has them; whoever shows them escapes them.

use crate::text::UNKNOWN;
use nufw_proto::protocol;
use nulog::LiveConnection;
use std::net::IpAddr;
use std::time::Duration;

/// Bytes a second between two reads, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Rate {
    /// From the counters of two reads; not known if either of them has none, or if a counter went back.
    pub(crate) fn between(before: &LiveConnection, after: &LiveConnection, time: Duration) -> Option<Self> {
        let per_second = |before: Option<u64>, after: Option<u64>| {
            let grown = u128::from(after?.checked_sub(before?)?);
            let rate = (grown * 1000).checked_div(time.as_millis())?;
            u64::try_from(rate).ok()
        };
        Some(Self {
            input: per_second(before.bytes_in, after.bytes_in)?,
            output: per_second(before.bytes_out, after.bytes_out)?,
        })
    }

    pub(crate) fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// A connection in the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) log: LiveConnection,
    pub(crate) rate: Option<Rate>,
}

impl Row {
    /// Nobody's is what passed unasked.
    pub(crate) fn user(&self) -> &str {
        self.log.username.as_deref().unwrap_or(UNKNOWN)
    }

    pub(crate) fn program(&self) -> &str {
        self.log.client_app.as_deref().unwrap_or(UNKNOWN)
    }

    /// How long ago the gateway received the first packet. Its clock may be ahead of ours.
    pub(crate) fn age(&self, now: nufw_proto::Timestamp) -> Duration {
        let micros = now.micros().saturating_sub(self.log.received.micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    pub(crate) fn source(&self) -> String {
        endpoint(&self.log.ip_saddr, self.log.sport)
    }

    pub(crate) fn destination(&self) -> String {
        endpoint(&self.log.ip_daddr, self.log.dport)
    }

    pub(crate) fn protocol(&self) -> String {
        protocol::show(self.log.ip_protocol)
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.log.state {
            1 => "OPEN",
            2 => "ESTABLISHED",
            _ => UNKNOWN,
        }
    }

    /// The reply direction's source: what the connection reaches after DNAT.
    pub(crate) fn reply_source(&self) -> Option<String> {
        let address = self.log.reply_saddr.as_deref()?;
        Some(endpoint(address, self.log.reply_sport))
    }

    /// The reply direction's destination: what the connection looks like after source NAT.
    pub(crate) fn reply_destination(&self) -> Option<String> {
        let address = self.log.reply_daddr.as_deref()?;
        Some(endpoint(address, self.log.reply_dport))
    }
}

/// Address and port as one text.
fn endpoint(address: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

/// Addresses in their own order, which is not that of their text; anything else after them.
pub(crate) fn address_order(text: &str) -> (bool, Option<IpAddr>, &str) {
    let address = text.parse().ok();
    (address.is_none(), address, text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nufw_proto::Timestamp;

    /// 2027-01-15T08:00:00Z.
    pub(crate) const EPOCH: i64 = 1_800_000_000_000_000;

    pub(crate) fn connection(id: i64, user: &str, source: &str, program: &str) -> LiveConnection {
        LiveConnection {
            id,
            state: 2,
            received: Timestamp::from_micros(EPOCH - id * 1_000_000),
            oob_prefix: Some("web".to_owned()),
            oob_mark: Some(1001),
            oob_in: Some("eth0".to_owned()),
            oob_out: None,
            ip_protocol: 6,
            ip_saddr: source.to_owned(),
            ip_daddr: "10.1.1.1".to_owned(),
            sport: Some(40000),
            dport: Some(443),
            icmp_type: None,
            icmp_code: None,
            icmp_id: None,
            user_id: Some(1001),
            username: Some(user.to_owned()),
            client_os: Some("Linux".to_owned()),
            client_app: Some(program.to_owned()),
            start_timestamp: None,
            packets_in: None,
            packets_out: None,
            bytes_in: None,
            bytes_out: None,
            reply_saddr: Some("192.168.0.9".to_owned()),
            reply_daddr: Some("203.0.113.5".to_owned()),
            reply_sport: Some(8443),
            reply_dport: Some(61000),
            gateway: "gw1".to_owned(),
            ct_id: Some(77),
            ct_mark: Some(1001),
            ct_zone: Some(0),
            acl: Some("web-out".to_owned()),
            phys_in: None,
            phys_out: None,
        }
    }

    #[test]
    fn endpoints_are_written_as_people_write_them() {
        assert_eq!(endpoint("10.0.0.1", Some(80)), "10.0.0.1:80");
        assert_eq!(endpoint("2001:db8::1", Some(80)), "[2001:db8::1]:80");
        assert_eq!(endpoint("2001:db8::1", None), "2001:db8::1");
    }

    #[test]
    fn a_rate_needs_two_counters_that_grow() {
        let at = |bytes_in, bytes_out| LiveConnection {
            bytes_in,
            bytes_out,
            ..connection(1, "alice", "10.0.0.1", "x")
        };
        let rate = |before, after, millis| Rate::between(&before, &after, Duration::from_millis(millis));
        assert_eq!(
            rate(at(Some(0), Some(10)), at(Some(3000), Some(10)), 2000),
            Some(Rate {
                input: 1500,
                output: 0
            })
        );
        assert_eq!(rate(at(None, None), at(Some(3000), Some(10)), 2000), None);
        assert_eq!(rate(at(Some(5), Some(10)), at(Some(4), Some(10)), 2000), None);
        assert_eq!(rate(at(Some(5), Some(10)), at(Some(6), Some(10)), 0), None);
        assert_eq!(
            rate(at(Some(0), Some(0)), at(Some(u64::MAX), Some(0)), 1),
            None,
            "beyond any counter"
        );
    }

    #[test]
    fn an_age_is_never_negative() {
        let row = Row {
            log: connection(5, "alice", "10.0.0.1", "x"),
            rate: None,
        };
        assert_eq!(row.age(Timestamp::from_micros(EPOCH)), Duration::from_secs(5));
        assert_eq!(row.age(Timestamp::from_micros(0)), Duration::ZERO);
    }
}
