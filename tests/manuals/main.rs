//! Manual pages and completions say what the command lines say: they are made of them, lie in docs/man and docs/completions, and
//! are compared here. `NUFW_WRITE_MANUALS=1 cargo test -p nufw-e2e --test manuals` writes them anew.

#![cfg(test)]

use clap::Command;
use clap_complete::Shell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every program that is installed, with the section of its manual page.
fn programs() -> Vec<(Command, &'static str)> {
    vec![
        (nuauth_server::cli::command(), "8"),
        (nuauth_server::ctl::command(), "8"),
        (nufw_agent::command(), "8"),
        (nulog_tools::clean::command(), "8"),
        (nulog_tools::rotate::command(), "8"),
        (nulog_tools::search::command(), "1"),
        (nu_sso::command(), "8"),
        (nutcpc::command(), "1"),
        (nutop::command(), "1"),
    ]
}

/// A page of the program, and one for each of its commands, as git has them.
fn pages(command: &Command, section: &str, pages: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let mut text = Vec::new();
    // The version is in the header of every page: it changes with a release, and the pages do with it.
    clap_mangen::Man::new(command.clone())
        .section(section)
        .manual("NuFW")
        .render(&mut text)
        .unwrap();
    pages.insert(Path::new("docs/man").join(format!("{name}.{section}")), text);
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        let sub = sub.clone().display_name(format!("{name}-{}", sub.get_name()));
        self::pages(&sub, section, pages);
    }
}

fn made() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut made = BTreeMap::new();
    for (mut command, section) in programs() {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
            let file = match shell {
                Shell::Bash => format!("bash/{name}"),
                Shell::Zsh => format!("zsh/_{name}"),
                _ => format!("fish/{name}.fish"),
            };
            made.insert(Path::new("docs/completions").join(file), text);
        }
        command.build();
        pages(&command, section, &mut made);
    }
    made
}

#[test]
fn pages_and_completions_are_those_of_the_command_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let writes = std::env::var_os("NUFW_WRITE_MANUALS").is_some();
    let made = made();
    let mut wrong = Vec::new();
    for (path, text) in &made {
        let file = root.join(path);
        if writes {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, text).unwrap();
        }
        if std::fs::read(&file).is_ok_and(|found| found == *text) {
            continue;
        }
        wrong.push(path.display().to_string());
    }
    assert!(
        wrong.is_empty(),
        "not as the command lines say; run NUFW_WRITE_MANUALS=1 cargo test -p nufw-e2e --test manuals:\n{}",
        wrong.join("\n")
    );
    for directory in [
        "docs/man",
        "docs/completions/bash",
        "docs/completions/zsh",
        "docs/completions/fish",
    ] {
        for file in std::fs::read_dir(root.join(directory)).unwrap() {
            let path = file.unwrap().path();
            let known = path.strip_prefix(root).unwrap();
            assert!(
                made.contains_key(known),
                "{} is of no program: remove it",
                path.display()
            );
        }
    }
}

#[test]
fn every_program_that_is_packaged_has_a_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let named: Vec<String> = programs()
        .iter()
        .map(|(command, _)| command.get_name().to_owned())
        .collect();
    for package in [
        "nuauth-server",
        "nufw-agent",
        "nutcpc",
        "nu-sso",
        "nutop",
        "sql/tools",
    ] {
        let text = std::fs::read_to_string(root.join(package).join("Cargo.toml")).unwrap();
        for line in text.lines().filter(|line| line.contains("[\"target/release/")) {
            let program = line.split(['/', '"']).nth(3).unwrap();
            assert!(
                named.contains(&program.to_owned()),
                "{program} of {package} has no manual page"
            );
        }
    }
}
