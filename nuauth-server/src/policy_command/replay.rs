//! Connections of the log run against other lists: whose verdict would change.
//!
//! Reads in pages and keeps none of them, however much there is.

use super::packet::{moment, shown};
use super::rows::{Decided, Skipped};
use super::{ReplayArgs, Setting};
use crate::engine::Decision;
use crate::policy::{DEFAULT_RULE, Policy, word};
use anyhow::anyhow;
use nufw_common::clock;
use nufw_common::config::HumanDuration;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_proto::Timestamp;
use nulog::{Order, RowKey, Search, SearchFilter};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::time::Duration;

/// Rows that are read at once.
const PAGE: u32 = 1000;
/// How long one statement may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pairs of rules that are counted apart in the summary; further ones are counted together.
const PAIRS: usize = 1000;

/// What was found.
#[derive(Default)]
struct Summary {
    rows: u64,
    changed: u64,
    undecided: u64,
    unreadable: u64,
    /// Rows of users whose groups are not known.
    strangers: u64,
    /// Changed rows by the rule of then, the rule of the new lists, and what it decides.
    pairs: BTreeMap<(String, String, &'static str), u64>,
}

/// The start of the time that is looked at: so long before now, or a moment.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let before = HumanDuration::parse(text).map(|HumanDuration(before)| {
        let micros = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(now.micros().saturating_sub(micros))
    });
    before
        .map_or_else(|| moment(text), Ok)
        .map_err(|expected| anyhow!("found {text:?}, {expected}, or a duration such as 7d"))
        .or_exit(Exit::Usage)
}

pub(super) fn run(
    setting: &Setting,
    new: &Policy,
    args: &ReplayArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let now = clock::wall();
    let filter = SearchFilter {
        since: Some(since(&args.since, now)?),
        until: args.until.as_deref().map(|text| since(text, now)).transpose()?,
        order: Order::OldestFirst,
        ..SearchFilter::default()
    };
    crate::db::runtime()?.block_on(async {
        let mut search = Search::open(&setting.config.log.database, PATIENCE)
            .await
            .map_err(Failure::from)?;
        let mut summary = Summary::default();
        let mut after: Option<RowKey> = None;
        let shows_progress = std::io::stderr().is_terminal();
        loop {
            let page = search.page(&filter, after, PAGE).await.map_err(Failure::from)?;
            for row in &page {
                summary.row(setting, new, &row.values, args.json, out)?;
            }
            after = page.last().map(|row| row.key);
            if page.len() < PAGE as usize {
                break;
            }
            if shows_progress {
                let at = page.last().and_then(|row| row.values.get("oob_time")?.as_str());
                let (rows, at) = (summary.rows, at.unwrap_or_default());
                let _ = write!(std::io::stderr(), "\r{rows} rows, at {at} ");
            }
        }
        if shows_progress {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        summary.write(new, args.json, out)
    })
}

impl Summary {
    fn row(
        &mut self,
        setting: &Setting,
        new: &Policy,
        row: &serde_json::Map<String, serde_json::Value>,
        as_json: bool,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        self.rows += 1;
        let decided = match Decided::new(setting, row) {
            Ok(decided) => decided,
            Err(Skipped::Undecided) => {
                self.undecided += 1;
                return Ok(());
            }
            Err(Skipped::Unreadable) => {
                self.unreadable += 1;
                return Ok(());
            }
        };
        self.strangers += u64::from(decided.is_stranger);
        let subject = decided.subject();
        let place = new.search(&subject);
        let ruling = new.ruled(place, &subject);
        if (ruling.decision == Decision::Accept) == decided.accepted {
            return Ok(());
        }
        self.changed += 1;
        let decision = word(ruling.decision);
        let pair = (decided.acl.clone(), ruling.rule.to_string(), decision);
        let known = self.pairs.len() < PAIRS || self.pairs.contains_key(&pair);
        let pair = if known {
            pair
        } else {
            ("(others)".to_owned(), "(others)".to_owned(), "changed")
        };
        *self.pairs.entry(pair).or_default() += 1;
        let (was, at) = (
            if decided.accepted { "accept" } else { "drop" },
            shown(decided.at),
        );
        let written = if as_json {
            let object = json!({
                "id": decided.id, "time": at, "username": decided.user.as_ref().map(|_| &decided.username),
                "connection": decided.tuple.to_string(), "was": was, "acl": decided.acl, "policy": decided.policy,
                "would_be": decision, "rule": &*ruling.rule,
                "place": place.map(|place| new.rules()[place].place.to_string()),
            });
            writeln!(out, "{object}")
        } else {
            let user = decided.user.as_ref().map_or("nobody", |_| &decided.username);
            let rule = match place {
                Some(place) => format!("\"{}\" ({})", ruling.rule, new.rules()[place].place),
                None => format!("no rule (\"{DEFAULT_RULE}\")"),
            };
            writeln!(
                out,
                "{at} {} {user} {}: {was} by \"{}\" would be {decision} by {rule}",
                decided.id, decided.tuple, decided.acl
            )
        };
        written.or_exit(Exit::IoErr)
    }

    fn write(&self, new: &Policy, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
        let Self {
            rows,
            changed,
            undecided,
            unreadable,
            strangers,
            pairs,
        } = self;
        let written = if as_json {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|((was, rule, decision), count)| {
                    json!({ "was": was, "rule": rule, "would_be": decision, "count": count })
                })
                .collect();
            let object = json!({
                "rows": rows, "changed": changed, "undecided": undecided, "unreadable": unreadable,
                "strangers": strangers,
                "version": new.version_text(), "changes": pairs,
            });
            writeln!(out, "{object}")
        } else {
            let lines = pairs.iter().map(|((was, rule, decision), count)| {
                format!("  {count} by \"{was}\" would be {decision} by \"{rule}\"")
            });
            let head = format!(
                "{changed} of {rows} connections would be decided otherwise; {undecided} were decided by no rule, \
                 {unreadable} could not be read"
            );
            let strangers = (*strangers > 0).then(|| {
                format!(
                    "{strangers} are of users whom the users' file does not have: rules for groups were taken not to be for them"
                )
            });
            std::iter::once(head)
                .chain(strangers)
                .chain(lines)
                .try_for_each(|line| writeln!(out, "{line}"))
        };
        written.or_exit(Exit::IoErr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_before_now() {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let at = |text: &str| since(text, now).unwrap().micros();
        assert_eq!(at("7d"), now.micros() - 7 * 86_400_000_000);
        assert_eq!(at("2027-01-15T08:00:00Z"), now.micros());
        let error = since("yesterday", now).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.error.to_string().contains("or a duration such as 7d"));
    }
}
