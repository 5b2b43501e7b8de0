//! `[server]`: the authentication servers, the best first, and what each must prove.
//!
//! Reads and checks only; nothing is resolved here.

use super::DEFAULT_FILE;
use crate::link::Target;
use nufw_common::config::{ConfigError, HumanDuration, Loaded, Problems};
use nufw_common::tls;
use nufw_proto::GATEWAY_PORT;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

/// Least and most time that a better server must have been healthy before the agent returns to it.
const RETURN_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));
/// Most servers in the list: each failed round tries all of them.
const MAX_SERVERS: usize = 16;

/// `[server]`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Server {
    /// Host and, if not 4128, port; one or several, the best first. Needed to run, not to check the host or to print
    /// rules.
    #[serde(default)]
    pub address: Names,
    /// The name that the certificates must carry: one for all, or one for each address; the hosts by default.
    #[serde(default)]
    pub name: Names,
    /// How long a better server must have been healthy before the agent returns to it.
    pub return_after: HumanDuration,
}

/// One name or several: a text, in which commas may part them, or a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names(
                    text.split(',').map(|name| name.trim().to_owned()).collect(),
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

impl Server {
    /// Host and port of each server.
    pub fn addresses(&self) -> impl Iterator<Item = (String, u16)> {
        self.address.0.iter().filter_map(|address| split_address(address))
    }

    fn name_of<'a>(&'a self, at: usize, host: &'a str) -> &'a str {
        match self.name.0.as_slice() {
            [] => host,
            [one] => one,
            several => several.get(at).map_or(host, String::as_str),
        }
    }

    /// Where links go, the best server first.
    pub fn targets(&self) -> Result<Vec<Target>, ConfigError> {
        let mut targets = Vec::new();
        for (at, (host, port)) in self.addresses().enumerate() {
            let name = tls::server_name(self.name_of(at, &host))
                .map_err(|error| ConfigError::new(error.to_string()))?;
            let address = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            };
            targets.push(Target { address, name });
        }
        if targets.is_empty() {
            return Err(ConfigError::new(format!(
                "key server.address is missing: name the authentication server in {DEFAULT_FILE}, in the file given with -f, or with -d"
            )));
        }
        Ok(targets)
    }

    /// The servers as people are told of them.
    pub fn shown(&self) -> String {
        let places = self.targets().unwrap_or_default();
        let places: Vec<String> = places.into_iter().map(|target| target.address).collect();
        places.join(",")
    }

    pub(super) fn check<T>(&self, loaded: &Loaded<T>, problems: &mut Problems) {
        let (addresses, names) = (&self.address.0, &self.name.0);
        let wrong = addresses.iter().find(|address| split_address(address).is_none());
        if let Some(address) = wrong {
            problems.push(loaded.reject(
                "server.address",
                format_args!("{address:?}"),
                "a host name or address, and a port if it is not 4128: \"nuauth.example:4128\", \"[2001:db8::1]:4128\"",
            ));
        } else if addresses.len() > MAX_SERVERS {
            problems.push(loaded.reject(
                "server.address",
                format_args!("{} servers", addresses.len()),
                format_args!("at most {MAX_SERVERS}"),
            ));
        } else if names.len() > 1 && names.len() != addresses.len() {
            problems.push(loaded.reject(
                "server.name",
                format_args!("{} names for {} servers", names.len(), addresses.len()),
                "one name for all servers, or one for each in their order",
            ));
        } else if let Some(wrong) = (!addresses.is_empty()).then(|| self.wrong_name()).flatten() {
            let key = if names.is_empty() {
                "server.address"
            } else {
                "server.name"
            };
            problems.push(loaded.reject(
                key,
                format_args!("{wrong:?}"),
                "a name that a certificate can carry",
            ));
        }
        let (least, most) = RETURN_AFTER;
        if self.return_after.0 < least || self.return_after.0 > most {
            problems.push(loaded.reject(
                "server.return-after",
                self.return_after,
                format_args!("a time from {} to {}", HumanDuration(least), HumanDuration(most)),
            ));
        }
    }

    fn wrong_name(&self) -> Option<String> {
        self.addresses().enumerate().find_map(|(at, (host, _))| {
            let name = self.name_of(at, &host);
            let is_wrong = tls::server_name(name).is_err();
            // A host is shown as it was written.
            is_wrong.then(|| {
                if self.name.0.is_empty() {
                    self.address.0.get(at).cloned().unwrap_or_default()
                } else {
                    name.to_owned()
                }
            })
        })
    }
}

/// Host and port of an address; the port of the protocol where none is said.
fn split_address(address: &str) -> Option<(String, u16)> {
    if let Ok(bare) = address.parse::<Ipv6Addr>() {
        return Some((bare.to_string(), GATEWAY_PORT));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let host = host.parse::<Ipv6Addr>().ok()?;
            (
                host.to_string(),
                port.strip_prefix(':').or(port.is_empty().then_some(""))?,
            )
        }
        None => match address.split_once(':') {
            Some((host, port)) if !port.is_empty() => (host.to_owned(), port),
            Some(_) => return None,
            None => (address.to_owned(), ""),
        },
    };
    let port = if port.is_empty() {
        GATEWAY_PORT
    } else {
        port.parse().ok().filter(|port| *port != 0)?
    };
    (!host.is_empty()).then_some((host, port))
}
