//! A mistake in a configuration file ends the program before anything is opened, with `EX_CONFIG` and the file, the line,
//! the key, what was found and what was expected.

use anyhow::Result;
use lab::{Lab, Options, with_lab};
use std::path::Path;
use std::process::Command;

/// sysexits: `EX_CONFIG`.
const CONFIG: i32 = 78;

#[test]
fn of_the_server() {
    with_lab(Options::prepared(), |lab| {
        let file = lab.dir().join("nuauth.toml");
        for (line, key, parts) in [
            ("server-number = \"one\"", "server-number", ["\"one\"", "integer"]),
            ("server-number = 20000", "server-number", ["20000", "16383"]),
            ("dead-after = \"soon\"", "dead-after", ["soon", "15s"]),
            ("mark-mask = 0", "mark-mask", ["0", "mask"]),
            ("no-such-key = 1", "no-such-key", ["unknown", "no-such-key"]),
        ] {
            first_line(
                lab,
                &file,
                line,
                || lab.server_command(),
                &["nuauth.toml:1", key, parts[0], parts[1]],
            )?;
        }
        assert!(!lab.database().exists(), "something was opened");
        Ok(())
    });
}

#[test]
fn of_the_agent() {
    with_lab(Options::prepared(), |lab| {
        let file = lab.dir().join("nufw-agent.toml");
        let replaced = |text: &str, from: &str, to: &str| text.replace(from, to);
        let good = std::fs::read_to_string(&file)?;
        for (from, to, parts) in [
            ("number = 0", "number = 70000", ["queue.number", "70000", "65535"]),
            (
                "number = 0",
                "number = \"abc\"",
                ["queue.number", "abc", "integer"],
            ),
            ("number = 0", "nummer = 0", ["queue.nummer", "unknown", "number"]),
            (
                "relay = true",
                "relay = \"maybe\"",
                ["conntrack.relay", "maybe", "true or false"],
            ),
        ] {
            let bad = replaced(&good, from, to);
            assert_ne!(bad, good, "the sample has no `{from}`");
            std::fs::write(&file, &bad)?;
            let line = bad
                .lines()
                .position(|line| line.contains(to))
                .map_or(0, |index| index + 1);
            let place = format!("nufw-agent.toml:{line}");
            complains(lab.agent_command(), &[&place, parts[0], parts[1], parts[2]])?;
        }
        Ok(())
    });
}

#[test]
fn of_users_and_policy() {
    with_lab(Options::prepared(), |lab| {
        let users = lab.dir().join("users.toml");
        let good = std::fs::read_to_string(&users)?;
        std::fs::write(
            &users,
            format!("{good}\n[[user]]\nname = \"carol\"\nid = \"x\"\n"),
        )?;
        complains(lab.server_command(), &["users.toml:", "id", "\"x\"", "integer"])?;
        // Two users with one mark could not be told apart.
        std::fs::write(
            &users,
            format!("{good}\n[[user]]\nname = \"carol\"\nid = 7\nmark = 1001\n"),
        )?;
        complains(lab.server_command(), &["users.toml:", "mark", "1001", "alice"])?;
        // A mark that does not fit under the mask is refused, never cut.
        std::fs::write(
            &users,
            format!("{good}\n[[user]]\nname = \"carol\"\nid = 7\nmark = 0x1000007\n"),
        )?;
        complains(lab.server_command(), &["users.toml:", "mark"])?;
        std::fs::write(&users, good)?;

        let policy = lab.dir().join("policy.toml");
        for (line, parts) in [
            ("ports = [\"90-80\"]", ["ports", "90-80"]),
            ("source = [\"10.0.0.0/33\"]", ["source", "10.0.0.0/33"]),
            ("protocol = \"tcpp\"", ["protocol", "tcpp"]),
            ("decision = \"perhaps\"", ["decision", "perhaps"]),
        ] {
            let decision = if line.starts_with("decision") {
                ""
            } else {
                "decision = \"accept\"\n"
            };
            let protocol = if line.starts_with("protocol") {
                ""
            } else {
                "protocol = \"tcp\"\n"
            };
            std::fs::write(
                &policy,
                format!("[[rule]]\nname = \"bad\"\n{line}\n{protocol}{decision}"),
            )?;
            complains(lab.server_command(), &["policy.toml:3", parts[0], parts[1]])?;
        }
        Ok(())
    });
}

/// Puts a line before the good file, runs the program, and puts the file back.
fn first_line(
    lab: &Lab,
    file: &Path,
    line: &str,
    command: impl Fn() -> Command,
    parts: &[&str],
) -> Result<()> {
    let good = std::fs::read_to_string(file)?;
    let key = line.split(' ').next().unwrap_or_default();
    let rest: Vec<_> = good
        .lines()
        .filter(|other| !other.starts_with(&format!("{key} ")))
        .collect();
    let rest = rest.join("\n");
    std::fs::write(lab.dir().join(file), format!("{line}\n{rest}\n"))?;
    let result = complains(command(), parts);
    std::fs::write(file, good)?;
    result
}

fn complains(mut command: Command, parts: &[&str]) -> Result<()> {
    for check in [false, true] {
        if check {
            command.arg("check");
        }
        let output = command.output()?;
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        assert_eq!(output.status.code(), Some(CONFIG), "{said}");
    }
    Ok(())
}
