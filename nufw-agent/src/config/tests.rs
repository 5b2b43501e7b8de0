use super::*;
use std::fs;

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nufw-agent.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn complaint(text: &str) -> String {
    let (dir, path) = write(text);
    let error = load(Some(&path), Overrides::new()).unwrap_err().to_string();
    error.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn the_sample_is_valid_and_says_the_defaults() {
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/nufw-agent.toml"));
    let sample = load(Some(sample), Overrides::new()).unwrap();
    let (_dir, path) = write("[server]\naddress = \"nuauth.example:4128\"\n");
    let plain = load(Some(&path), Overrides::new()).unwrap();
    let bare = |config: &Config| {
        let mut config = config.clone();
        for path in [
            &mut config.tls.ca,
            &mut config.tls.certificate,
            &mut config.tls.key,
        ] {
            *path = path.file_name().unwrap().into();
        }
        config.file = PathBuf::new();
        format!("{config:?}")
    };
    assert_eq!(bare(&sample), bare(&plain));
}

#[test]
fn every_key_that_the_sample_offers_exists() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/nufw-agent.toml")).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) && key.contains(" = ") => key,
            _ => line,
        })
        .fold(String::new(), |all, line| all + line + "\n");
    assert!(
        uncommented.contains("\ncrl = ") && uncommented.contains("\nname = "),
        "{uncommented}"
    );
    let (_dir, path) = write(&uncommented);
    let config = load(Some(&path), Overrides::new()).unwrap();
    assert_eq!(config.tls.crl, Some(path.with_file_name("ca.crl")));
    assert_eq!(config.tls.key, path.with_file_name("agent.key"));
}

#[test]
fn complaints_name_file_line_and_key() {
    let cases = [
        (
            "[server]\naddress = \"x\"\n[queue]\nnumber = \"abc\"\n",
            "nufw-agent.toml:4: key queue.number: found string \"abc\", expected",
        ),
        (
            "[queue]\nnumber = 65536\n",
            "nufw-agent.toml:2: key queue.number:",
        ),
        ("[queue]\nnumbr = 1\n", "nufw-agent.toml:2: "),
        (
            "[conntrack]\naccept-src = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\n",
            "nufw-agent.toml:2: key conntrack.accept-src: found \"10.0.0.0/33\", expected a network or an address",
        ),
        (
            "[conntrack]\naccept-proto = [\"tpc\"]\n",
            "nufw-agent.toml:2: key conntrack.accept-proto: found \"tpc\", expected tcp, udp, ",
        ),
        (
            "[queue]\ncount = 65\n",
            "nufw-agent.toml:2: key queue.count: found 65, expected a number from 1 to 64",
        ),
        (
            "[queue]\nnumber = 65530\ncount = 7\n",
            "nufw-agent.toml:3: key queue.count: found 7, expected a number from 1 to 6",
        ),
        (
            "[queue]\ncount = 4\nzones = [1, 2]\n",
            "nufw-agent.toml:3: key queue.zones: found [1, 2], expected one conntrack zone for all queues, or one for each of the 4",
        ),
        (
            "[queue]\npacket-timeout = \"1s\"\n",
            "nufw-agent.toml:2: key queue.packet-timeout: found 1s, expected a time from 3s to 5m",
        ),
        (
            "[queue]\ncopy-range = 20\n",
            "nufw-agent.toml:2: key queue.copy-range: found 20, expected a number from 80 to 65535",
        ),
        (
            "[server]\naddress = \"a:b:c\"\n",
            "nufw-agent.toml:2: key server.address: found \"a:b:c\", expected a host name",
        ),
        (
            "[server]\naddress = \"host:0\"\n",
            "nufw-agent.toml:2: key server.address:",
        ),
        (
            "[server]\naddress = \"h\"\nname = \"not a name\"\n",
            "nufw-agent.toml:3: key server.name: found \"not a name\", expected",
        ),
        ("[marks]\nmask = 0\n", "nufw-agent.toml:2: key marks.mask:"),
        (
            "[metrics]\nlisten = \"localhost\"\n",
            "nufw-agent.toml:2: key metrics.listen: found \"localhost\", expected an address and port",
        ),
        (
            "[status]\nsocket = \"agent.sock\"\n",
            "nufw-agent.toml:2: key status.socket: found \"agent.sock\", expected the whole path",
        ),
        (
            "[marks]\nreject-bit = \"0x00000001\"\n",
            "nufw-agent.toml:2: key marks.reject-bit: found 0x00000001, expected one bit outside of marks.mask (0x00ffffff)",
        ),
        (
            "[marks]\nkill-bit = \"0x01000000\"\n",
            "nufw-agent.toml:2: key marks.kill-bit: found 0x01000000, expected one bit outside of marks.mask (0x00ffffff)",
        ),
        (
            "[server]\naddress = [\"a\", \"b\", \"c\"]\nname = [\"a\", \"b\"]\n",
            "nufw-agent.toml:3: key server.name: found 2 names for 3 servers, expected one name for all",
        ),
        (
            "[server]\naddress = \"a\"\nreturn-after = \"0s\"\n",
            "nufw-agent.toml:3: key server.return-after: found 0s, expected a time from 1s",
        ),
        (
            "[queue]\non-agent-loss = \"pass\"\n",
            "nufw-agent.toml:2: key queue.on-agent-loss: found string \"pass\", expected",
        ),
        (
            "[queue]\non-agent-loss = \"accept\"\n[marks]\nblind-bit = 0\n",
            "nufw-agent.toml:4: key marks.blind-bit: found 0x00000000, expected one bit outside of marks.mask (0x00ffffff) and marks.reject-bit",
        ),
        (
            "[marks]\nblind-bit = \"0x01000000\"\n",
            "nufw-agent.toml:2: key marks.blind-bit: found 0x01000000, expected one bit",
        ),
        (
            "[rules]\nhooks = [\"outside\"]\n",
            "nufw-agent.toml:2: key rules.hooks",
        ),
        (
            "[rules]\nwatch = \"10ms\"\n",
            "nufw-agent.toml:2: key rules.watch: found 10ms, expected at least 1s",
        ),
    ];
    are_told(&cases);
}

fn are_told(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let complaint = complaint(text);
        assert!(
            complaint.starts_with(*expected),
            "{complaint:?}\ninstead of {expected:?}"
        );
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    let complaint = complaint("[queue]\nlength = 0\n[marks]\nmask = 0\n");
    assert_eq!(complaint.lines().count(), 2, "{complaint}");
}

#[test]
fn a_server_is_needed_to_run_only() {
    let (_dir, path) = write("");
    let config = load(Some(&path), Overrides::new()).unwrap();
    assert!(
        config
            .server
            .targets()
            .unwrap_err()
            .to_string()
            .contains("key server.address is missing")
    );
    assert_eq!(config.server.addresses().next(), None);
}

#[test]
fn addresses_may_lack_the_port() {
    for (address, expected) in [
        ("nuauth.example", "nuauth.example:4128"),
        ("nuauth.example:99", "nuauth.example:99"),
        ("192.0.2.1", "192.0.2.1:4128"),
        ("2001:db8::1", "[2001:db8::1]:4128"),
        ("[2001:db8::1]", "[2001:db8::1]:4128"),
        ("[2001:db8::1]:7", "[2001:db8::1]:7"),
    ] {
        let (_dir, path) = write(&format!("[server]\naddress = \"{address}\"\n"));
        let config = load(Some(&path), Overrides::new()).unwrap();
        assert_eq!(config.server.targets().unwrap()[0].address, expected);
    }
}

#[test]
fn several_servers_are_a_list_or_a_text_with_commas_the_best_first() {
    for text in [
        "address = [\"a\", \"b:77\"]\nname = \"nuauth.example\"",
        "address = \"a, b:77\"\nname = [\"nuauth.example\", \"nuauth.example\"]",
    ] {
        let (_dir, path) = write(&format!("[server]\n{text}\n"));
        let config = load(Some(&path), Overrides::new()).unwrap();
        let targets = config.server.targets().unwrap();
        let addresses: Vec<_> = targets.iter().map(|target| target.address.as_str()).collect();
        assert_eq!(addresses, ["a:4128", "b:77"]);
        for target in &targets {
            assert_eq!(target.name.to_str(), "nuauth.example");
        }
    }
}

#[test]
fn nothing_speaks_of_blind_connections_where_nothing_may_be_blind() {
    let settings = |text: &str| {
        let (_dir, path) = write(text);
        let config = load(Some(&path), Overrides::new()).unwrap();
        let fails_open = config.queue_options().fail_open;
        (
            config.settings().blind_bit,
            config.rules(Vec::new()).blind_bit,
            config.interest(),
            fails_open,
        )
    };
    let marked = "[conntrack]\nmarked-only = true\n";
    assert_eq!(
        settings(marked),
        (Mark(0), 0, Interest::Marked(Mark(0x00ff_ffff)), false)
    );
    let bit = 0x0400_0000;
    for (choice, fails_open) in [
        ("server-loss", false),
        ("queue-full", true),
        ("agent-loss", false),
    ] {
        let text = format!("{marked}[queue]\non-{choice} = \"accept\"\n");
        assert_eq!(
            settings(&text),
            (
                Mark(bit),
                bit,
                Interest::Marked(Mark(0x00ff_ffff | bit)),
                fails_open
            )
        );
    }
}

#[test]
fn marked_only_brings_what_it_stands_on() {
    let (_dir, path) = write("[conntrack]\nrelay = false\nmarked-only = true\n[marks]\nset = false\n");
    let config = load(Some(&path), Overrides::new()).unwrap();
    assert!(config.conntrack.relays() && config.marks.set);
    assert_eq!(config.interest(), Interest::Marked(Mark(0x00ff_ffff)));
}

#[test]
fn without_relay_there_is_no_event_socket() {
    let (_dir, path) = write("[conntrack]\nrelay = false\n");
    assert!(
        load(Some(&path), Overrides::new())
            .unwrap()
            .event_options()
            .is_none()
    );
}

#[test]
fn the_agent_is_watched_where_the_file_says() {
    let places = |text: &str| {
        let (_dir, path) = write(text);
        load(Some(&path), Overrides::new()).unwrap().places()
    };
    let usual = places("");
    assert_eq!(usual.metrics, None);
    assert_eq!(usual.status.as_deref(), Some(Path::new(observe::DEFAULT_SOCKET)));
    assert!(!usual.status_named);
    let set = places("[metrics]\nlisten = \"unix:/run/x.sock\"\n[status]\nsocket = \"\"\n");
    assert_eq!(set.metrics, Some(Place::Unix(PathBuf::from("/run/x.sock"))));
    assert_eq!((set.status, set.status_named), (None, true));
    assert_eq!(places("[metrics]\nlisten = \"\"\n").metrics, None);
}

#[test]
fn events_and_flags_exclude_each_other_and_flags_need_marks_and_the_forward_hook() {
    let said = |text: &str| {
        let (_dir, path) = write(&format!("[server]\naddress = \"x\"\n{text}"));
        load(
            Some(&path),
            vec![("conntrack.track-by-flags", "true".to_owned(), "--track-by-flags")],
        )
        .map(|config| (config.conntrack.relays(), config.settings().flags_queue))
        .map_err(|error| error.to_string())
    };
    assert_eq!(said("[queue]\nnumber = 3\ncount = 2\n"), Ok((false, Some(5))));
    assert_eq!(said("[conntrack]\nrelay = false\n"), Ok((false, Some(1))));
    for (text, key, expected) in [
        ("[conntrack]\nrelay = true\n", "conntrack.relay", "one of them"),
        (
            "[conntrack]\nmarked-only = true\n",
            "conntrack.marked-only",
            "one of them",
        ),
        ("[marks]\nset = false\n", "marks.set", "by their marks"),
        (
            "[rules]\nhooks = [\"forward\", \"input\"]\n",
            "rules.hooks",
            "[\"forward\"]",
        ),
        ("[queue]\ncount = 2\nzones = [1, 2]\n", "queue.zones", "one zone"),
        ("[queue]\nnumber = 65535\n", "queue.number", "leaves a number"),
    ] {
        let error = said(text).unwrap_err();
        assert!(error.contains(key) && error.contains(expected), "{error}");
    }
    let (_dir, path) = write("[server]\naddress = \"x\"\n");
    let config = load(Some(&path), Overrides::new()).unwrap();
    assert_eq!(
        (config.conntrack.relays(), config.settings().flags_queue),
        (true, None)
    );
}
