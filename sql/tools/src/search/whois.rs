//! `nulog whois`: every connection that may have had an address and port at a time, most likely first.
//!
//! Shows all of them and how sure each is; which one it was is for people to say.

use super::ask;
use super::cli::{Context, failure};
use super::show::{self, Table};
use super::when::Zone;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use nufw_common::config::HumanDuration;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_proto::Timestamp;
use nulog::{Covers, Holder, WhoisQuestion};
use serde_json::{Value, json};
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code when nobody had the address and port.
const NOBODY: u8 = 1;

#[derive(Debug, Args)]
#[command(after_help = "\
The address and port are those that the outside saw: after source NAT. Every connection that may have had them within the
error of the clocks is shown, most likely first: `surely` when it had begun and not ended whatever the clocks were.

Examples:
  nulog whois 203.0.113.5:61000 --at 2026-11-20T14:03:00Z
  nulog whois '[2001:db8::7]:53' --at '2026-11-20 15:03' --local --proto udp --clock-error 30s --json

Exit codes: 0 somebody, 1 nobody, 64 a wrong question, 69 the log cannot be reached, 77 without permission, 78 wrong settings")]
pub(super) struct Question {
    /// Address and port, as the outside saw them
    #[arg(value_name = "ADDRESS:PORT")]
    endpoint: String,
    /// When: RFC 3339, a date with or without time of day (UTC; see --local), or how long ago (2h)
    #[arg(long, value_name = "TIME", default_value = "now")]
    at: String,
    /// Of this protocol alone: tcp, udp, udplite, sctp, dccp
    #[arg(long, value_name = "NAME")]
    proto: Option<String>,
    /// By how much your clock and the gateway's may differ [default: 1s] (key search.clock-error)
    #[arg(long, value_name = "TIME")]
    clock_error: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The question, checked.
pub(super) struct Asked {
    question: WhoisQuestion,
    /// What the question says of it; the settings otherwise.
    clock_error: Option<Duration>,
    json: bool,
}

impl Question {
    pub(super) fn read(&self, zone: &Zone, now: Timestamp) -> Result<Asked> {
        let (address, port) = ask::endpoint(&self.endpoint)?;
        let protocol = self.proto.as_deref().map(ask::protocol).transpose()?;
        let Some(at) = zone.parse(&self.at, now) else {
            bail!(
                "--at: {:?} is not a time such as 2026-11-20T14:03:00Z, '2026-11-20 14:03' or 2h",
                ask::shown(&self.at)
            );
        };
        let clock_error = match self.clock_error.as_deref() {
            None => None,
            Some(text) => Some(
                HumanDuration::parse(text)
                    .with_context(|| {
                        format!(
                            "--clock-error: {:?} is not a duration such as 2s",
                            ask::shown(text)
                        )
                    })?
                    .0,
            ),
        };
        Ok(Asked {
            question: WhoisQuestion {
                address,
                port,
                protocol,
                at,
                clock_error: Duration::ZERO,
            },
            clock_error,
            json: self.json,
        })
    }
}

pub(super) async fn run(asked: &Asked, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let question = WhoisQuestion {
        clock_error: asked.clock_error.unwrap_or(context.clock_error),
        ..asked.question
    };
    let found = context.search.whois(&question).await.map_err(failure)?;
    let shown = if asked.json {
        let candidates: Vec<Value> = found
            .holders
            .iter()
            .map(|holder| as_json(holder, &context.zone))
            .collect();
        let object = json!({ "candidates": candidates, "more": found.more });
        writeln!(context.out, "{}", show::json_line(&object))
    } else {
        table(&found.holders, context)
    };
    shown.map_err(anyhow::Error::from).or_exit(Exit::IoErr)?;
    if found.more && !asked.json {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(
            context.notes,
            "nulog: there are more; a smaller --clock-error or --proto shows fewer"
        );
    }
    Ok(if found.holders.is_empty() {
        NOBODY.into()
    } else {
        ExitCode::SUCCESS
    })
}

fn word(covers: Covers) -> &'static str {
    match covers {
        Covers::Surely => "surely",
        Covers::Possibly => "possibly",
    }
}

fn as_json(holder: &Holder, zone: &Zone) -> Value {
    let mut object = show::object(&holder.row, zone);
    object.remove("after");
    object.insert("covers".to_owned(), word(holder.covers).into());
    let doubt = (!holder.doubt.is_empty()).then_some(holder.doubt);
    object.insert("doubt".to_owned(), doubt.into());
    Value::Object(object)
}

fn table(holders: &[Holder], context: &mut Context<'_>) -> io::Result<()> {
    if holders.is_empty() {
        return Ok(());
    }
    let mut heads = vec!["covers".to_owned(), "ended".to_owned()];
    heads.extend(show::heads(&context.zone));
    heads.push("doubt".to_owned());
    let lines: Vec<Vec<String>> = holders
        .iter()
        .map(|holder| {
            let end = holder.row.values.get("end_timestamp").and_then(Value::as_str);
            let end = end.map(|end| context.zone.plain(end)).unwrap_or_default();
            let mut cells = vec![word(holder.covers).to_owned(), end];
            cells.extend(show::cells(&holder.row, &context.zone));
            cells.push(holder.doubt.to_owned());
            cells
        })
        .collect();
    Table::begin(context.out, &heads, &lines).map(drop)
}
