//! Where the server listens and who may come: addresses, names of gateways, mechanisms, sockets.
//!
//! Words and their checks only; nothing is opened.

use super::super::{Clients, Control, Gateways, Mechanism};
use super::{Check, MECHANISMS, RawControl};
use nufw_common::control::DEFAULT_SOCKET;
use nufw_common::listen::Place;
use nufw_common::privileges;
use nufw_proto::Text;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

impl Check<'_> {
    /// Both families by default.
    pub(in crate::config) fn listen(
        &mut self,
        key: &str,
        raw: Option<&[String]>,
        port: u16,
    ) -> Vec<SocketAddr> {
        let Some(raw) = raw else {
            return vec![
                SocketAddr::from(([0; 4], port)),
                SocketAddr::from(([0_u16; 8], port)),
            ];
        };
        if raw.is_empty() {
            self.reject(key, "an empty list", "at least one address");
        }
        let mut addresses = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match text.parse::<SocketAddr>() {
                Ok(address) if addresses.contains(&address) => {
                    self.reject(&key, format_args!("\"{text}\" again"), "each address once");
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.reject(
                    &key,
                    format_args!("string \"{text}\""),
                    format_args!("an address with a port, such as \"0.0.0.0:{port}\" or \"[::]:{port}\""),
                ),
            }
        }
        addresses
    }

    pub(super) fn gateway_names(&mut self, raw: &[String]) -> Vec<Arc<str>> {
        let key = "gateways.names";
        if raw.is_empty() {
            self.reject(key, "an empty list", "the name of at least one gateway");
        }
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for (index, name) in raw.iter().enumerate() {
            let key = format!("{key}[{index}]");
            if name.is_empty() || !is_host_name(name) || Text::<64>::new(name.as_str()).is_err() {
                self.reject(
                    &key,
                    format_args!("string \"{name}\""),
                    "a host name of at most 64 letters, digits, dots and hyphens",
                );
            } else if seen.insert(name.to_ascii_lowercase()) {
                names.push(Arc::from(name.as_str()));
            } else {
                self.reject(&key, format_args!("\"{name}\" again"), "each name once");
            }
        }
        names
    }

    pub(super) fn mechanisms(&mut self, raw: Option<&[String]>) -> Vec<Mechanism> {
        let Some(raw) = raw else {
            return vec![Mechanism::External, Mechanism::Plain];
        };
        let key = "clients.mechanisms";
        if raw.is_empty() {
            self.reject(key, "an empty list", MECHANISMS);
        }
        let mut mechanisms = Vec::new();
        for (index, name) in raw.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match Mechanism::parse(name) {
                Some(mechanism) if mechanisms.contains(&mechanism) => {
                    self.reject(&key, format_args!("\"{name}\" again"), "each mechanism once");
                }
                Some(mechanism) => mechanisms.push(mechanism),
                None => self.reject(&key, format_args!("string \"{name}\""), MECHANISMS),
            }
        }
        mechanisms
    }

    /// Whoever says how tickets are taken wants them taken, unless he says what is offered.
    pub(super) fn offers_kerberos(
        &mut self,
        offered: &mut Vec<Mechanism>,
        is_chosen: bool,
        is_possible: bool,
    ) {
        if is_possible && !is_chosen {
            offered.insert(0, Mechanism::Kerberos);
        }
        if offered.contains(&Mechanism::Kerberos) && !is_possible {
            let expected = "a section [users.kerberos], which says where the server's key is";
            self.reject("clients.mechanisms", "\"GS2-KRB5-PLUS\"", expected);
        }
    }

    pub(super) fn ports_differ(&mut self, gateways: &Gateways, clients: &Clients) {
        if let Some(both) = clients.listen.iter().find(|a| gateways.listen.contains(a)) {
            self.reject(
                "clients.listen",
                format_args!("{both}, where gateways are listened for"),
                "another address or port",
            );
        }
    }

    /// The empty path is for none.
    pub(super) fn control(&mut self, raw: RawControl) -> Control {
        let configured = raw.socket.is_some();
        let [readers, admins] = [("control.readers", &raw.readers), ("control.admins", &raw.admins)]
            .map(|(key, names)| self.groups(key, names));
        let socket = raw.socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Control {
            socket: (!socket.as_os_str().is_empty()).then(|| self.path(&socket)),
            configured,
            readers,
            admins,
        }
    }

    /// Numbers of the system's groups of these names.
    fn groups(&mut self, key: &str, names: &[String]) -> Vec<u32> {
        let mut groups = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match privileges::group_number(name) {
                Some(number) => groups.push(number),
                None => self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string \"{name}\""),
                    "the name of a group that this system has, or its number",
                ),
            }
        }
        groups
    }

    /// A place to listen at; none where it is absent or empty, and where it is wrong, which is told.
    pub(super) fn place(&mut self, key: &str, raw: Option<String>) -> Option<Place> {
        let text = raw.filter(|text| !text.is_empty())?;
        let place = Place::parse(&text);
        if place.is_none() {
            let expected =
                "an address and port (\"127.0.0.1:9642\"), \"unix:/path/of/socket\", or \"\" for nowhere";
            self.reject(key, format_args!("{text:?}"), expected);
        }
        place
    }
}

fn is_host_name(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}
