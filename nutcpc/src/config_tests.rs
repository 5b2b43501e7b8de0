//! Two files and a command line: which wins, and what is said of mistakes.

use super::*;
use clap::Parser as _;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new(system: &str, home: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (name, text) in [("system.toml", system), ("home.toml", home)] {
            if !text.is_empty() {
                std::fs::write(place.dir.path().join(name), text).unwrap();
            }
        }
        place
    }

    fn load(&self, args: &[&str]) -> Result<Settings, Failure> {
        let args = Args::try_parse_from(std::iter::once("nutcpc").chain(args.iter().copied())).unwrap();
        let files = Files {
            system: self.dir.path().join("system.toml"),
            home: Some((self.dir.path().join("home.toml"), false)),
            home_dir: Some(PathBuf::from("/home/alice")),
            user: Some("alice".to_owned()),
        };
        load(&args, &files)
    }

    /// Exit code and sentence, without the directory.
    fn error(&self, args: &[&str]) -> (Exit, String) {
        let failure = self.load(args).unwrap_err();
        let directory = format!("{}/", self.dir.path().display());
        (failure.exit, failure.error.to_string().replace(&directory, ""))
    }
}

const ONE: &str = "[[server]]\naddress = \"fw\"\n";

fn labels(settings: &Settings) -> Vec<&str> {
    settings
        .servers
        .iter()
        .map(|server| server.label.as_str())
        .collect()
}

#[test]
fn the_command_line_wins_over_the_home_and_the_home_over_the_system() {
    let system = "user = \"%u\"\nca = \"/etc/ca\"\nstay = true\n[[server]]\naddress = \"fw1\"\n";
    let home = "user = \"bob\"\n[[server]]\naddress = \"fw2:41\"\n[[server]]\naddress = \"fd00::1\"\nca = \"~/ca\"\n";

    let alone = Place::new(system, "").load(&[]).unwrap();
    assert_eq!(labels(&alone), ["fw1:4129"]);
    let server = &alone.servers[0];
    assert_eq!(
        (server.user.as_deref(), server.ca.to_str()),
        (Some("alice"), Some("/etc/ca"))
    );
    assert!(alone.stay && alone.notify.is_none());

    let place = Place::new(system, home);
    let both = place.load(&[]).unwrap();
    assert_eq!(labels(&both), ["fw2:41", "[fd00::1]:4129"]);
    let cas = both.servers.iter().map(|server| server.ca.to_str().unwrap());
    assert_eq!(cas.collect::<Vec<_>>(), ["/etc/ca", "/home/alice/ca"]);
    assert_eq!(both.servers[1].user.as_deref(), Some("bob"));
    assert!(both.stay, "what the home does not say is as the system says");

    let given = place.load(&["-H", "fw3", "-H", "fw4:5", "-p", "9", "-U", "carol", "-A", "x"]);
    assert!(given.is_err(), "two ports for fw4");
    let given = place
        .load(&["-H", "fw3", "-H", "fw4", "-p", "9", "-U", "carol", "-A", "x"])
        .unwrap();
    assert_eq!(labels(&given), ["fw3:9", "fw4:9"]);
    assert!(
        given
            .servers
            .iter()
            .all(|s| s.user.as_deref() == Some("carol") && s.ca.to_str() == Some("x"))
    );
}

#[test]
fn one_file_of_the_system_serves_every_user() {
    let text = format!("user = \"%u\"\npassword-file = \"/run/nufw-login/%u\"\nca = \"~/x%u\"\n{ONE}");
    let settings = Place::new(&text, "").load(&[]).unwrap();
    let server = &settings.servers[0];
    assert_eq!(server.user.as_deref(), Some("alice"));
    assert_eq!(
        server.password_file.as_deref(),
        Some(Path::new("/run/nufw-login/alice"))
    );
    assert_eq!(server.ca, Path::new("/home/alice/x%u"));
}

#[test]
fn one_servers_way_to_log_in_takes_the_place_of_everybodys() {
    let text = "user = \"a\"\npassword-file = \"/p\"\n[[server]]\naddress = \"fw1\"\n\
                [[server]]\naddress = \"fw2\"\ncertificate = \"/c\"\nkey = \"/k\"\n";
    let settings = Place::new("", text).load(&[]).unwrap();
    let [first, second] = &settings.servers[..] else {
        panic!()
    };
    assert!(first.certificate.is_none() && first.password_file.is_some());
    assert!(second.certificate.is_some() && second.password_file.is_none());
    let settings = Place::new("", text).load(&["--password-file", "q"]).unwrap();
    for server in &settings.servers {
        assert_eq!(server.password_file.as_deref(), Some(Path::new("q")));
        assert_eq!(server.certificate, None);
    }
}

#[test]
fn a_mistake_names_file_line_and_key() {
    let cases = [
        (
            "nonsense = 1\n",
            "home.toml:1: unknown key nonsense, expected one of",
        ),
        ("stay = 3\n", "home.toml:1: key stay: found integer 3"),
        ("user = \"a\n", "home.toml:1: not valid TOML"),
        (
            "\n[[server]]\nadress = \"x\"\n",
            "home.toml:3: unknown key server[0].adress",
        ),
        (
            "[[server]]\nname = \"x\"\n",
            "home.toml:1: key server[0].address is missing",
        ),
        (
            "[[server]]\naddress = \"fw:0\"\n",
            "home.toml:2: key server[0].address: found \"fw:0\"",
        ),
        (
            "[[server]]\naddress = \"fw\"\nalso = [\"x\"]\n",
            "home.toml:3: key server[0].also[0]: found \"x\"",
        ),
        (
            &format!("ca = \"ca.crt\"\n{ONE}"),
            "home.toml:1: key ca: found \"ca.crt\", expected a whole path",
        ),
        (
            &format!("{ONE}key = \"/k\"\n"),
            "home.toml:3: key server[0].key: certificate is missing",
        ),
        (
            &format!("certificate = \"/c\"\n{ONE}"),
            "home.toml:1: key certificate: key is missing",
        ),
        (
            &format!("password-file = \"/p\"\nkerberos = true\n{ONE}"),
            "home.toml:2: key kerberos: there is a certificate or a password-file, too: leave one of them out",
        ),
        (
            &format!("certificate = \"/c\"\nkey = \"/k\"\npassword-file = \"/p\"\n{ONE}"),
            "home.toml:3: key password-file: ",
        ),
        (
            &format!("{ONE}{ONE}"),
            "home.toml:4: key server[1].address: fw:4129 is there twice",
        ),
        (
            &format!("ticket-file = \"/t\"\n{ONE}[[server]]\naddress = \"fw2\"\n"),
            "key server[1].ticket-file: /t is another server's",
        ),
        (
            &format!("notify-command = \"./x\"\nnotify = true\n{ONE}"),
            "home.toml:1: key notify-command: found \"./x\"",
        ),
        (
            "allow-override = false\n",
            "home.toml:1: key allow-override: only /etc/nufw/nutcpc.toml",
        ),
    ];
    for (text, expected) in cases {
        let (exit, error) = Place::new("", text).error(&[]);
        assert_eq!(exit, Exit::Config, "{text}: {error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
    let (exit, error) = Place::new("x = 1\n", ONE).error(&[]);
    assert_eq!(
        (exit, error.starts_with("system.toml:1: unknown key x")),
        (Exit::Config, true),
        "{error}"
    );
    let many: Vec<String> = (0..=MAX_SERVERS)
        .map(|i| format!("[[server]]\naddress = \"fw{i}\"\n"))
        .collect();
    let many = many.concat();
    let (_, error) = Place::new("", &many).error(&[]);
    assert_eq!(
        error,
        "home.toml:34: key server[16].address: there are 17 servers, and at most 16 may be"
    );
}

#[test]
fn every_mistake_is_told_and_not_only_the_first() {
    let text = "ca = \"x\"\n[[server]]\naddress = \"fw:0\"\n[[server]]\naddress = \"fw2\"\ncrl = \"y\"\n";
    let (_, error) = Place::new("", text).error(&[]);
    for line in ["home.toml:3:", "home.toml:1:", "home.toml:6:"] {
        assert!(error.contains(line), "{error}");
    }
}

#[test]
fn the_system_may_keep_the_servers_to_itself() {
    let system = format!("allow-override = false\nca = \"/etc/ca\"\n{ONE}");
    let settings = Place::new(&system, "user = \"bob\"\nnotify = true\n")
        .load(&[])
        .unwrap();
    assert_eq!(settings.servers[0].user.as_deref(), Some("bob"));
    assert_eq!(settings.notify.as_deref(), Some(Path::new("notify-send")));
    for (text, line) in [
        (
            "user = \"x\"\n[[server]]\naddress = \"evil\"\n",
            "home.toml:2: key server: ",
        ),
        ("ca = \"/tmp/ca\"\n", "home.toml:1: key ca: "),
        ("crl = \"/tmp/crl\"\n", "home.toml:1: key crl: "),
    ] {
        let (exit, error) = Place::new(&system, text).error(&[]);
        assert_eq!(exit, Exit::Config);
        assert!(error.starts_with(line), "{error}");
    }
    for option in ["--server", "--ca", "--crl"] {
        let (exit, error) = Place::new(&system, "").error(&[option, "x"]);
        assert_eq!(exit, Exit::Usage);
        assert!(
            error.starts_with("system.toml:1: ") && error.contains(option),
            "{error}"
        );
    }
}

#[test]
fn without_a_server_it_says_where_one_could_be_written() {
    let (exit, error) = Place::new("", "").error(&[]);
    assert_eq!(exit, Exit::Usage);
    assert!(
        error.contains("--server") && error.contains("home.toml"),
        "{error}"
    );
}

#[test]
fn what_belongs_to_one_server_is_not_given_for_two() {
    for option in ["--name", "--also"] {
        let (exit, error) = Place::new("", "").error(&["-H", "a", "-H", "b", option, "10.0.0.1"]);
        assert_eq!((exit, error.contains("--also")), (Exit::Usage, true), "{error}");
    }
}

#[test]
fn the_sample_is_loaded_and_says_the_defaults() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/nutcpc.toml");
    let text = std::fs::read_to_string(sample).unwrap();
    let settings = Place::new("", &text).load(&[]).unwrap();
    let plain = "user = \"%u\"\npassword-file = \"~/.config/nufw/password\"\n[[server]]\naddress = \"fw.example.org\"\n";
    assert_eq!(settings, Place::new("", plain).load(&[]).unwrap());
    assert_eq!(
        settings.servers[0].password_file.as_deref(),
        Some(Path::new("/home/alice/.config/nufw/password"))
    );
    // With everything that is commented out: each key exists, and has the value that it has anyway, or one that is good.
    let whole: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") || key == "[[server]]" => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .filter(|line| !line.starts_with("certificate") && !line.starts_with("key"))
        .collect();
    let whole = whole.concat();
    let settings = Place::new(&whole, "").load(&[]).unwrap();
    assert_eq!(labels(&settings), ["fw.example.org:4129", "fw2.example.org:4130"]);
    assert_eq!((settings.stay, settings.notify), (false, None));
}

#[test]
fn a_server_is_a_name_or_an_address_with_or_without_port() {
    let cases = [
        ("fw.example", "fw.example", None),
        ("fw.example:41", "fw.example", Some(41)),
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:41", "10.0.0.1", Some(41)),
        ("fd00::1", "fd00::1", None),
        ("[fd00::1]", "fd00::1", None),
        ("[fd00::1]:41", "fd00::1", Some(41)),
    ];
    for (text, host, port) in cases {
        assert_eq!(host_and_port(text).unwrap(), (host.to_owned(), port), "{text}");
    }
    for wrong in [
        "",
        ":41",
        "fw:",
        "fw:x",
        "fw:0",
        "fw:65536",
        "[fd00::1",
        "[fw]:1",
        "[fd00::1]41",
    ] {
        assert!(host_and_port(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_further_address_is_no_name_and_has_the_servers_port_by_default() {
    assert_eq!(
        further_address("fd00::1", 41).unwrap().to_string(),
        "[fd00::1]:41"
    );
    assert_eq!(
        further_address("[fd00::1]:42", 41).unwrap().to_string(),
        "[fd00::1]:42"
    );
    assert!(further_address("fw.example", 41).is_err());
}

#[test]
fn a_ticket_is_a_way_to_log_in_as_the_others_are() {
    let kerberos = |home: &str, args: &[&str]| -> Vec<bool> {
        let settings = Place::new("", home).load(args).unwrap();
        settings.servers.iter().map(|server| server.kerberos).collect()
    };
    assert_eq!(kerberos(ONE, &["--kerberos"]), [true]);
    let two = "password-file = \"/p\"\n[[server]]\naddress = \"fw1\"\n[[server]]\naddress = \"fw2\"\nkerberos = true\n";
    assert_eq!(kerberos(two, &[]), [false, true]);
    assert_eq!(kerberos(two, &["--password-file", "q"]), [false, false]);
    let other = "kerberos = true\n[[server]]\naddress = \"fw1\"\nkerberos = false\nuser = \"a\"\n[[server]]\naddress = \"fw2\"\n\
                 [[server]]\naddress = \"fw3\"\npassword-file = \"/p\"\n";
    assert_eq!(kerberos(other, &[]), [false, true, false]);
}
