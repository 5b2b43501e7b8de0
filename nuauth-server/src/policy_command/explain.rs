//! Why a connection was accepted or not: from its row, and the lists of that time.

use super::Setting;
use super::rows::Decided;
use crate::kept::rule_in;
use anyhow::{Context as _, anyhow};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_proto::ConnId;
use nulog::{Reader, RowFilter};
use serde_json::{Map, Value, json};
use std::io::Write;

pub(super) fn run(setting: &Setting, id: u64, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let row = row(setting, id)?;
    let told = Told::of(setting, &row)?;
    let written = if as_json {
        writeln!(out, "{}", told.json(&row))
    } else {
        told.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    };
    written.or_exit(Exit::IoErr)
}

fn row(setting: &Setting, id: u64) -> Result<Map<String, Value>, Failure> {
    let missing = || {
        Failure::new(
            Exit::NoInput,
            anyhow!("{}: there is no row {id}", setting.config.log.database),
        )
    };
    let filter = RowFilter {
        after: id.checked_sub(1).and_then(|before| ConnId::try_from(before).ok()),
        limit: Some(1),
        ..RowFilter::default()
    };
    let rows = crate::db::runtime()?.block_on(async {
        let mut reader = Reader::open(&setting.config.log.database).await?;
        reader.rows_json(&filter).await
    });
    let row = rows.map_err(Failure::from)?.pop().ok_or_else(missing)?;
    let found = row
        .get("id")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<u64>().ok());
    if found == Some(id) {
        Ok(row)
    } else {
        Err(missing())
    }
}

/// What can be told.
struct Told {
    what: String,
    why: String,
    /// The rule as it was written then, in normal form.
    rule: Option<String>,
    /// Facts of the row that rules look at.
    facts: Vec<(&'static str, String)>,
    note: Option<String>,
}

/// What stands in a row in the place of a rule.
const NO_RULE: [(&str, &str); 9] = [
    ("default", "no rule matched it"),
    (
        "(nobody)",
        "nobody was logged in at its source, and no rule is for that",
    ),
    (
        "(disclaimed)",
        "every client at its source said that it is not its user's",
    ),
    ("(timeout)", "no client claimed it in time"),
    (
        "(adopted)",
        "it was found alive with a user's mark, and its row was lost: the decision is not known",
    ),
    (
        "(related)",
        "another connection brought it with it (parent_id): it was never asked for",
    ),
    (
        "(blind)",
        "it passed without a verdict, as the gateway's administrator chose",
    ),
    ("(unlogged)", "it could not be logged"),
    ("(full)", "a table of the server was full"),
];

impl Told {
    fn of(setting: &Setting, row: &Map<String, Value>) -> Result<Self, Failure> {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let acl = text("acl");
        let accepted = row.get("state").and_then(Value::as_i64) != Some(0);
        let ends = Decided::new(setting, row).map_or_else(
            |_| format!("{} → {}", text("ip_saddr"), text("ip_daddr")),
            |decided| decided.tuple.to_string(),
        );
        let verb = if accepted {
            "was accepted"
        } else {
            "was not accepted"
        };
        let what = format!("{} {ends} {verb} at {}", text("id"), text("oob_time"));
        let version = text("policy");
        let meaning = NO_RULE.iter().find(|(name, _)| *name == acl);
        let kept = setting
            .kept()
            .find(version)
            .context("the lists of that time cannot be read")
            .or_exit(Exit::NoInput)?;
        let rule = kept
            .as_deref()
            .and_then(|normal| rule_in(normal, acl))
            .map(str::to_owned);
        let why = match meaning {
            Some((_, meaning)) => (*meaning).to_owned(),
            None if acl.is_empty() => "the row does not say by which rule".to_owned(),
            None => format!("rule \"{acl}\" decided"),
        };
        let note = match (version, &kept, &rule) {
            ("", ..) if meaning.is_none() => {
                Some("the row has no version of the lists: it is older than such versions".to_owned())
            }
            (_, None, _) if !version.is_empty() => Some(format!(
                "lists {version} are not kept here any more, or were another server's"
            )),
            (_, Some(_), None) if meaning.is_none() => Some(format!(
                "lists {version} have no rule of that name: somebody has changed what was kept"
            )),
            _ => None,
        };
        let facts = [
            ("user", "username"),
            ("login", "auth"),
            ("program", "client_app"),
            ("system", "client_os"),
            ("in", "oob_in"),
            ("out", "oob_out"),
            ("gateway", "gateway"),
            ("lists", "policy"),
        ]
        .into_iter()
        .map(|(label, name)| (label, text(name).to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
        Ok(Self {
            what,
            why,
            rule,
            facts,
            note,
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.what.clone(), format!("  {}", self.why)];
        lines.extend(
            self.facts
                .iter()
                .map(|(label, value)| format!("  {label:<8} {value}")),
        );
        lines.extend(
            self.rule
                .iter()
                .flat_map(|rule| rule.lines())
                .map(|line| format!("    {line}")),
        );
        lines.extend(self.note.iter().map(|note| format!("  {note}")));
        lines
    }

    fn json(&self, row: &Map<String, Value>) -> Value {
        json!({ "why": self.why, "rule": self.rule, "note": self.note, "row": row })
    }
}
