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
            "[marks]\nreject-bit = \"0x00000001\"\n",
            "nufw-agent.toml:2: key marks.reject-bit: found 0x00000001, expected one bit outside of marks.mask (0x00ffffff)",
        ),
    ];
    for (text, expected) in cases {
        let complaint = complaint(text);
        assert!(
            complaint.starts_with(expected),
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
            .target()
            .unwrap_err()
            .to_string()
            .contains("key server.address is missing")
    );
    assert_eq!(config.server_address(), None);
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
        assert_eq!(config.target().unwrap().address, expected);
    }
}

#[test]
fn marked_only_brings_what_it_stands_on() {
    let (_dir, path) = write("[conntrack]\nrelay = false\nmarked-only = true\n[marks]\nset = false\n");
    let config = load(Some(&path), Overrides::new()).unwrap();
    assert!(config.conntrack.relay && config.marks.set);
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
