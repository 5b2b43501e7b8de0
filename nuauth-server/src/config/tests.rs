use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const GOOD: &str = r#"
[gateways]
names = ["gw1.example", "gw2"]

[tls]
certificate = "pki/server.crt"
key = "/srv/server.key"
ca = "pki/ca.crt"

[users]
file = "users.toml"

[policy]
file = "policy.toml"
"#;

fn load(text: &str, overrides: &[Override]) -> Result<(tempfile::TempDir, ServerConfig), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nuauth.toml");
    std::fs::write(&path, text).unwrap();
    match ServerConfig::load(&path, overrides) {
        Ok(config) => Ok((dir, config)),
        Err(e) => Err(e.to_string().replace(&format!("{}/", dir.path().display()), "")),
    }
}

/// The sample with one line replaced or added, and the errors that it makes.
fn errors_with(section: &str, lines: &str) -> Vec<String> {
    let header = format!("[{section}]\n");
    let text = if section.is_empty() {
        format!("{lines}\n{GOOD}")
    } else if GOOD.contains(&header) {
        GOOD.replace(&header, &format!("{header}{lines}\n"))
    } else {
        format!("{GOOD}\n{header}{lines}\n")
    };
    match load(&text, &[]) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .lines()
            .map(|e| e.split_once(": ").unwrap().1.to_owned())
            .collect(),
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let (dir, config) = load(GOOD, &[]).unwrap();
    assert_eq!(config.mark_mask, Mark(0x00ff_ffff));
    assert_eq!(config.server_number, 1);
    assert_eq!(config.dead_after, Duration::from_secs(10));
    assert_eq!(
        config.gateways.listen,
        [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 4128)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 4128))
        ]
    );
    assert_eq!(config.clients.listen[0].port(), 4129);
    assert_eq!(config.clients.mechanisms, [Mechanism::External, Mechanism::Plain]);
    assert_eq!(config.tls.certificate, dir.path().join("pki/server.crt"));
    assert_eq!(config.tls.key, Path::new("/srv/server.key"));
    assert_eq!(config.tls.crl, None);
    assert_eq!(config.users, dir.path().join("users.toml"));
    assert_eq!(
        config.log.database.file(),
        Some(Path::new("/var/lib/nufw/nulog.db"))
    );
    assert!(config.engine.log_sync && config.engine.levels == engine::Levels::ALL);
    assert_eq!(config.engine.sessions, 4096);
    assert_eq!(config.engine.pending_asks, 65_536);
    assert_eq!(config.ports.password_checks, 1);
    assert!(config.directories.all_known() && !config.directories.needs_helper());
    let usual = Control {
        socket: Some(PathBuf::from("/run/nufw/nuauth.sock")),
        configured: false,
        readers: Vec::new(),
        admins: Vec::new(),
    };
    assert_eq!(config.control, usual);
    let tickets = config.tickets.unwrap();
    assert_eq!(tickets.file, Path::new("/var/lib/nufw/tickets.key"));
    assert_eq!(
        (tickets.lifetime, tickets.configured),
        (Duration::from_mins(10), false)
    );
    assert_eq!(config.hooks, None);
    assert!(config.identify.networks.is_empty() && config.identify.radius.is_none());
}

#[test]
fn sessions_hooks_and_identities_are_what_the_file_says() {
    let text = format!(
        "{GOOD}\n[sessions]\nper-user = 2\non-limit = \"end-oldest\"\nmax-age = \"12h\"\nidle = \"30m\"\n\
         hours = [\"mon-fri 07:00-19:00\"]\nhours-of-groups = {{ staff = [\"daily 00:00-24:00\"] }}\n\
         zone = \"Europe/Berlin\"\nticket-lifetime = \"5m\"\nticket-key = \"keys\"\n\
         [hooks]\nlogin = \"/bin/true\"\ntimeout = \"3s\"\n[control]\nreaders = [\"root\"]\nadmins = [\"4711\"]\n\
         [[identify.static]]\nnetworks = [\"10.1.2.3\", \"10.2.0.0/16\"]\nuser = \"printer\"\n\
         [identify.guest]\nnetworks = [\"2001:db8::/32\"]\nuser = \"guest\"\n[identify.leases]\nfile = \"leases\"\n\
         [identify.radius]\nclients = [\"10.0.0.2\"]\nsecret-file = \"secret\"\nlisten = [\"127.0.0.1:1813\"]\n"
    );
    let with_secret = |mode: u32| {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "xyzzy\n").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let path = dir.path().join("nuauth.toml");
        std::fs::write(&path, &text).unwrap();
        let loaded = ServerConfig::load(&path, &[]).map_err(|error| error.to_string());
        (dir, loaded)
    };
    let (dir, config) = with_secret(0o600);
    let config = config.unwrap();
    let engine = &config.engine;
    assert_eq!(
        (
            engine.sessions_per_user,
            engine.on_user_limit,
            engine.session_age,
            engine.session_idle
        ),
        (
            Some(2),
            engine::OnUserLimit::EndOldest,
            Some(Duration::from_hours(12)),
            Some(Duration::from_mins(30))
        )
    );
    assert!(engine.tells_sessions);
    let tickets = config.tickets.unwrap();
    assert_eq!(tickets.file, dir.path().join("keys"));
    assert_eq!(
        (tickets.lifetime, tickets.configured),
        (Duration::from_mins(5), true)
    );
    let hooks = config.hooks.unwrap();
    assert_eq!(
        (hooks.login.as_deref(), hooks.logout),
        (Some(Path::new("/bin/true")), None)
    );
    assert_eq!(
        (hooks.timeout, hooks.parallel, hooks.queue),
        (Duration::from_secs(3), 4, 1024)
    );
    assert_eq!(
        (config.control.readers, config.control.admins),
        (vec![0], vec![4711])
    );
    let networks: Vec<_> = config
        .identify
        .networks
        .iter()
        .map(|(network, user)| format!("{network} {user}"))
        .collect();
    assert_eq!(
        networks,
        [
            "10.1.2.3/32 printer",
            "10.2.0.0/16 printer",
            "2001:db8::/32 guest"
        ]
    );
    assert_eq!(config.identify.leases, Some(dir.path().join("leases")));
    let radius = config.identify.radius.unwrap();
    assert_eq!(
        (radius.secret.as_str(), radius.timeout),
        ("xyzzy", Duration::from_mins(30))
    );
    let error = with_secret(0o644).1.unwrap_err();
    assert!(error.contains("which everybody may read"), "{error}");
}

#[test]
fn what_is_wrong_with_sessions_hooks_and_identities_is_named() {
    for (text, expected) in [
        (
            "[sessions]\nper-user = 0",
            "key sessions.per-user: found 0, expected at least 1",
        ),
        ("[sessions]\nmax-age = \"5s\"", "key sessions.max-age: found"),
        (
            "[sessions]\nzone = \"Mars\"",
            "key sessions.zone: found string \"Mars\"",
        ),
        (
            "[sessions]\nhours = [\"mon 08:00-09:00\", \"noon\"]",
            "key sessions.hours[1]: found string \"noon\", expected days and times",
        ),
        (
            "[sessions]\nhours-of-groups = { staff = [\"x\"] }",
            "key sessions.hours-of-groups.staff[0]: found string \"x\"",
        ),
        (
            "[hooks]\nlogin = \"/nowhere\"",
            "key hooks.login: found \"/nowhere\", expected a program",
        ),
        (
            "[control]\nadmins = [\"no such group\"]",
            "key control.admins[0]: found",
        ),
        (
            "[identify.guest]\nnetworks = [\"everywhere\"]\nuser = \"guest\"",
            "key identify.guest.networks[0]: found string \"everywhere\"",
        ),
        (
            "[[identify.static]]\nnetworks = [\"10.0.0.1\", \"10.0.0.1/32\"]\nuser = \"p\"",
            "10.0.0.1/32 again",
        ),
        (
            "[identify.radius]\nclients = [\"10.0.0.2\"]\nsecret-file = \"missing\"",
            "key identify.radius.secret-file: found",
        ),
    ] {
        let error = load(&format!("{GOOD}\n{text}\n"), &[]).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// The sample with more in its section of users.
fn with_users(lines: &str, sections: &str) -> String {
    GOOD.replace("[users]\n", &format!("[users]\n{lines}\n")) + sections
}

#[test]
fn users_come_from_where_the_file_says() {
    let text = with_users(
        "password = [\"file\", \"ldap\"]\nidentity = [\"ldap\"]\ngroups = [\"file\", \"ldap\", \"system\"]\n\
         case = \"fold\"\nrealm = \"example.org\"\ncertificate = [\"upn\", \"common-name\"]\nmark-base = 10000",
        "[users.ldap]\nurl = \"ldap://ldap.example.org\"\nca = \"ldap.crt\"\nuser-base = \"dc=x\"\nmember-of = \"memberOf\"\n\
         [users.system]\nservice = \"login\"\nuser = \"root\"\n",
    );
    let (dir, config) = load(&text, &[]).unwrap();
    let directories = &config.directories;
    assert_eq!(directories.password, [Backend::File, Backend::Ldap]);
    assert_eq!(directories.identity, [Backend::Ldap]);
    assert!(!directories.all_known() && !config.engine.all_known && directories.needs_helper());
    assert_eq!(
        directories.certificate,
        [CertificateName::Upn, CertificateName::CommonName]
    );
    assert_eq!(directories.names.apply("ALICE@example.org").unwrap(), "alice");
    let ldap = directories.ldap.as_ref().unwrap();
    assert!(
        ldap.settings.start_tls,
        "a password is not sent in the clear unless somebody says so"
    );
    assert_eq!(ldap.settings.user_filter, "(uid={name})");
    assert_eq!(ldap.ca.as_deref(), Some(dir.path().join("ldap.crt").as_path()));
    assert_eq!(directories.system.as_ref().unwrap().user.as_deref(), Some("root"));
    let error = directories.settings().unwrap_err().to_string();
    assert!(error.contains("ldap.crt"), "{error}");
}

#[test]
fn tickets_are_taken_where_the_file_says_how() {
    let section = "[users.kerberos]\nkeytab = \"nuauth.keytab\"\nrealms = [\"EXAMPLE.ORG\"]\n";
    if !cfg!(feature = "kerberos") {
        let error = load(&with_users("", section), &[]).unwrap_err();
        assert!(error.contains("was built with Kerberos"), "{error}");
        return;
    }
    let (dir, config) = load(&with_users("", section), &[]).unwrap();
    let kerberos = config.directories.kerberos.as_ref().unwrap();
    assert_eq!(kerberos.settings.keytab, dir.path().join("nuauth.keytab"));
    assert!(config.directories.needs_helper() && config.directories.all_known());
    let offered = [Mechanism::Kerberos, Mechanism::External, Mechanism::Plain];
    assert_eq!(config.clients.mechanisms, offered);
    let chosen = format!(
        "{}\n[clients]\nmechanisms = [\"PLAIN\"]\n",
        with_users("", section)
    );
    assert_eq!(
        load(&chosen, &[]).unwrap().1.clients.mechanisms,
        [Mechanism::Plain]
    );
    let without = format!("{GOOD}\n[clients]\nmechanisms = [\"GS2-KRB5-PLUS\"]\n");
    let error = load(&without, &[]).unwrap_err();
    assert!(error.contains("expected a section [users.kerberos]"), "{error}");
}

#[test]
fn ports_of_ldap_urls_are_known() {
    for (url, port) in [
        ("ldap://x", Some(389)),
        ("ldaps://x", Some(636)),
        ("ldaps://x:1636/", Some(1636)),
        ("ldap://[::1]", Some(389)),
        ("ldap://[::1]:390", Some(390)),
        ("ldap://x:0", None),
        ("ldap://x:y", None),
        ("ldapi://%2Frun%2Fslapd", None),
        ("http://x", None),
        ("x", None),
    ] {
        assert_eq!(ldap_port(url), port, "{url}");
    }
}

#[test]
fn each_mistake_about_back_ends_has_its_sentence() {
    let ldap = "\n[users.ldap]\nurl = \"ldaps://x\"\nuser-base = \"dc=x\"\n";
    let errors = |lines: &str, sections: &str| match load(&with_users(lines, sections), &[]) {
        Ok(_) => String::new(),
        Err(errors) => errors,
    };
    for (lines, sections, expected) in [
        (
            "password = [\"ldap\"]",
            "",
            "key users: found \"ldap\" in an order of back-ends, expected a section [users.ldap], which says how it is asked",
        ),
        (
            "groups = []",
            "",
            "key users.groups: found an empty list, expected at least one",
        ),
        (
            "groups = [\"file\", \"file\"]",
            "",
            "key users.groups[1]: found the same again, expected each once",
        ),
        ("groups = [\"nis\"]", "", "users.groups[0]"),
        (
            "realm = \"a@b\"",
            "",
            "key users.realm: found \"a@b\", expected a realm such as \"example.org\"",
        ),
        (
            "",
            &ldap.replace("ldaps://x", "ldap.example.org"),
            "key users.ldap.url: found \"ldap.example.org\", expected \"ldaps://HOST\"",
        ),
        (
            "",
            &format!("{ldap}start-tls = true\n"),
            "key users.ldap.start-tls: found true, expected start-tls with ldap:// alone",
        ),
        (
            "",
            &format!("{ldap}bind-dn = \"cn=x\"\n"),
            "key users.ldap.bind-dn: found one of them, expected both bind-dn and bind-password-file",
        ),
        (
            "",
            &format!("{ldap}user-filter = \"(uid=*)\"\n"),
            "key users.ldap.user-filter: found \"(uid=*)\", expected {name} in it",
        ),
        (
            "",
            &format!("{ldap}timeout = \"6s\"\n"),
            "key users.ldap.timeout: found 6s, expected a duration from 100ms to 5s: half of limits.greeting-timeout",
        ),
        (
            "",
            "\n[users.system]\nservice = \"../x\"\n",
            "key users.system.service: found \"../x\", expected the name of a file in /etc/pam.d",
        ),
        (
            "",
            "\n[users.kerberos]\nkeytab = \"k\"\nrealms = []\n",
            "key users.kerberos.realms: found an empty list, expected at least one",
        ),
        (
            "",
            "\n[users.kerberos]\nkeytab = \"k\"\nrealms = [\"X.ORG\", \"alice@X.ORG\"]\n",
            "key users.kerberos.realms: found \"alice@X.ORG\", expected a realm such as \"EXAMPLE.ORG\"",
        ),
        ("", "\n[users.kerberos]\nrealms = [\"X.ORG\"]\n", "keytab"),
    ] {
        let found = errors(lines, sections);
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn the_control_socket_is_where_the_file_says_or_nowhere() {
    let (dir, config) = load(&format!("{GOOD}\n[control]\nsocket = \"s\"\n"), &[]).unwrap();
    assert_eq!(config.control.socket, Some(dir.path().join("s")));
    assert!(config.control.configured);
    let (_dir, config) = load(&format!("{GOOD}\n[control]\nsocket = \"\"\n"), &[]).unwrap();
    assert_eq!(config.control.socket, None);
}

#[test]
fn metrics_are_told_where_the_file_says_and_nowhere_else() {
    let with = |listen: &str| load(&format!("{GOOD}\n[metrics]\nlisten = \"{listen}\"\n"), &[]);
    let (_dir, config) = load(GOOD, &[]).unwrap();
    assert_eq!(config.metrics, None);
    assert_eq!(with("").unwrap().1.metrics, None);
    let (_dir, config) = with("127.0.0.1:9642").unwrap();
    assert_eq!(config.metrics.unwrap().to_string(), "127.0.0.1:9642");
    let error = with("localhost").unwrap_err();
    assert!(
        error.contains("metrics.listen") && error.contains("\"localhost\""),
        "{error}"
    );
}

#[test]
fn every_section_reaches_what_the_engine_is_told() {
    let text = format!(
        "mark-mask = \"0xff00\"\nserver-number = 16383\ndead-after = \"3s\"\n{GOOD}\n\
         [clients]\nlisten = [\"127.0.0.1:1\"]\nmechanisms = [\"PLAIN\"]\nmax-sessions = 7\nmax-addresses = 3\n\
         address-lease = \"1m\"\nask-margin = \"1s\"\ntell-refusals = true\nrefusals-per-minute = 4\n\
         [log]\ndatabase = \"sqlite:log.db\"\nsync = false\n[limits]\nconnections = 9\ngreetings = 5\n"
    );
    let (dir, config) = load(&text, &[]).unwrap();
    let engine = &config.engine;
    assert_eq!(engine.mark_mask, Mark(0xff00));
    assert_eq!(engine.dead_after, Duration::from_secs(3));
    assert_eq!(
        (engine.sessions, engine.addresses_per_session, engine.connections),
        (7, 3, 9)
    );
    assert_eq!(engine.address_lease, Duration::from_mins(1));
    assert_eq!(engine.ask_margin, Duration::from_secs(1));
    assert_eq!(engine.refusals_told, 4);
    assert!(!engine.log_sync);
    assert_eq!(config.ports.greetings, 5);
    assert_eq!(
        config.log.database.file(),
        Some(dir.path().join("log.db").as_path())
    );
}

#[test]
fn nobody_hears_of_refusals_unless_the_server_may_tell() {
    for (clients, told) in [
        ("", 0),
        ("refusals-per-minute = 4", 0),
        ("tell-refusals = true", 30),
    ] {
        let text = format!("{GOOD}\n[clients]\n{clients}\n[log]\ndatabase = \"sqlite:log.db\"\n");
        assert_eq!(
            load(&text, &[]).unwrap().1.engine.refusals_told,
            told,
            "{clients}"
        );
    }
    let text = format!("{GOOD}\n[clients]\nrefusals-per-minute = 0\n");
    assert!(
        load(&text, &[])
            .unwrap_err()
            .contains("clients.refusals-per-minute")
    );
}

#[test]
fn the_command_line_wins() {
    let sync = Override {
        key: "log.sync",
        value: "false".to_owned(),
        option: "--log-sync",
    };
    assert!(!load(GOOD, std::slice::from_ref(&sync)).unwrap().1.engine.log_sync);
    let wrong = Override {
        value: "maybe".to_owned(),
        ..sync
    };
    assert_eq!(
        load(GOOD, &[wrong]).unwrap_err(),
        "option --log-sync: key log.sync: found string \"maybe\", expected true or false"
    );
}

#[test]
fn each_mistake_has_its_sentence() {
    for (section, lines, expected) in [
        (
            "",
            "mark-mask = 0",
            "key mark-mask: found 0, expected at least one bit for the users' numbers",
        ),
        (
            "",
            "server-number = 16384",
            "key server-number: found 16384, expected a number from 1 to 16383",
        ),
        (
            "",
            "server-number = 0",
            "key server-number: found 0, expected a number from 1 to 16383",
        ),
        (
            "",
            "dead-after = \"100ms\"",
            "key dead-after: found 100ms, expected a duration from 1s to 10m",
        ),
        (
            "gateways",
            "listen = [\"0.0.0.0\"]",
            "key gateways.listen[0]: found string \"0.0.0.0\", expected an address with a port, such as \
             \"0.0.0.0:4128\" or \"[::]:4128\"",
        ),
        (
            "gateways",
            "listen = [\"[::]:1\", \"[::]:1\"]",
            "key gateways.listen[1]: found \"[::]:1\" again, expected each address once",
        ),
        (
            "gateways",
            "listen = []",
            "key gateways.listen: found an empty list, expected at least one address",
        ),
        (
            "clients",
            "listen = [\"0.0.0.0:4128\"]",
            "key clients.listen: found 0.0.0.0:4128, where gateways are listened for, expected another address or \
             port",
        ),
        (
            "clients",
            "mechanisms = [\"CRAM-MD5\"]",
            "key clients.mechanisms[0]: found string \"CRAM-MD5\", expected \"EXTERNAL\", \"GS2-KRB5-PLUS\" (Kerberos), \"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\" or \"PLAIN\"",
        ),
        (
            "clients",
            "max-sessions = 0",
            "key clients.max-sessions: found 0, expected at least 1",
        ),
        (
            "clients",
            "address-lease = \"1s\"",
            "key clients.address-lease: found 1s, expected a duration from 10s to 1d",
        ),
        (
            "log",
            "database = \"postgre://nufw:secret@db/nulog\"",
            "key log.database: found string \"postgre://…@db/nulog\", expected a place such as \
             \"sqlite:/var/lib/nufw/nulog.db\", \"postgres://user@host/database\" or \
             \"mysql://user@host/database\"",
        ),
        (
            "log",
            "database = \"postgres://nufw@db/nulog\"\npassword-file = \"/nonexistent/password\"",
            "key log.password-file: found /nonexistent/password: No such file or directory (os error 2), expected a file \
             whose first line is the password of the database account",
        ),
        (
            "limits",
            "connection = 1",
            "unknown key limits.connection; did you mean connections?",
        ),
        (
            "tls",
            "crl = 5",
            "key tls.crl: found integer 5, expected a string",
        ),
    ] {
        assert_eq!(errors_with(section, lines), [expected], "{lines}");
    }
}

#[test]
fn gateway_names_are_checked() {
    let with = |names: &str| {
        let text = GOOD.replace("names = [\"gw1.example\", \"gw2\"]", &format!("names = {names}"));
        load(&text, &[]).unwrap_err()
    };
    assert_eq!(
        with("[]"),
        "nuauth.toml:3: key gateways.names: found an empty list, expected the name of at least one gateway"
    );
    assert_eq!(
        with("[\"gw1\", \"GW1\"]"),
        "nuauth.toml:3: key gateways.names[1]: found \"GW1\" again, expected each name once"
    );
    assert_eq!(
        with("[\"a b\"]"),
        "nuauth.toml:3: key gateways.names[0]: found string \"a b\", expected a host name of at most 64 letters, \
         digits, dots and hyphens"
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = "server-number = 0\n[gateways]\nnames = [\"gw\"]\nlisten = 5\n[tls]\ncertificate = \"x\"\nkey = 7\n\
                [users]\n[policy]\nfile = \"p\"\n[log]\nsync = 1\n[limits]\nrecent-drops = 0\n";
    assert_eq!(
        load(text, &[]).unwrap_err().lines().collect::<Vec<_>>(),
        [
            "nuauth.toml:1: key server-number: found 0, expected a number from 1 to 16383",
            "nuauth.toml:4: key gateways.listen: found integer 5, expected a list",
            "nuauth.toml:7: key tls.key: found integer 7, expected a string",
            "nuauth.toml:8: key users.file is missing",
            "nuauth.toml:12: key log.sync: found integer 1, expected true or false",
            "nuauth.toml:14: key limits.recent-drops: found 0, expected at least 1",
        ]
    );
    assert_eq!(
        load("", &[]).unwrap_err().lines().collect::<Vec<_>>(),
        ["gateways", "tls", "users", "policy"].map(|key| format!("nuauth.toml: key {key} is missing"))
    );
}

#[test]
fn a_gateway_is_recognised_by_exactly_one_host_name() {
    let (_dir, config) = load(GOOD, &[]).unwrap();
    let names = |dns: &[&str]| PeerNames {
        common_name: Some("gw1.example".to_owned()),
        dns: dns.iter().map(|s| (*s).to_owned()).collect(),
        ..PeerNames::default()
    };
    let recognise = |dns: &[&str]| config.gateways.recognise(&names(dns));
    assert_eq!(recognise(&["GW1.example"]).as_deref(), Some("gw1.example"));
    assert_eq!(recognise(&["other", "gw2"]).as_deref(), Some("gw2"));
    assert_eq!(recognise(&["gw1.example", "gw2"]), None);
    assert_eq!(recognise(&[]), None, "the common name proves no gateway");
}

#[test]
fn the_sample_is_valid() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/nuauth.toml");
    let config = ServerConfig::load(&sample, &[]).unwrap();
    let defaults = engine::Limits::default();
    assert_eq!(config.engine.sessions, defaults.sessions);
    assert_eq!(config.engine.connections, defaults.connections);
    assert!(config.tls.crl.is_some());
}

#[test]
fn user_and_sandbox_are_read_and_a_word_that_is_none_is_refused() {
    use nufw_common::sandbox::Mode;
    let privileges = |lines: &str| {
        let text = format!("{GOOD}\n[privileges]\n{lines}\n");
        load(&text, &[]).unwrap().1.privileges
    };
    let set = privileges("user = \"nuauth\"\nsandbox = \"enforce\"");
    assert_eq!(
        (set.user.as_deref(), set.sandbox),
        (Some("nuauth"), Mode::Enforce)
    );
    let unset = privileges("");
    assert_eq!((unset.user, unset.sandbox), (None, Mode::BestEffort));
    let text = format!("{GOOD}\n[privileges]\nsandbox = \"on\"\n");
    let error = load(&text, &[]).unwrap_err();
    assert!(
        error.contains("enforce") && error.contains("best-effort"),
        "{error}"
    );
}

#[test]
fn levels_are_words_or_a_number_of_nufw() {
    let levels = |line: &str| {
        let text = format!("{GOOD}\n[log]\n{line}\n");
        load(&text, &[]).unwrap().1.engine.levels
    };
    let only = |sessions, drops, connections| engine::Levels {
        sessions,
        drops,
        connections,
    };
    assert_eq!(
        levels("levels = [\"sessions\", \"connections\"]"),
        only(true, false, true)
    );
    assert_eq!(levels("levels = \"drops, connections\""), only(false, true, true));
    assert_eq!(levels("levels = []"), only(false, false, false));
    assert_eq!(levels("levels = 9"), engine::Levels::ALL);
    assert_eq!(levels("levels = \"1\""), only(true, false, false));
    assert_eq!(
        errors_with("log", "levels = [\"drops\", \"opens\"]"),
        ["key log.levels[1]: found string \"opens\", expected \"sessions\", \"drops\" or \"connections\""]
    );
    assert_eq!(
        errors_with("log", "levels = 16"),
        [
            "key log.levels: found integer 16, expected a sum of 1 (sessions), 2 (drops), 4 (connections) and 8 (drops and \
             connections)"
        ]
    );
}

#[test]
fn what_becomes_of_rows_without_room_is_configured() {
    let text = format!(
        "{GOOD}\n[log]\ncommit-timeout = \"3s\"\non-overload = \"drop\"\n[limits]\nwaiting-async = 7\n\
         drops-per-source = 2\ndrops-per-gateway = 3\ndrop-burst = \"4s\"\ndrop-sources = 5\n"
    );
    let limits = load(&text, &[]).unwrap().1.engine;
    assert_eq!(limits.commit_timeout, Duration::from_secs(3));
    assert_eq!(limits.on_overload, engine::OnOverload::Drop);
    assert_eq!((limits.waiting_async, limits.drops_per_source), (7, 2));
    assert_eq!((limits.drops_per_gateway, limits.drop_sources), (3, 5));
    assert_eq!(limits.drop_burst, Duration::from_secs(4));
}

#[test]
fn what_ends_connections_and_what_is_told_are_choices() {
    use engine::{OnEnd, Rejects};
    let (_dir, config) = load(GOOD, &[]).unwrap();
    let limits = &config.engine;
    assert_eq!(
        (limits.on_session_end, limits.on_removal, limits.on_reload),
        (OnEnd::Keep, OnEnd::Keep, OnEnd::Keep)
    );
    assert_eq!(
        (limits.rejects, config.rejects_by_default),
        (Rejects::default(), false)
    );
    let text = format!(
        "{GOOD}on-reload = \"kill\"\n[sessions]\non-end = \"kill\"\ngrace = \"3s\"\non-removal = \"kill\"\n\
         [reject]\non-default = \"reject\"\non-timeout = \"reject\"\non-nobody = \"drop\"\n"
    );
    let (_dir, config) = load(&text, &[]).unwrap();
    let limits = &config.engine;
    assert_eq!(
        (limits.on_session_end, limits.on_removal, limits.on_reload),
        (OnEnd::Kill, OnEnd::Kill, OnEnd::Kill)
    );
    assert_eq!(limits.session_grace, Duration::from_secs(3));
    assert!(config.rejects_by_default && limits.rejects.timeout);
    assert!(!limits.rejects.nobody && !limits.rejects.disclaimed);
    for (section, line, key) in [
        ("sessions", "on-end = \"drop\"", "key sessions.on-end: "),
        ("sessions", "grace = \"2h\"", "key sessions.grace: "),
        ("policy", "on-reload = \"yes\"", "key policy.on-reload: "),
        ("reject", "on-timeout = \"kill\"", "key reject.on-timeout: "),
        ("reject", "on-full = \"reject\"", "unknown key reject.on-full, "),
    ] {
        let errors = errors_with(section, line);
        assert!(
            errors.len() == 1 && errors[0].starts_with(key),
            "{line}: {errors:?}"
        );
    }
}

#[test]
fn counting_and_adopting_are_configured_and_zero_counts_nothing() {
    let limits = load(GOOD, &[]).unwrap().1.engine;
    assert_eq!(
        (limits.counters_every, limits.adopt),
        (Duration::from_mins(1), true)
    );
    let text = format!("{GOOD}\n[log]\nadopt = false\n[limits]\ncounters-every = \"0s\"\n");
    let limits = load(&text, &[]).unwrap().1.engine;
    assert_eq!((limits.counters_every, limits.adopt), (Duration::ZERO, false));
}

#[test]
fn fields_of_the_mark_are_laid_out_and_what_would_collide_is_refused() {
    let with = |marks: &str| load(&format!("{GOOD}\n[marks]\n{marks}\n"), &[]);
    let (_dir, config) = with(
        "user = { shift = 8, width = 16 }\nrule = { shift = 0, width = 4 }\n\
         groups = { shift = 4, width = 2, values = [{ match = \"staff\", value = 3 }] }",
    )
    .unwrap();
    assert_eq!(config.user_mask(), Mark(0xffff));
    assert_eq!(config.engine.user_marks.bits, Mark(0x00ff_ff00));
    for (marks, expected) in [
        (
            "user = { shift = 10, width = 16 }",
            "key marks.user.shift: found bits 0x03fffc00, expected bits of mark-mask 0x00ffffff",
        ),
        (
            "user = { shift = 0, width = 16 }\nrule = { shift = 15, width = 2 }",
            "key marks.rule.shift: found bits 0x00018000, some of them marks.user's, expected bits of its own",
        ),
        (
            "user = { shift = 0, width = 0 }",
            "expected 1 to 32 bits that fit a mark of 32",
        ),
        ("rule = { shift = 0, width = 4 }", "expected marks.user with it"),
        (
            "user = { shift = 0, width = 16 }\nos = { shift = 16, width = 1, values = [{ match = \"linux\", value = 2 }] }",
            "key marks.os.values[0].value: found 2, expected a value from 1 to 1, what 1 bits hold",
        ),
        (
            "user = { shift = 0, width = 16 }\nprograms = { shift = 16, width = 1, values = [{ match = \"/a[\", value = 1 }] }",
            "key marks.programs.values[0].match: found string \"/a[\", expected a pattern",
        ),
    ] {
        let error = with(marks).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let (_dir, config) = load(GOOD, &[]).unwrap();
    assert!(config.watch);
    assert_eq!(config.user_mask(), Mark(0x00ff_ffff));
}
