use super::*;
use clap::CommandFactory as _;
use std::time::Duration;

fn config(arguments: &[&str]) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nufw-agent.toml");
    std::fs::write(
        &file,
        "[server]\naddress = \"from-file\"\n[conntrack]\nrelay = false\n[marks]\nset = false\n",
    )
    .unwrap();
    let file = file.to_str().unwrap().to_owned();
    let cli = Cli::try_parse_from(["nufw-agent", "-f", &file].iter().chain(arguments)).unwrap();
    config::load(cli.options.file.as_deref(), cli.options.overrides()).unwrap()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_command_line_wins_over_the_file() {
    let config = config(&["-d", "other:77", "-q", "3", "-t", "20", "-C", "-m"]);
    assert_eq!(config.server.targets().unwrap()[0].address, "other:77");
    assert_eq!(config.queue.number, 3);
    assert_eq!(config.queue.packet_timeout.0, Duration::from_secs(20));
    assert!(config.conntrack.relays() && !config.conntrack.marked_only && config.marks.set);
}

#[test]
fn nothing_said_changes_nothing() {
    let config = config(&[]);
    assert!(!config.conntrack.relays() && !config.marks.set);
    assert_eq!(config.server.targets().unwrap()[0].address, "from-file:4128");
}

#[test]
fn marked_only_implies_relaying_and_marks() {
    let config = config(&["-M", "-t", "1m"]);
    assert!(config.conntrack.relays() && config.conntrack.marked_only && config.marks.set);
    assert_eq!(config.queue.packet_timeout.0, Duration::from_mins(1));
}

#[test]
fn a_wrong_option_is_named_in_the_complaint() {
    let cli = Cli::try_parse_from(["nufw-agent", "-q", "many"]).unwrap();
    let error = config::load(None, cli.options.overrides())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("-q") && error.contains("queue.number") && error.contains("many"),
        "{error}"
    );
}

#[test]
fn help_teaches_by_examples() {
    let help = Cli::command().render_long_help().to_string();
    for word in [
        "nufw-agent -d nuauth.example",
        "nufw-agent rules --apply",
        "HUP reads",
        "NUFW_LOG",
    ] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
}
