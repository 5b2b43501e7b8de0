use super::*;
use std::path::Path;

fn load(text: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nulog.toml");
    std::fs::write(&file, text).unwrap();
    Settings::load(Some(&file), Vec::new()).map_err(|error| error.to_string())
}

/// The sample with its commented keys, as they would be uncommented.
#[test]
fn the_sample_shows_the_defaults() {
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/nulog.toml"));
    let text = std::fs::read_to_string(sample).unwrap();
    let as_it_is = load(&text).unwrap();
    let is_key = |key: &str| {
        key.split_once(" = \"").is_some_and(|(name, value)| {
            name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                && !value.contains("password")
                && !value.contains("//")
        })
    };
    let shown: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|key| is_key(key)).unwrap_or(line))
        .collect();
    for settings in [as_it_is, load(&shown.join("\n")).unwrap()] {
        assert_eq!(
            settings.location.file(),
            Some(Path::new("/var/lib/nufw/nulog.db"))
        );
        assert_eq!(settings.socket, Path::new("/run/nufw/nuauth.sock"));
        assert_eq!(
            (settings.grace, settings.timeout, settings.watch),
            (GRACE, TIMEOUT, WATCH)
        );
    }
}

#[test]
fn a_timeout_that_would_close_live_rows_is_refused_by_key() {
    let error = load("[clean]\ntimeout = \"10s\"\n").unwrap_err();
    assert!(
        error.ends_with("nulog.toml:2: key clean.timeout: found 10s, expected a time from 5m to 364d"),
        "{error}"
    );
}
