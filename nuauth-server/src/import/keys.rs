//! Every key of `nuauth.conf` and of NuFW's modules: where it goes here, or why it goes nowhere.
//!
//! The table is what docs/migrating-from-nufw.md shows; a test keeps both in step.

use super::conf::{Conf, Setting};
use super::report::{Fate, Report};
use super::write::{comment, string, strings};
use std::fmt::Write as _;

/// What becomes of a key.
pub(super) enum To {
    /// A key of ours, with the value that the function makes of the old one: TOML, or a sentence of what was expected.
    Key(&'static str, fn(&str) -> Result<String, &'static str>),
    /// Read together with others, into this key of ours.
    With(&'static str),
    /// It needs none here.
    Gone(&'static str),
}

use To::{Gone, Key, With};

/// A key that is a family of keys, by its beginning, ends in `*`.
pub(super) const KEYS: &[(&str, To)] = &[
    ("nuauth_client_listen_addr", With("clients.listen")),
    ("nuauth_nufw_listen_addr", With("gateways.listen")),
    ("nuauth_gw_packet_port", With("gateways.listen")),
    ("nuauth_user_packet_port", With("clients.listen")),
    (
        "nuauth_client_listen_socket",
        Gone("a gateway on the same host connects over the loopback, with its certificate as any other"),
    ),
    (
        "nufw_gw_addr",
        Gone(
            "which gateways may connect, their certificates say: gateways.names. NuFW read the key and never obeyed it",
        ),
    ),
    ("nufw_has_conntrack", Gone("each gateway says itself what it can")),
    (
        "nufw_has_fixed_timeout",
        Gone("each gateway says itself what it can"),
    ),
    (
        "nuauth_number_usercheckers",
        Gone("there are no pools of threads to size"),
    ),
    (
        "nuauth_number_aclcheckers",
        Gone("there are no pools of threads to size"),
    ),
    (
        "nuauth_number_ipauthcheckers",
        Gone("there are no pools of threads to size"),
    ),
    (
        "nuauth_number_loggers",
        Gone("one journal groups the commits of all"),
    ),
    (
        "nuauth_number_session_loggers",
        Gone("one journal groups the commits of all"),
    ),
    ("nuauth_number_authcheckers", Key("limits.password-checks", count)),
    ("nuauth_log_users", Key("log.levels", level)),
    ("nuauth_log_users_sync", Key("log.sync", flag)),
    (
        "nuauth_log_users_strict",
        Gone(
            "an event finds its row by the whole tuple and the entry's id, so no row has to be closed by guess",
        ),
    ),
    (
        "nuauth_log_users_without_realm",
        Gone("a name is logged as the user's file or directory has it"),
    ),
    ("nuauth_prio_to_nok", With("order of policy.toml")),
    ("nuauth_single_user_client_limit", Key("sessions.per-user", limit)),
    (
        "nuauth_single_ip_client_limit",
        Key("clients.max-sessions-per-address", limit),
    ),
    (
        "nuauth_connect_policy",
        Gone("deprecated in NuFW: sessions.per-user and clients.max-sessions-per-address say it"),
    ),
    ("nuauth_reject_after_timeout", With("reject.on-timeout")),
    ("nuauth_reject_authenticated_drop", With("reject.on-default")),
    (
        "nuauth_packet_timeout",
        Gone("how long a packet waits is the gateway's: pending.timeout in nufw-agent.toml"),
    ),
    ("nuauth_session_duration", Key("sessions.max-age", seconds)),
    ("nuauth_datas_persistance", Key("users.cache-for", seconds)),
    (
        "nuauth_push_to_client",
        Gone("clients are always asked; none has to look by itself"),
    ),
    ("nuauth_push_delay", Gone("clients are asked at once, in batches")),
    (
        "nuauth_user_check_ip_equality",
        Gone("a session counts for the addresses alone that its client has proven"),
    ),
    (
        "nuauth_do_ip_authentication",
        Gone("see [identify]: users known by their address, marked as of lower quality"),
    ),
    (
        "nuauth_hello_authentication",
        Gone("a host that only answers proves nothing of its user"),
    ),
    (
        "nuauth_acl_cache",
        Gone("the access lists are in memory and indexed"),
    ),
    (
        "nuauth_user_cache",
        Gone("users.cache-for says how long answers of directories count"),
    ),
    ("nuauth_uses_utf8", Gone("names are UTF-8")),
    (
        "nuauth_use_groups_name",
        Gone("a group is a name; NuFW's numbers are taken over as names that are digits"),
    ),
    (
        "nuauth_debug_level",
        Gone("NUFW_LOG in the environment says how much is told"),
    ),
    (
        "nuauth_debug_areas",
        Gone("NUFW_LOG in the environment says what is told"),
    ),
    (
        "nuauth_log_to_syslog",
        Gone("messages go to standard error, from where the service manager takes them"),
    ),
    (
        "nuauth_uses_fake_sasl",
        Gone("clients.mechanisms says how users log in"),
    ),
    ("nuauth_use_command_server", Key("control.socket", no_socket)),
    (
        "nuauth_proto_wait_delay",
        Gone("the protocol is agreed by TLS (ALPN), without a wait"),
    ),
    (
        "nuauth_auth_nego_timeout",
        Key("limits.greeting-timeout", seconds),
    ),
    (
        "nuauth_drop_if_no_logging",
        Gone(
            "a packet is never accepted without its row; log.on-database-loss says whether the spool may hold it",
        ),
    ),
    (
        "nuauth_max_unassigned_messages",
        Key("limits.pending-asks", count),
    ),
    (
        "nuauth_krb5_*",
        Gone(
            "write the section users.kerberos; the service is always nuauth, and the realms are those of its users",
        ),
    ),
    (
        "nuauth_client_hash_algo",
        Gone("a rule may ask for the SHA-256 of a program"),
    ),
    ("nuauth_unix_sndbuf_size", Gone("the kernel's own sizes serve")),
    ("nuauth_tls_max_clients", Key("clients.max-sessions", count)),
    ("nuauth_tls_max_servers", Gone("gateways.names bounds them")),
    ("nuauth_tls_key", Key("tls.key", path)),
    ("nuauth_tls_cert", Key("tls.certificate", path)),
    ("nuauth_tls_cacert", Key("tls.ca", path)),
    (
        "nuauth_tls_ca_path",
        Gone("tls.ca is one file that may hold several certificates: put them together"),
    ),
    ("nuauth_tls_crl", Key("tls.crl", path)),
    (
        "nuauth_tls_crl_refresh",
        Gone("HUP reads the revocation list again"),
    ),
    (
        "nuauth_tls_ciphers",
        Gone("TLS 1.3 alone is spoken; none of its suites is weak"),
    ),
    (
        "nuauth_tls_dh_params",
        Gone("TLS 1.3 alone is spoken; it has groups of its own"),
    ),
    (
        "nuauth_tls_request_cert",
        Gone("gateways always need a certificate; a client that has one may log in by it"),
    ),
    ("nuauth_tls_auth_by_cert", With("clients.mechanisms")),
    (
        "nuauth_tls_disable_request_warning",
        Gone("there is no such warning"),
    ),
    (
        "nuauth_tls_disable_nufw_fqdn_check",
        Gone(
            "a gateway's name is always checked: make its certificate with `nuauth-server pki gateway NAME`",
        ),
    ),
    (
        "nuauth_tls_key_passwd",
        Gone("NuFW did not support it either: keep the key readable for the server alone"),
    ),
    ("nuauth_tls_ocsp_*", Gone("revocation is by tls.crl")),
    (
        "nuauth_tls_uid_method",
        Gone("see users.certificates for what of a certificate names the user"),
    ),
    (
        "nuauth_tls_trusted_issuer_dn",
        Gone("NuFW did not read it either: tls.ca names who is trusted"),
    ),
    ("nuauth_user_check_module", With("users.password")),
    ("nuauth_get_user_id_module", With("users.identity")),
    ("nuauth_get_user_groups_module", With("users.groups")),
    (
        "nuauth_auth_error_log_module",
        Gone("a failed login is a warning in the server's log"),
    ),
    (
        "nuauth_acl_check_module",
        Gone("the access lists are a file: policy.toml"),
    ),
    (
        "nuauth_user_session_modify_module",
        Gone("[sessions] has what these modules did"),
    ),
    (
        "nuauth_user_logs_module",
        Gone("connections are rows of log.database"),
    ),
    (
        "nuauth_user_session_logs_module",
        Gone("logins are rows of log.database; [hooks] runs programs"),
    ),
    (
        "nuauth_finalize_packet_module",
        Gone("[marks] has what these modules did; by default the mark is the user's number"),
    ),
    ("nuauth_periods_module", Gone("periods are part of policy.toml")),
    (
        "nuauth_certificate_check_module",
        Gone("revocation is by tls.crl"),
    ),
    (
        "nuauth_certificate_to_uid_module",
        Gone("see users.certificates for what of a certificate names the user"),
    ),
    (
        "nuauth_postauth_proto_module",
        Gone("the client names the owner of each socket itself"),
    ),
    (
        "nuauth_ip_authentication_module",
        Gone("see [identify]: users known by their address, marked as of lower quality"),
    ),
    (
        "plaintext_userfile",
        Gone("its file is converted to users.toml where it is given"),
    ),
    (
        "plaintext_aclfile",
        Gone("its file is converted to policy.toml where it is given"),
    ),
    (
        "xml_defs_periodfile",
        Gone("its file is converted into policy.toml where it is given"),
    ),
    (
        "ldap_*",
        Gone("NuFW kept access lists in LDAP; here they are policy.toml. Users from a directory: users.ldap"),
    ),
    (
        "system_*",
        Gone("see users.system: PAM runs in a process of its own"),
    ),
    (
        "nuauth_nnd_*",
        Gone("users come from the file, the system, or a directory"),
    ),
    (
        "mysql_*",
        Gone(
            "the log is log.database, as in mysql://nuauth@host/nulog; its password is in log.password-file",
        ),
    ),
    (
        "pgsql_*",
        Gone(
            "the log is log.database, as in postgres://nuauth@host/nulog; its password is in log.password-file",
        ),
    ),
    (
        "ipauth_guest_username",
        Gone("see [identify]: a guest of networks that are named"),
    ),
    (
        "session_authtype_*",
        Gone("a rule may ask for a quality of authentication"),
    ),
    ("mark_group_*", Gone("see [marks]")),
    ("mark_field_*", Gone("see [marks]")),
    ("mark_flag_*", Gone("see [marks]")),
    (
        "postauth_localuser_*",
        Gone("the client names the owner of each socket itself"),
    ),
    ("ulogd2_socket", Gone("the log is written by the server itself")),
    ("multi_mode_*", Gone("there is no such mode")),
    ("nuauth_emc_*", Gone("there is no such mode")),
    ("nuauth_multi_*", Gone("there is no such mode")),
    ("emc_*", Gone("there is no such mode")),
];

/// What the table says of a key.
pub(super) fn fate(key: &str) -> Option<&'static To> {
    KEYS.iter()
        .find(|(known, _)| match known.strip_suffix('*') {
            Some(family) => key.starts_with(family),
            None => *known == key,
        })
        .map(|(_, to)| to)
}

/// What is written without any key of NuFW's, since its default counted.
const DEFAULTS: [(&str, &str); 5] = [
    ("tls.certificate", "nuauth-cert.pem"),
    ("tls.key", "nuauth-key.pem"),
    ("tls.ca", "NuFW-cacert.pem"),
    ("users.file", "users.toml"),
    ("policy.file", "policy.toml"),
];

/// `nuauth.toml` of the old settings.
pub(super) fn convert(conf: &Conf, report: &mut Report) -> String {
    let mut ours = Ours::default();
    for setting in &conf.settings {
        one(setting, &mut ours, report);
    }
    together(conf, &mut ours, report);
    for (key, value) in DEFAULTS {
        if !ours.has(key) {
            ours.set(key, string(value), None);
        }
    }
    if !ours.has("gateways.names") {
        ours.set("gateways.names", strings(["gw1"]), None);
    }
    ours.text()
}

fn one(setting: &Setting, ours: &mut Ours, report: &mut Report) {
    let say = |report: &mut Report, fate, text: &str| report.say(&setting.place, &setting.key, fate, text);
    match fate(&setting.key) {
        Some(Key(key, convert)) => match convert(&setting.value) {
            Ok(value) => {
                say(report, Fate::Taken, &format!("{key} = {value}"));
                ours.set(key, value, Some(setting));
            }
            Err(expected) => {
                let text = format!("found {:?}, expected {expected}: left out", setting.value);
                say(report, Fate::Look, &text);
            }
        },
        Some(With(key)) => say(report, Fate::Taken, &format!("read into {key}")),
        Some(Gone(reason)) => say(report, Fate::Gone, reason),
        None => say(report, Fate::Look, "no key of NuFW 2.4: left out"),
    }
}

/// What several keys of the old file say together.
fn together(conf: &Conf, ours: &mut Ours, report: &mut Report) {
    listen(
        conf,
        ours,
        report,
        "clients.listen",
        ["nuauth_client_listen_addr", "nuauth_user_packet_port"],
        "4129",
    );
    listen(
        conf,
        ours,
        report,
        "gateways.listen",
        ["nuauth_nufw_listen_addr", "nuauth_gw_packet_port"],
        "4128",
    );
    if let Some(setting) = conf.get("nuauth_reject_after_timeout").filter(|s| s.value == "1") {
        for key in ["reject.on-timeout", "reject.on-nobody", "reject.on-disclaimed"] {
            ours.set(key, string("reject"), Some(setting));
        }
    }
    if let Some(setting) = conf
        .get("nuauth_reject_authenticated_drop")
        .filter(|s| s.value == "1")
    {
        ours.set("reject.on-default", string("reject"), Some(setting));
    }
    if let Some(setting) = conf.get("nuauth_tls_auth_by_cert") {
        let mechanisms: &[&str] = match setting.value.as_str() {
            "2" => &["EXTERNAL"],
            "1" => &["EXTERNAL", "PLAIN"],
            _ => &["PLAIN"],
        };
        ours.set("clients.mechanisms", strings(mechanisms), Some(setting));
    }
    if let Some(setting) = conf.get("nuauth_user_check_module")
        && !setting
            .value
            .split_whitespace()
            .any(|module| module.starts_with("plaintext"))
    {
        let text = "users do not come from users.nufw: say in [users] where they come from";
        report.say(&setting.place, &setting.key, Fate::Look, text);
    }
}

/// The addresses of a port, each with its port.
fn listen(
    conf: &Conf,
    ours: &mut Ours,
    report: &mut Report,
    key: &'static str,
    from: [&str; 2],
    default: &str,
) {
    let port = conf.get(from[1]).map_or(default, |setting| &setting.value);
    let Some(setting) = conf.get(from[0]).or_else(|| conf.get(from[1])) else {
        return;
    };
    let words = conf.get(from[0]).map_or("0.0.0.0", |setting| &setting.value);
    let mut addresses = Vec::new();
    for word in words.split_whitespace() {
        let whole = word.parse::<std::net::SocketAddr>().ok();
        let bare = || {
            let address: std::net::IpAddr = word.trim_matches(['[', ']']).parse().ok()?;
            Some(std::net::SocketAddr::new(address, port.parse().ok()?))
        };
        if let Some(address) = whole.or_else(bare) {
            addresses.push(address.to_string());
        } else {
            let text = format!("found {word:?} with port {port:?}, expected an address: left out");
            report.say(&setting.place, &setting.key, Fate::Look, text);
        }
    }
    if !addresses.is_empty() {
        ours.set(key, strings(addresses), Some(setting));
    }
}

/// Our keys, by section in the order of the sample.
#[derive(Default)]
struct Ours {
    keys: Vec<(&'static str, String, Option<String>)>,
}

impl Ours {
    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(known, ..)| *known == key)
    }

    fn set(&mut self, key: &'static str, value: String, from: Option<&Setting>) {
        let from = from.map(|setting| format!("{}: {}", setting.place, setting.key));
        self.keys.retain(|(known, ..)| *known != key);
        self.keys.push((key, value, from));
    }

    fn text(mut self) -> String {
        self.keys.sort_by_key(|(key, ..)| *key);
        let mut out =
            comment("From a configuration of NuFW. `nuauth-server check` tells whether it is right.");
        let mut section = "";
        for (key, value, from) in &self.keys {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                let _ = write!(out, "\n[{of}]\n");
                section = of;
            }
            if let Some(from) = from {
                out.push_str(&comment(from));
            }
            let _ = writeln!(out, "{name} = {value}");
        }
        out
    }
}

fn count(value: &str) -> Result<String, &'static str> {
    match value.parse::<u32>() {
        Ok(count) if count > 0 => Ok(count.to_string()),
        _ => Err("a number above 0"),
    }
}

/// 0 means without limit, which is no number here.
fn limit(value: &str) -> Result<String, &'static str> {
    count(value).map_err(|_| "a number above 0; 0, no limit, is the default here")
}

fn flag(value: &str) -> Result<String, &'static str> {
    match value {
        "0" => Ok("false".to_owned()),
        "1" => Ok("true".to_owned()),
        _ => Err("0 or 1"),
    }
}

fn level(value: &str) -> Result<String, &'static str> {
    match value.parse::<u8>() {
        Ok(level) if level <= 15 => Ok(level.to_string()),
        _ => Err("a number from 0 to 15"),
    }
}

fn seconds(value: &str) -> Result<String, &'static str> {
    match value.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(string(&format!("{seconds}s"))),
        _ => Err("seconds above 0"),
    }
}

fn path(value: &str) -> Result<String, &'static str> {
    if value.is_empty() {
        return Err("a path");
    }
    Ok(string(value))
}

/// Only its absence can be said: where it is, is ours to say.
fn no_socket(value: &str) -> Result<String, &'static str> {
    match value {
        "0" => Ok(string("")),
        _ => Err("0; with 1, the default, the socket is control.socket"),
    }
}
