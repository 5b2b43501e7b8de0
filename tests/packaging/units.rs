//! The units: understood by systemd, explained line by line, and let do what the daemons need.

use super::{project, skipped};
use std::path::PathBuf;
use std::process::Command;

/// Sections' lines that need no reason: what they do is their name.
const PLAIN: [&str; 20] = [
    "Description",
    "Documentation",
    "After",
    "Wants",
    "WantedBy",
    "Type",
    "ExecStart",
    "ExecReload",
    "IOSchedulingClass",
    "StateDirectory",
    "RuntimeDirectoryMode",
    "RuntimeDirectoryPreserve",
    "Group",
    "SystemCallFilter",
    "SystemCallErrorNumber",
    "RestartSec",
    "StateDirectoryMode",
    "OnBootSec",
    "OnCalendar",
    "ExecStartPost",
];

fn units() -> Vec<PathBuf> {
    let mut units: Vec<PathBuf> = std::fs::read_dir(project().join("conf/systemd"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "service"))
        .collect();
    units.sort();
    assert_eq!(units.len(), 6, "{units:?}");
    units
}

#[test]
fn every_line_that_takes_something_away_says_why() {
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let mut before = "";
        for line in text.lines() {
            let name = line.split('=').next().unwrap_or_default();
            let setting = line.contains('=') && !line.starts_with('#');
            if setting && !PLAIN.contains(&name) {
                assert!(
                    before.starts_with('#'),
                    "{}: {line} has no reason above it",
                    unit.display()
                );
            }
            before = line;
        }
    }
}

#[test]
fn a_unit_whose_configuration_is_missing_starts_nothing() {
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let words = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .unwrap();
        let mut words = words.split_whitespace();
        let configuration = words
            .find(|word| ["--config", "-f"].contains(word))
            .and_then(|_| words.next());
        if let Some(configuration) = configuration {
            let condition = format!("ConditionPathExists={configuration}");
            assert!(
                text.lines().any(|line| line == condition),
                "{}: {condition}",
                unit.display()
            );
        }
    }
}

#[test]
fn daemons_may_confine_themselves_and_are_watched() {
    for name in ["nuauth-server", "nufw-agent"] {
        let unit = project().join(format!("conf/systemd/{name}.service"));
        let text = std::fs::read_to_string(unit).unwrap();
        for line in ["Type=notify", "WatchdogSec=30s", "NoNewPrivileges=yes"] {
            assert!(text.lines().any(|found| found == line), "{name}: {line}");
        }
        // In no set of calls before systemd 256.
        for call in [
            "landlock_create_ruleset",
            "landlock_add_rule",
            "landlock_restrict_self",
            "seccomp",
            "memfd_create",
        ] {
            let allowed = text
                .lines()
                .filter_map(|line| line.strip_prefix("SystemCallFilter="))
                .any(|calls| calls.split(' ').any(|word| word == call));
            assert!(allowed, "{name}: {call} is not let through");
        }
    }
}

#[test]
fn systemd_understands_every_unit() {
    let Some(analyze) = lab::in_path("systemd-analyze") else {
        skipped("needs systemd-analyze: apt-get install systemd");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    // The user's unit is verified as one of the system too: `--user` goes with no root of one's own.
    let directory = root.path().join("usr/lib/systemd/system");
    std::fs::create_dir_all(&directory).unwrap();
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        std::fs::copy(&unit, directory.join(unit.file_name().unwrap())).unwrap();
        // The program has to be there for the unit to be right.
        for command in text.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let program = command.split_whitespace().next().unwrap();
            let program = root.path().join(program.trim_start_matches('/'));
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::copy("/bin/true", program).unwrap();
        }
    }
    for target in [
        "sysinit",
        "basic",
        "shutdown",
        "multi-user",
        "default",
        "network-online",
    ] {
        let target = directory.join(format!("{target}.target"));
        std::fs::write(target, "[Unit]\nDescription=One of systemd's own\n").unwrap();
    }
    for program in ["bin/kill", "bin/chgrp"] {
        std::fs::create_dir_all(root.path().join("bin")).unwrap();
        std::fs::copy("/bin/true", root.path().join(program)).unwrap();
    }
    for unit in units() {
        let output = Command::new(&analyze)
            .args(["verify", "--man=no", "--recursive-errors=one"])
            .arg(format!("--root={}", root.path().display()))
            .arg(unit.file_name().unwrap())
            .current_dir(unit.parent().unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(".service:") || line.contains(".service "))
            .collect();
        assert!(
            output.status.success() && complaints.is_empty(),
            "{}: {said}",
            unit.display()
        );
    }
}
