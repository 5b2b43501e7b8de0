//! `[users]` as it is written, and its way to where users come from.

use super::Check;
use crate::config::{Backend, CertificateName, Directories, Kerberos, Ldap, System, ldap_port};
use crate::directory::{KerberosSettings, LdapSettings, SystemSettings};
use crate::users::name::{Case, NameRules};
use nufw_common::config::{HumanDuration, Tried};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Back-ends' time limits are shorter than this part of the time that a client has to log in.
const SHARE_OF_LOGIN: u32 = 2;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawUsers {
    pub(super) file: PathBuf,
    password: Option<Vec<Backend>>,
    identity: Option<Vec<Backend>>,
    groups: Option<Vec<Backend>>,
    case: Option<RawCase>,
    realm: Option<String>,
    certificate: Option<Vec<CertificateName>>,
    mark_base: Option<u64>,
    cache_for: Option<HumanDuration>,
    cache_entries: Option<u32>,
    ask_again: Option<HumanDuration>,
    ldap: Option<Tried<RawLdap>>,
    system: Option<Tried<RawSystem>>,
    kerberos: Option<Tried<RawKerberos>>,
}

#[derive(Debug, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawCase {
    Exact,
    Fold,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLdap {
    url: String,
    start_tls: Option<bool>,
    ca: Option<PathBuf>,
    bind_dn: Option<String>,
    bind_password_file: Option<PathBuf>,
    user_dn: Option<String>,
    user_base: String,
    user_filter: Option<String>,
    name: Option<String>,
    id: Option<String>,
    mark: Option<String>,
    member_of: Option<String>,
    group_base: Option<String>,
    group_filter: Option<String>,
    group_name: Option<String>,
    timeout: Option<HumanDuration>,
    connections: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawSystem {
    service: Option<String>,
    user: Option<String>,
    timeout: Option<HumanDuration>,
    processes: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawKerberos {
    keytab: PathBuf,
    realms: Vec<String>,
    timeout: Option<HumanDuration>,
}

impl Check<'_> {
    /// Where users come from; a client has `login` to log in.
    pub(super) fn directories(&mut self, raw: RawUsers, login: Duration) -> Directories {
        let usual = Directories::file_only();
        let longest = login / SHARE_OF_LOGIN;
        let names = NameRules {
            case: match raw.case {
                Some(RawCase::Fold) => Case::Fold,
                Some(RawCase::Exact) | None => Case::Exact,
            },
            realm: raw.realm,
        };
        if let Some(realm) = names
            .realm
            .as_deref()
            .filter(|realm| realm.is_empty() || realm.contains('@'))
        {
            self.reject(
                "users.realm",
                format_args!("{realm:?}"),
                "a realm such as \"example.org\"",
            );
        }
        let ldap = raw.ldap.and_then(|ldap| self.problems.take(ldap.0));
        let system = raw.system.and_then(|system| self.problems.take(system.0));
        let kerberos = raw.kerberos.and_then(|kerberos| self.problems.take(kerberos.0));
        let directories = Directories {
            password: self.order("users.password", raw.password, usual.password),
            identity: self.order("users.identity", raw.identity, usual.identity),
            groups: self.order("users.groups", raw.groups, usual.groups),
            names,
            certificate: self.each_once("users.certificate", raw.certificate, usual.certificate),
            mark_base: raw.mark_base.unwrap_or(0),
            cache_for: self.duration("users.cache-for", raw.cache_for, usual.cache_for, 0..=86_400),
            cache_entries: self.count("users.cache-entries", raw.cache_entries, usual.cache_entries),
            ask_again: self.duration("users.ask-again", raw.ask_again, usual.ask_again, 0..=86_400),
            ldap: ldap.map(|raw| self.ldap(raw, longest)),
            system: system.map(|raw| self.system(raw, longest)),
            kerberos: kerberos.map(|raw| self.kerberos(raw, longest)),
        };
        for (backend, is_there) in [
            (Backend::Ldap, directories.ldap.is_some()),
            (Backend::System, directories.system.is_some()),
        ] {
            let name = backend.name();
            if directories.uses(backend) && !is_there {
                let expected = format!("a section [users.{name}], which says how it is asked");
                self.reject(
                    "users",
                    format_args!("\"{name}\" in an order of back-ends"),
                    expected,
                );
            }
        }
        if !cfg!(feature = "pam") && directories.password.contains(&Backend::System) {
            let expected = "another back-end: this program was built without PAM (feature \"pam\")";
            self.reject("users.password", "\"system\"", expected);
        }
        directories
    }

    fn order(&mut self, key: &str, raw: Option<Vec<Backend>>, usual: Vec<Backend>) -> Vec<Backend> {
        self.each_once(key, raw, usual)
    }

    fn each_once<T: PartialEq>(&mut self, key: &str, raw: Option<Vec<T>>, usual: Vec<T>) -> Vec<T> {
        let Some(raw) = raw else {
            return usual;
        };
        if raw.is_empty() {
            self.reject(key, "an empty list", "at least one");
        }
        if let Some(index) = (1..raw.len()).find(|&index| raw[..index].contains(&raw[index])) {
            self.reject(&format!("{key}[{index}]"), "the same again", "each once");
        }
        raw
    }

    fn limit(
        &mut self,
        key: &str,
        raw: Option<HumanDuration>,
        usual: Duration,
        longest: Duration,
    ) -> Duration {
        let limit = raw.map_or(usual.min(longest), |raw| raw.0);
        if limit < Duration::from_millis(100) || limit > longest {
            let expected = format!(
                "a duration from 100ms to {}: half of limits.greeting-timeout",
                HumanDuration(longest)
            );
            self.reject(key, HumanDuration(limit), expected);
        }
        limit
    }

    fn ldap(&mut self, raw: RawLdap, longest: Duration) -> Ldap {
        let key = |key: &str| format!("users.ldap.{key}");
        let scheme = raw.url.split_once("://").map(|(scheme, _)| scheme);
        let host = raw.url.split_once("://").map_or("", |(_, rest)| rest);
        let usable = match scheme {
            Some("ldap" | "ldaps") => {
                ldap_port(&raw.url).is_some() && !host.starts_with([':', '/']) && !host.is_empty()
            }
            Some("ldapi") => !host.is_empty(),
            _ => false,
        };
        if !usable {
            let expected = "\"ldaps://HOST\", \"ldap://HOST\" (with TLS unless start-tls = false) or \"ldapi://%2Fpath%2Fof%2Fsocket\"";
            self.reject(&key("url"), format_args!("{:?}", raw.url), expected);
        }
        let start_tls = raw.start_tls.unwrap_or(scheme == Some("ldap"));
        if start_tls && scheme != Some("ldap") {
            let expected = "start-tls with ldap:// alone: ldaps:// begins with TLS, and ldapi:// needs none";
            self.reject(&key("start-tls"), true, expected);
        }
        if raw.bind_dn.is_some() != raw.bind_password_file.is_some() {
            let expected = "both bind-dn and bind-password-file, or neither where everybody may search";
            self.reject(&key("bind-dn"), "one of them", expected);
        }
        let user_filter = raw.user_filter.unwrap_or_else(|| "(uid={name})".to_owned());
        for (name, template) in [
            ("user-filter", Some(&user_filter)),
            ("user-dn", raw.user_dn.as_ref()),
        ] {
            if let Some(template) = template.filter(|template| !template.contains("{name}")) {
                self.reject(
                    &key(name),
                    format_args!("{template:?}"),
                    "{name} in it, where the user's name goes",
                );
            }
        }
        let group_filter = raw.group_filter.unwrap_or_else(|| "(member={dn})".to_owned());
        if !group_filter.contains("{dn}") && !group_filter.contains("{name}") {
            let expected = "{dn} or {name} in it, where the user goes";
            self.reject(&key("group-filter"), format_args!("{group_filter:?}"), expected);
        }
        let usual = Duration::from_secs(4);
        Ldap {
            settings: LdapSettings {
                url: raw.url,
                start_tls,
                ca: None,
                bind_dn: raw.bind_dn,
                bind_password: String::new(),
                user_dn: raw.user_dn,
                user_base: raw.user_base,
                user_filter,
                name_attribute: raw.name.unwrap_or_else(|| "uid".to_owned()),
                id_attribute: raw.id.unwrap_or_else(|| "uidNumber".to_owned()),
                mark_attribute: raw.mark,
                member_of: raw.member_of,
                group_base: raw.group_base,
                group_filter,
                group_name: raw.group_name.unwrap_or_else(|| "cn".to_owned()),
                timeout: self.limit(&key("timeout"), raw.timeout, usual, longest),
                connections: self.count(&key("connections"), raw.connections, 4),
            },
            ca: raw.ca.map(|path| self.path(&path)),
            bind_password_file: raw.bind_password_file.map(|path| self.path(&path)),
        }
    }

    fn kerberos(&mut self, raw: RawKerberos, longest: Duration) -> Kerberos {
        if !cfg!(feature = "kerberos") {
            let expected = "a program that was built with Kerberos (feature \"kerberos\"): this one was not";
            self.reject("users.kerberos", "a section", expected);
        }
        let is_realm = |realm: &&String| !realm.is_empty() && !realm.contains(['@', '/', '\\']);
        if let Some(wrong) = raw.realms.iter().find(|realm| !is_realm(realm)) {
            let expected = "a realm such as \"EXAMPLE.ORG\"";
            self.reject("users.kerberos.realms", format_args!("{wrong:?}"), expected);
        }
        Kerberos {
            settings: KerberosSettings {
                keytab: self.path(&raw.keytab),
                timeout: self.limit(
                    "users.kerberos.timeout",
                    raw.timeout,
                    Duration::from_secs(4),
                    longest,
                ),
            },
            realms: self.each_once("users.kerberos.realms", Some(raw.realms), Vec::new()),
        }
    }

    fn system(&mut self, raw: RawSystem, longest: Duration) -> System {
        let service = raw.service.unwrap_or_else(|| "nufw".to_owned());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if service.is_empty() || !service.chars().all(plain) {
            let expected = "the name of a file in /etc/pam.d";
            self.reject("users.system.service", format_args!("{service:?}"), expected);
        }
        let usual = Duration::from_secs(4);
        System {
            settings: SystemSettings {
                service,
                timeout: self.limit("users.system.timeout", raw.timeout, usual, longest),
                processes: self.count("users.system.processes", raw.processes, 4),
            },
            user: raw.user,
        }
    }
}
