//! Asking an LDAP server, or an Active Directory: bind, or search and bind; ids and groups from entries.
//!
//! Runs in a worker. Every operation has a time limit, every answer a number of entries and values that it may have; a
//! referral is not followed. Group entries are never read for their members: a group may have as many as it likes.

use super::MAX_GROUPS;
use super::wire::{Ask, Found, LdapSettings, Reply};
use ldap3::{Ldap as Handle, LdapConnAsync, LdapConnSettings, Scope, SearchEntry, SearchOptions};
use ldap3::{LdapError, dn_escape, ldap_escape};
use nufw_proto::LoginBytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Values of one attribute that holds a name, an id or a mark; an entry with more is not usable.
const MAX_VALUES: usize = 16;
/// Attributes of which at least one changes with the password: of servers after RFC 4512 (`entryCSN` of `slapd`), of
/// password policies, of Active Directory.
const VERSION: [&str; 5] = [
    "entryCSN",
    "modifyTimestamp",
    "pwdChangedTime",
    "pwdLastSet",
    "whenChanged",
];
/// Result codes (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const REFERRAL: u32 = 10;
const NO_SUCH_OBJECT: u32 = 32;
const INVALID_CREDENTIALS: u32 = 49;

/// The connections to one server.
pub(super) struct Ldap {
    settings: LdapSettings,
    tls: Option<Arc<ClientConfig>>,
    /// Connections that search, bound as who searches.
    searchers: Mutex<Vec<Handle>>,
    /// Connections that users are bound on, one after the other.
    binders: Mutex<Vec<Handle>>,
    places: Semaphore,
}

/// What went wrong.
enum Fault {
    /// The connection, which may have been an old one: on a new one it is tried again.
    Connection(LdapError),
    /// The answer.
    Answer(String),
}

impl From<LdapError> for Fault {
    fn from(error: LdapError) -> Self {
        Self::Connection(error)
    }
}

/// A user's entry.
struct Entry {
    dn: String,
    values: HashMap<String, Vec<Vec<u8>>>,
}

impl Ldap {
    pub(super) fn new(settings: LdapSettings) -> anyhow::Result<Self> {
        let tls = settings.ca.as_deref().map(client_config).transpose()?;
        Ok(Self {
            places: Semaphore::new(settings.connections),
            tls,
            settings,
            searchers: Mutex::default(),
            binders: Mutex::default(),
        })
    }

    pub(super) async fn answer(&self, ask: &Ask, password: Option<&LoginBytes>) -> Reply {
        let Ok(_place) = self.places.acquire().await else {
            return Reply::CannotSay("its worker ends".to_owned());
        };
        let answered = match ask {
            Ask::Password(name) => self.password(name, password).await,
            Ask::Identity(name) => self.identity(name).await,
            Ask::Groups(name) => self.groups(name).await,
            Ask::Credential(name) => self.credential(name).await,
            Ask::Ticket(_) => Ok(Reply::CannotSay("it takes no tickets".to_owned())),
        };
        answered.unwrap_or_else(|fault| {
            Reply::CannotSay(match fault {
                Fault::Connection(error) => format!("{}: {}", self.settings.url, sentence(&error)),
                Fault::Answer(why) => why,
            })
        })
    }

    async fn password(&self, name: &str, password: Option<&LoginBytes>) -> Result<Reply, Fault> {
        // RFC 4513, 5.1.2: without a password a server accepts everybody, as nobody.
        let password = password.and_then(|password| std::str::from_utf8(password.expose()).ok());
        let Some(password) = password.filter(|password| !password.is_empty()) else {
            return Ok(Reply::Wrong);
        };
        let dn = match &self.settings.user_dn {
            Some(template) => template.replace("{name}", &dn_escape(name)),
            None => match self.entry(name).await? {
                Some(entry) => entry.dn,
                None => return Ok(Reply::Unknown),
            },
        };
        // An empty DN would be nobody's, and accepted.
        if dn.is_empty() {
            return Ok(Reply::Unknown);
        }
        let result = self
            .on(&self.binders, false, async |ldap: &mut Handle| {
                ldap.with_timeout(self.settings.timeout)
                    .simple_bind(&dn, password)
                    .await
                    .map_err(Fault::from)
            })
            .await?;
        match result.rc {
            SUCCESS => Ok(Reply::Right),
            INVALID_CREDENTIALS => Ok(Reply::Wrong),
            NO_SUCH_OBJECT => Ok(Reply::Unknown),
            code => Err(refused("a bind as the user", code, &result.text)),
        }
    }

    async fn identity(&self, name: &str) -> Result<Reply, Fault> {
        let Some(entry) = self.entry(name).await? else {
            return Ok(Reply::Unknown);
        };
        let id = match entry.one(&self.settings.id_attribute)? {
            Some(value) if self.settings.id_attribute.eq_ignore_ascii_case("objectSid") => relative_id(value),
            Some(value) => number(value),
            None => None,
        };
        let Some(id) = id else {
            let attribute = &self.settings.id_attribute;
            return Err(Fault::Answer(format!(
                "its entry has no usable {attribute}, which is to be its id"
            )));
        };
        let mark = match &self.settings.mark_attribute {
            None => None,
            Some(attribute) => {
                let why = || {
                    Fault::Answer(format!(
                        "its entry has no usable {attribute}, which is to be its mark"
                    ))
                };
                Some(entry.one(attribute)?.and_then(number).ok_or_else(why)?)
            }
        };
        let names = entry.texts(&self.settings.name_attribute, MAX_VALUES)?;
        Ok(Reply::Found(Found { id, mark, names }))
    }

    async fn groups(&self, name: &str) -> Result<Reply, Fault> {
        let Some(entry) = self.entry(name).await? else {
            return Ok(Reply::Unknown);
        };
        let mut names = Vec::new();
        if let Some(attribute) = &self.settings.member_of {
            for dn in entry.texts(attribute, MAX_GROUPS)? {
                match first_value(&dn) {
                    Some(name) => names.push(name),
                    None => {
                        return Err(Fault::Answer(format!(
                            "its {attribute} {dn:?} is no name of a group"
                        )));
                    }
                }
            }
        }
        if let Some(base) = &self.settings.group_base {
            let filter = self
                .settings
                .group_filter
                .replace("{dn}", &ldap_escape(entry.dn.as_str()))
                .replace("{name}", &ldap_escape(name));
            let found = self
                .search(base, &filter, vec![self.settings.group_name.clone()], MAX_GROUPS)
                .await?;
            let Some(found) = found else {
                return Err(Fault::Answer(format!("it is in more than {MAX_GROUPS} groups")));
            };
            for group in found {
                names.extend(group.texts(&self.settings.group_name, MAX_VALUES)?);
            }
        }
        Ok(Reply::Groups(names))
    }

    /// Whatever of [`VERSION`] the entry has: passwords cannot be read.
    async fn credential(&self, name: &str) -> Result<Reply, Fault> {
        let (base, filter) = match &self.settings.user_dn {
            Some(template) => (
                template.replace("{name}", &dn_escape(name)),
                "(objectClass=*)".to_owned(),
            ),
            None => (
                self.settings.user_base.clone(),
                self.settings.user_filter.replace("{name}", &ldap_escape(name)),
            ),
        };
        let attributes = VERSION.map(str::to_owned).to_vec();
        let Some(mut found) = self.search(&base, &filter, attributes, 1).await? else {
            return Ok(Reply::Credential(None));
        };
        let Some(entry) = found.pop() else {
            return Ok(Reply::Unknown);
        };
        let mut version = format!("{}\n", entry.dn);
        let mut has_any = false;
        for attribute in VERSION {
            for value in entry.texts(attribute, MAX_VALUES)? {
                has_any = true;
                let _ = writeln!(version, "{attribute}={value}");
            }
        }
        Ok(Reply::Credential(has_any.then_some(version)))
    }

    /// The entry of a user. Two that fit are none: which one it is must not be chance.
    async fn entry(&self, name: &str) -> Result<Option<Entry>, Fault> {
        let settings = &self.settings;
        let filter = settings.user_filter.replace("{name}", &ldap_escape(name));
        let mut attributes = vec![settings.name_attribute.clone(), settings.id_attribute.clone()];
        attributes.extend(settings.mark_attribute.clone());
        attributes.extend(settings.member_of.clone());
        match self.search(&settings.user_base, &filter, attributes, 1).await? {
            Some(mut found) => Ok(found.pop()),
            None => Err(Fault::Answer(format!(
                "several entries under {:?} are of a user of that name: see users.ldap.user-filter",
                settings.user_base
            ))),
        }
    }

    /// The entries that a search finds; `None` where there are more than `most`.
    async fn search(
        &self,
        base: &str,
        filter: &str,
        attributes: Vec<String>,
        most: usize,
    ) -> Result<Option<Vec<Entry>>, Fault> {
        let limit = i32::try_from(most + 1).unwrap_or(i32::MAX);
        let seconds = i32::try_from(self.settings.timeout.as_secs().max(1)).unwrap_or(i32::MAX);
        let search = async |ldap: &mut Handle| {
            let mut stream = ldap
                .with_search_options(SearchOptions::new().sizelimit(limit).timelimit(seconds))
                .with_timeout(self.settings.timeout)
                .streaming_search(base, Scope::Subtree, filter, attributes.clone())
                .await?;
            let mut entries = Vec::new();
            while let Some(item) = stream.next().await? {
                // Continuations that a server proposes are not followed.
                if item.is_ref() || item.is_intermediate() {
                    continue;
                }
                if entries.len() == most {
                    return Ok(None);
                }
                entries.push(Entry::from(SearchEntry::construct(item)));
            }
            let result = stream.finish().await;
            match result.rc {
                SUCCESS => Ok(Some(entries)),
                SIZE_LIMIT_EXCEEDED => Ok(None),
                code => Err(refused(&format!("a search under {base:?}"), code, &result.text)),
            }
        };
        let found =
            tokio::time::timeout(self.settings.timeout * 2, self.on(&self.searchers, true, search)).await;
        found.unwrap_or_else(|_| {
            let seconds = self.settings.timeout.as_secs_f32() * 2.0;
            Err(Fault::Answer(format!(
                "{}: no answer within {seconds} s",
                self.settings.url
            )))
        })
    }

    /// Does something on a connection of the pool, or on a new one where there is none, or where it was lost meanwhile.
    async fn on<T>(
        &self,
        pool: &Mutex<Vec<Handle>>,
        searches: bool,
        what: impl AsyncFn(&mut Handle) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let take = || pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let give = |ldap| pool.lock().unwrap_or_else(PoisonError::into_inner).push(ldap);
        while let Some(mut ldap) = take() {
            if ldap.is_closed() {
                continue;
            }
            match what(&mut ldap).await {
                // The server may have ended an idle connection; whatever else it was shows on a new one.
                Err(Fault::Connection(error)) if !matches!(error, LdapError::Timeout { .. }) => break,
                result => {
                    if !matches!(result, Err(Fault::Connection(_))) {
                        give(ldap);
                    }
                    return result;
                }
            }
        }
        let mut ldap = self.connect(searches).await?;
        let result = what(&mut ldap).await;
        if !matches!(result, Err(Fault::Connection(_))) {
            give(ldap);
        }
        result
    }

    async fn connect(&self, searches: bool) -> Result<Handle, Fault> {
        let settings = &self.settings;
        let mut connecting = LdapConnSettings::new()
            .set_conn_timeout(settings.timeout)
            .set_starttls(settings.start_tls);
        if let Some(tls) = &self.tls {
            connecting = connecting.set_config(Arc::clone(tls));
        }
        let opened = tokio::time::timeout(
            settings.timeout,
            LdapConnAsync::with_settings(connecting, &settings.url),
        );
        let (connection, mut ldap) = match opened.await {
            Ok(opened) => opened?,
            Err(elapsed) => return Err(Fault::Connection(LdapError::Timeout { elapsed })),
        };
        tokio::spawn(async move {
            // Whoever waits on it is told.
            let _ = connection.drive().await;
        });
        if let (true, Some(dn)) = (searches, &settings.bind_dn) {
            let result = ldap
                .with_timeout(settings.timeout)
                .simple_bind(dn, &settings.bind_password)
                .await?;
            if result.rc != SUCCESS {
                return Err(refused("the bind as users.ldap.bind-dn", result.rc, &result.text));
            }
        }
        Ok(ldap)
    }
}

impl From<SearchEntry> for Entry {
    fn from(entry: SearchEntry) -> Self {
        let texts = entry
            .attrs
            .into_iter()
            .map(|(name, values)| (name, values.into_iter().map(String::into_bytes).collect()));
        // Attributes have no case.
        let values = texts
            .chain(entry.bin_attrs)
            .map(|(name, values)| (name.to_ascii_lowercase(), values))
            .collect();
        Self { dn: entry.dn, values }
    }
}

impl Entry {
    fn values(&self, attribute: &str, most: usize) -> Result<&[Vec<u8>], Fault> {
        let values = self
            .values
            .get(&attribute.to_ascii_lowercase())
            .map_or(&[][..], Vec::as_slice);
        if values.len() > most {
            return Err(Fault::Answer(format!(
                "its entry has {} values of {attribute}, and {most} are the most",
                values.len()
            )));
        }
        Ok(values)
    }

    /// The value of an attribute that must not have two.
    fn one(&self, attribute: &str) -> Result<Option<&[u8]>, Fault> {
        Ok(self.values(attribute, 1)?.first().map(Vec::as_slice))
    }

    fn texts(&self, attribute: &str, most: usize) -> Result<Vec<String>, Fault> {
        self.values(attribute, most)?
            .iter()
            .map(|value| {
                String::from_utf8(value.clone())
                    .map_err(|_| Fault::Answer(format!("its entry has a {attribute} that is no text")))
            })
            .collect()
    }
}

fn client_config(ca: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(Arc::new(
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    ))
}

fn refused(what: &str, code: u32, text: &str) -> Fault {
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    let hint = match code {
        REFERRAL => ", a referral to another server, which is not followed",
        8 | 13 => ", which wants TLS: see users.ldap.url and users.ldap.start-tls",
        NO_SUCH_OBJECT => ", there is no such entry",
        INVALID_CREDENTIALS => ", the name or the password is wrong",
        _ => "",
    };
    Fault::Answer(format!("{what} was refused with code {code}{hint} ({text:?})"))
}

fn sentence(error: &LdapError) -> String {
    match error {
        LdapError::Timeout { .. } => "no answer in time".to_owned(),
        LdapError::ResultRecv { .. } | LdapError::OpSend { .. } | LdapError::EndOfStream => {
            "the server ended the connection".to_owned()
        }
        LdapError::Io { source } => nufw_common::tls::explain(source),
        LdapError::FilterParsing => "users.ldap.user-filter or group-filter is no filter of LDAP".to_owned(),
        error => error.to_string(),
    }
}

/// A number as LDAP writes it.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits
        .then(|| std::str::from_utf8(value).ok()?.parse().ok())
        .flatten()
}

/// The last part of a security identifier (MS-DTYP 2.4.2.2), which is the user's number in its domain.
fn relative_id(sid: &[u8]) -> Option<u64> {
    let (&[1, count, ..], Some(parts)) = (sid, sid.get(8..)) else {
        return None;
    };
    let (_, last) = parts.split_last_chunk::<4>()?;
    (count > 1 && parts.len() == usize::from(count) * 4).then(|| u64::from(u32::from_le_bytes(*last)))
}

/// The value of the first part of a distinguished name (RFC 4514): `staff` of `cn=staff,ou=groups,…`.
fn first_value(dn: &str) -> Option<String> {
    let (_, rest) = dn.split_once('=')?;
    let mut bytes = rest.bytes();
    let mut value = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' | b'+' => break,
            b'\\' => {
                let escaped = bytes.next()?;
                let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
                match hex(escaped) {
                    Some(high) => value.push(high << 4 | hex(bytes.next()?)?),
                    None => value.push(escaped),
                }
            }
            byte => value.push(byte),
        }
    }
    String::from_utf8(value).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_is_the_first_part_of_its_dn() {
        for (dn, name) in [
            ("cn=staff,ou=groups,dc=example,dc=org", Some("staff")),
            (
                "CN=Domain Admins,CN=Users,DC=example,DC=org",
                Some("Domain Admins"),
            ),
            ("cn=a\\,b\\+c\\\\d,dc=x", Some("a,b+c\\d")),
            ("cn=caf\\c3\\a9,dc=x", Some("caf\u{e9}")),
            ("cn=one+uid=two,dc=x", Some("one")),
            ("cn=\\ff,dc=x", None),
            ("cn=\\", None),
            ("cn=,dc=x", None),
            ("", None),
        ] {
            assert_eq!(first_value(dn).as_deref(), name, "{dn}");
        }
    }

    #[test]
    fn a_users_number_is_the_last_part_of_its_sid() {
        // S-1-5-21-1004336348-1177238915-682003330-512, the example of MS-DTYP.
        let sid = [
            1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0xdc, 0xf4, 0xdc, 0x3b, 0x83, 0x3d, 0x2b, 0x46, 0x82, 0x8b,
            0xa6, 0x28, 0, 2, 0, 0,
        ];
        assert_eq!(relative_id(&sid), Some(512));
        assert_eq!(relative_id(&sid[..27]), None);
        assert_eq!(relative_id(&[]), None);
        assert_eq!(relative_id(&[2, 0, 0, 0, 0, 0, 0, 5]), None);
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(number(b"9223372036854775807"), Some(i64::MAX.unsigned_abs()));
        for wrong in [
            &b""[..],
            b"-1",
            b"+1",
            b" 1",
            b"1.0",
            b"99999999999999999999",
            b"\xff",
        ] {
            assert_eq!(number(wrong), None);
        }
    }
}
