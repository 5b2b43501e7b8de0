//! Every dependency has a licence that deny.toml allows.
//!
//! The same list as `cargo deny check licenses` reads, for machines without cargo-deny.

use std::path::Path;
use std::process::Command;

#[test]
fn every_dependency_is_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let deny: toml::Table = std::fs::read_to_string(root.join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let allowed: Vec<&str> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|licence| licence.as_str().unwrap())
        .collect();

    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "only {} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .map(|package| {
            let licence = package["license"].as_str().unwrap_or("none stated");
            (
                licence,
                format!("{} {}: {licence}", package["name"], package["version"]),
            )
        })
        .filter(|(licence, _)| !is_allowed(licence, &allowed))
        .map(|(_, text)| text)
        .collect();
    assert!(
        refused.is_empty(),
        "licences that deny.toml does not allow: {refused:#?}"
    );
}

/// SPDX expressions as packages use them: `A OR B`, `(A OR B) AND C`, and the old `A/B`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    split(expression, " AND ").iter().all(|part| {
        let part = part.trim();
        let inner = part.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        match inner {
            Some(inner) => is_allowed(inner, allowed),
            None => part
                .replace('/', " OR ")
                .split(" OR ")
                .any(|licence| allowed.contains(&licence.trim())),
        }
    })
}

/// Splits outside parentheses.
fn split<'a>(expression: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(separator) => {
                parts.push(&expression[start..at]);
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "MIT/Apache-2.0",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "(MIT OR Apache-2.0) AND OpenSSL",
        "none stated",
        "",
    ] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
