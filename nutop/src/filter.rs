//! Which connections to show: words and `field:value` pairs that must all fit.
//!
//! Plain substrings without regard to case; numbers and addresses are compared as what they are.

use crate::row::Row;
use std::net::IpAddr;

/// The fields that a pair can name, with what is compared; for the help and `--help`.
pub(crate) const FIELDS: [(&str, &str); 13] = [
    ("user", "part of the user's name, or the whole number"),
    ("program", "part of the program's path (also app)"),
    ("src", "source: a whole address, or part of its text"),
    ("dst", "destination, likewise"),
    ("nat", "either end of the NAT side, likewise"),
    ("host", "any of these addresses"),
    ("port", "any port, a number (sport, dport: of one side)"),
    ("proto", "tcp, udp, … or a number"),
    ("state", "open or established"),
    ("gateway", "part of the gateway's name (also gw)"),
    ("acl", "part of the rule's name"),
    ("os", "part of the client's system"),
    ("id", "the row's id"),
];

/// What was typed, ready to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: Field,
    /// In lower case.
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Any,
    User,
    Program,
    Source,
    Destination,
    Nat,
    Host,
    Port,
    SourcePort,
    DestinationPort,
    Protocol,
    State,
    Gateway,
    Acl,
    Os,
    Id,
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "user" => Self::User,
            "program" | "app" => Self::Program,
            "src" => Self::Source,
            "dst" => Self::Destination,
            "nat" => Self::Nat,
            "host" => Self::Host,
            "port" => Self::Port,
            "sport" => Self::SourcePort,
            "dport" => Self::DestinationPort,
            "proto" => Self::Protocol,
            "state" => Self::State,
            "gateway" | "gw" => Self::Gateway,
            "acl" => Self::Acl,
            "os" => Self::Os,
            "id" => Self::Id,
            _ => return None,
        })
    }
}

impl Filter {
    /// Reads what was typed; every text means something. Quotes keep spaces: `program:"my app"`. What comes before a colon
    /// and is no field's name belongs to the word, as in an address of IPv6.
    pub(crate) fn parse(text: &str) -> Self {
        let terms = words(text).into_iter().map(|word| {
            let lower = word.to_lowercase();
            let pair = lower.split_once(':');
            match pair.and_then(|(name, value)| Some((Field::named(name)?, value))) {
                Some((field, value)) => Term {
                    field,
                    value: value.to_owned(),
                },
                None => Term {
                    field: Field::Any,
                    value: lower,
                },
            }
        });
        Self {
            // A pair that is still being typed does not empty the screen.
            terms: terms.filter(|term| !term.value.is_empty()).collect(),
        }
    }

    pub(crate) fn fits(&self, row: &Row) -> bool {
        self.terms.iter().all(|term| term.fits(row))
    }
}

impl Term {
    fn fits(&self, row: &Row) -> bool {
        let log = &row.log;
        match self.field {
            Field::Any => {
                let known = [
                    &log.username,
                    &log.client_app,
                    &log.acl,
                    &log.client_os,
                    &log.oob_prefix,
                ];
                self.within(&log.gateway)
                    || known.into_iter().flatten().any(|text| self.within(text))
                    || self.within(&row.source())
                    || self.within(&row.destination())
                    || row.reply_source().is_some_and(|text| self.within(&text))
                    || row.reply_destination().is_some_and(|text| self.within(&text))
                    || self.value == row.protocol()
                    || self.within(row.state())
            }
            Field::User => self.within_known(log.username.as_deref()) || self.is(log.user_id),
            Field::Program => self.within_known(log.client_app.as_deref()),
            Field::Source => self.is_address(Some(&log.ip_saddr)),
            Field::Destination => self.is_address(Some(&log.ip_daddr)),
            Field::Nat => {
                self.is_address(log.reply_saddr.as_deref()) || self.is_address(log.reply_daddr.as_deref())
            }
            Field::Host => [
                Some(&log.ip_saddr),
                Some(&log.ip_daddr),
                log.reply_saddr.as_ref(),
                log.reply_daddr.as_ref(),
            ]
            .into_iter()
            .any(|address| self.is_address(address.map(String::as_str))),
            Field::Port => [log.sport, log.dport, log.reply_sport, log.reply_dport]
                .into_iter()
                .any(|port| self.is(port)),
            Field::SourcePort => self.is(log.sport),
            Field::DestinationPort => self.is(log.dport),
            Field::Protocol => self.value == row.protocol() || self.is(Some(log.ip_protocol)),
            Field::State => row.state().to_lowercase().starts_with(&self.value),
            Field::Gateway => self.within(&log.gateway),
            Field::Acl => self.within_known(log.acl.as_deref()),
            Field::Os => self.within_known(log.client_os.as_deref()),
            Field::Id => self.is(Some(log.id)),
        }
    }

    fn within(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.value)
    }

    fn within_known(&self, text: Option<&str>) -> bool {
        text.is_some_and(|text| self.within(text))
    }

    fn is<T: std::str::FromStr + PartialEq + Copy>(&self, number: Option<T>) -> bool {
        number.is_some() && number == self.value.parse().ok()
    }

    /// A whole address is that address alone: 10.0.0.1 is not 10.0.0.10.
    fn is_address(&self, text: Option<&str>) -> bool {
        let Some(text) = text else {
            return false;
        };
        match (self.value.parse::<IpAddr>(), text.parse::<IpAddr>()) {
            (Ok(asked), Ok(found)) => asked == found,
            _ => self.within(text),
        }
    }
}

/// Words between spaces; quotes keep spaces, wherever in a word they begin.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::connection;

    fn fits(filter: &str) -> bool {
        let mut log = connection(42, "Zoë", "10.0.0.1", "/opt/My App/Chrome");
        log.ip_daddr = "2001:db8::80".to_owned();
        Filter::parse(filter).fits(&Row { log, rate: None })
    }

    #[test]
    fn words_and_pairs_must_all_fit() {
        for filter in [
            "",
            "   ",
            "zoË",
            "chrome",
            "user:zoë program:chrome",
            "user:1001",
            "app:\"my app\"",
            "\"my app\" gw1",
            "src:10.0.0.1",
            "src:10.0.",
            "dst:2001:DB8:0::80",
            "2001:db8::8",
            "nat:203.0.113.5",
            "host:192.168.0.9",
            "port:443",
            "port:61000",
            "dport:443",
            "proto:TCP",
            "proto:6",
            "tcp",
            "state:est",
            "gateway:gw",
            "gw:gw1 acl:web os:linux id:42",
            "user:",
            "program:\"my",
        ] {
            assert!(fits(filter), "{filter}");
        }
        for filter in [
            "alice",
            "user:zoë program:firefox",
            "user:100",
            "src:10.0.0.10",
            "host:10.9",
            "port:44",
            "sport:443",
            "port:x",
            "proto:udp",
            "state:open",
            "id:4",
            "zoë:1",
        ] {
            assert!(!fits(filter), "{filter}");
        }
    }

    #[test]
    fn what_is_not_known_fits_no_field() {
        let mut log = connection(1, "alice", "10.0.0.1", "x");
        (log.client_app, log.reply_saddr, log.reply_daddr, log.sport) = (None, None, None, None);
        let row = Row { log, rate: None };
        for filter in ["program:x", "nat:203.0.113.5", "sport:0", "program:–"] {
            assert!(!Filter::parse(filter).fits(&row), "{filter}");
        }
    }
}
