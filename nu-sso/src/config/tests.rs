use super::*;

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nu-sso.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn complaint(text: &str) -> String {
    let (dir, path) = write(text);
    let error = load(Some(&path), Overrides::new()).unwrap_err().to_string();
    error.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn the_sample_is_valid_and_says_the_defaults() {
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/nu-sso.toml"));
    let sample = load(Some(sample), Overrides::new()).unwrap();
    let (_dir, path) = write("");
    let plain = load(Some(&path), Overrides::new()).unwrap();
    assert_eq!(format!("{sample:?}"), format!("{plain:?}"));
}

#[test]
fn complaints_name_file_line_and_key() {
    let cases = [
        (
            "[serve]\nlisten = [\"unix:run/x\"]",
            "nu-sso.toml:2: key serve.listen[0]: found \"unix:run/x\"",
        ),
        (
            "[serve]\nlisten = []",
            "nu-sso.toml:2: key serve.listen: found an empty list",
        ),
        (
            "[serve]\nallow-from = [\"10.0.0.0/33\"]",
            "nu-sso.toml:2: key serve.allow-from[0]: found \"10.0.0.0/33\"",
        ),
        (
            "[serve]\nallow-users = [\"99999999999\"]",
            "nu-sso.toml:2: key serve.allow-users[0]: found \"99999999999\"",
        ),
        (
            "[serve]\nsocket-mode = \"660\"",
            "nu-sso.toml:2: key serve.socket-mode: found \"660\"",
        ),
        (
            "[serve]\nuser-header = \"X Remote\"",
            "nu-sso.toml:2: key serve.user-header: found \"X Remote\"",
        ),
        (
            "[serve]\nmax-connections = 0",
            "nu-sso.toml:2: key serve.max-connections: found 0",
        ),
        (
            "[log]\nconnections = 65",
            "nu-sso.toml:2: key log.connections: found 65, expected a number from 1 to 64",
        ),
        (
            "[log]\ndatabase = \"x\"",
            "nu-sso.toml:2: key log.database: found \"x\"",
        ),
        (
            "[lookup]\nretry = \"3s\"",
            "key lookup.timeout: found 2s, expected longer than lookup.retry, 3s",
        ),
        (
            "[server]\nsocket = \"run/x\"",
            "nu-sso.toml:2: key server.socket: found \"run/x\"",
        ),
        (
            "[server]\nsocket = \"/run/x\"\n[lookup]\nretry = \"1s\"",
            "key lookup.timeout: found 2s, expected longer than twice lookup.retry, 1s",
        ),
        (
            "[log]\npassword-file = \"/nonexistent/p\"",
            "nu-sso.toml:2: key log.password-file: found /nonexistent/p: No such file",
        ),
        (
            "[log]\ndatabase = \"postgres://u:s3cret@db/n?x=1\"",
            "nu-sso.toml:2: key log.database: found \"postgres://…@db/n?…\"",
        ),
        (
            "[lookup]\nretries = 3",
            "nu-sso.toml:2: unknown key lookup.retries, expected one of retry, timeout",
        ),
        (
            "[squid]\nmax-in-flight = 5000",
            "nu-sso.toml:2: key squid.max-in-flight: found 5000",
        ),
    ];
    for (text, expected) in cases {
        let found = complaint(text);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    let (_dir, path) = write("[serve]\nlisten = [\"127.0.0.1:1\"]\n");
    let overrides = vec![("log.database", "sqlite:/x/y.db".to_owned(), "--database")];
    let config = load(Some(&path), overrides).unwrap();
    assert_eq!(config.database.to_string(), "sqlite:/x/y.db");
    assert_eq!(config.serve.listen, [Place::Tcp("127.0.0.1:1".parse().unwrap())]);
}

#[test]
fn names_of_accounts_become_numbers() {
    let accounts =
        "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nbad\n";
    assert_eq!(uid_of(accounts, "www-data"), Some(33));
    assert_eq!(uid_of(accounts, "www"), None);
    assert_eq!(uid_of(accounts, "bad"), None);
}
