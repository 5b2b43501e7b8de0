//! Every query of the dashboard and of the alerts names metrics and labels that the daemons tell.
//!
//! Reads the files of `conf/` as they are installed and compares them with the tables of the daemons.

#![cfg(test)]

use nufw_common::observe::{Metric, Reading, names};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Words of the query language that the files use.
const WORDS: [&str; 12] = [
    "by",
    "changes",
    "histogram_quantile",
    "increase",
    "label_values",
    "or",
    "rate",
    "sum",
    "time",
    "up",
    "inf",
    "nan",
];
/// Labels that Prometheus adds, and the end of a bucket.
const ADDED: [&str; 3] = ["instance", "job", "le"];
/// Variables of the dashboard.
const VARIABLES: [&str; 2] = ["$gateway", "$__rate_interval"];

/// What may be asked for: names, each with its labels and the values of those that are constant.
#[derive(Default)]
struct Known(BTreeMap<String, BTreeMap<&'static str, BTreeSet<&'static str>>>);

impl Known {
    fn add<S>(&mut self, table: &'static [Metric<S>]) {
        for metric in table {
            for name in names(std::slice::from_ref(metric)) {
                let labels = self.0.entry(name).or_default();
                for (key, value) in metric.labels {
                    labels.entry(key).or_default().insert(value);
                }
                if let Reading::Each(label, _) = metric.reading {
                    labels.entry(label).or_default();
                }
            }
        }
    }

    fn all() -> Self {
        let mut known = Self::default();
        known.add(nufw_agent::observe::TABLE);
        known.add(nuauth_server::observe::TABLE);
        known
    }

    fn has_label(&self, label: &str) -> bool {
        ADDED.contains(&label) || self.0.values().any(|labels| labels.contains_key(label))
    }

    /// What is wrong with a query.
    fn mistakes(&self, query: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = query;
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
            if rest[..at].ends_with('$') || rest[..at].ends_with(|c: char| c.is_ascii_digit()) {
                // A variable, or the unit of a time.
                let word = word(&rest[at..]);
                rest = &rest[at + word.len()..];
                continue;
            }
            let word = word(&rest[at..]);
            rest = &rest[at + word.len()..];
            if let Some(labels) = self.0.get(word) {
                if let Some(inner) = rest.strip_prefix('{') {
                    let (matchers, after) = inner.split_once('}').expect("a selector without an end");
                    found.extend(wrong_matchers(word, labels, matchers));
                    rest = after;
                }
            } else if word == "by" {
                let (list, after) = rest.trim_start()[1..]
                    .split_once(')')
                    .expect("a list without an end");
                for label in list.split(',').map(str::trim) {
                    if !self.has_label(label) {
                        found.push(format!("no metric has the label {label}"));
                    }
                }
                rest = after;
            } else if word == "up" {
                rest = rest.split_once('}').map_or(rest, |(_, after)| after);
            } else if word == "label_values" {
                // label_values(metric, label)
                rest = rest.trim_end_matches(", instance)");
            } else if !WORDS.contains(&word) {
                found.push(format!("{word} is not told by any daemon"));
            }
        }
        found
    }
}

fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    &text[..end]
}

fn wrong_matchers(
    name: &str,
    labels: &BTreeMap<&'static str, BTreeSet<&'static str>>,
    matchers: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    for matcher in matchers.split(',').map(str::trim) {
        let (label, value) = matcher.split_once('=').expect("a matcher without a value");
        let value = value.trim_start_matches('~').trim_matches('"');
        if ADDED.contains(&label) {
            continue;
        }
        match labels.get(label) {
            None => found.push(format!("{name} has no label {label}")),
            Some(values) => found.extend(
                value
                    .split('|')
                    .filter(|value| !values.contains(value))
                    .map(|value| format!("{name} never has {label}={value:?}")),
            ),
        }
    }
    found
}

fn conf(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// Every `expr` and `query` of a JSON document, however deep.
fn queries(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value.as_str()) {
                    ("expr" | "definition", Some(query)) => found.push(query.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboard_names_what_is_told() {
    let dashboard: serde_json::Value = serde_json::from_str(&conf("grafana/nufw.json")).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 40, "{found:#?}");
    let known = Known::all();
    for query in found {
        assert_eq!(known.mistakes(&query), Vec::<String>::new(), "{query}");
        for variable in query.split('$').skip(1).map(word) {
            assert!(VARIABLES.contains(&format!("${variable}").as_str()), "{query}");
        }
    }
}

#[test]
fn panels_have_places_of_their_own() {
    let dashboard: serde_json::Value = serde_json::from_str(&conf("grafana/nufw.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}

#[test]
fn every_alert_names_what_is_told_and_says_what_to_do() {
    let text = conf("prometheus/nufw.rules.yml");
    let known = Known::all();
    let mut alerts = BTreeSet::new();
    for rule in text.split("      - alert: ").skip(1) {
        let field = |key: &str| {
            rule.lines()
                .find_map(|line| line.trim().strip_prefix(key))
                .unwrap_or_else(|| panic!("no {key} in {rule}"))
                .trim()
                .to_owned()
        };
        let name = rule.lines().next().unwrap().to_owned();
        assert!(alerts.insert(name), "{rule}");
        assert_eq!(known.mistakes(&field("expr:")), Vec::<String>::new(), "{rule}");
        assert!(["{ severity: page }", "{ severity: ticket }"].contains(&field("labels:").as_str()));
        assert!(
            field("summary:").len() > 20 && field("description:").len() > 20,
            "{rule}"
        );
    }
    assert!(alerts.len() > 15, "{alerts:?}");
}

#[test]
fn a_query_for_what_nobody_tells_is_found_out() {
    let known = Known::all();
    for (query, part) in [
        (
            "rate(nufw_agent_verdict_total[5m])",
            "nufw_agent_verdict_total is not told",
        ),
        ("nufw_agent_verdicts_total{cause=\"x\"}", "has no label cause"),
        (
            "nufw_agent_verdicts_total{reason=~\"server|nothing\"}",
            "never has reason=\"nothing\"",
        ),
        (
            "sum by (colour) (nuauth_sessions)",
            "no metric has the label colour",
        ),
    ] {
        let found = known.mistakes(query).join("; ");
        assert!(found.contains(part), "{query}: {found}");
    }
}
