//! `nulog search`: connections that fit every filter, page by page, as a table, CSV or lines of JSON.
//!
//! Holds one page at a time, however many are shown.

use super::ask;
use super::cli::{Context, failure};
use super::show::{self, Csv, Table};
use super::when::Zone;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_proto::Timestamp;
use nulog::{Order, Row, RowKey, Search, SearchFilter};
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;

/// Rows that are read at once.
const PAGE: u32 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// With all columns; texts as they are (RFC 4180)
    Csv,
    /// One JSON object a line, with all columns
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Times are of the first packet: RFC 3339, a date with or without time of day (UTC; see --local), or how long ago (90s, 2h, 7d).
--user, --src and --dst (of one address) are found fast in an archive of any size; other filters look at every connection of the
time span, so give --since with them.

Examples:
  nulog search --user alice --since 2h
  nulog search --src 10.1.0.0/16 --state drop --since 1d --format json
  nulog search --user bob --all --oldest-first --format csv > bob.csv
  nulog search --user alice --after 1795183385.000007-562949953421313     (as the end of a page says)")]
pub(super) struct Filters {
    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of a program whose path contains this
    #[arg(long, value_name = "TEXT")]
    app: Option<String>,
    /// From this address or network, before translation
    #[arg(long, value_name = "ADDRESS[/LENGTH]")]
    src: Option<String>,
    /// To this address or network, before translation
    #[arg(long, value_name = "ADDRESS[/LENGTH]")]
    dst: Option<String>,
    /// To this port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// From this port
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// Of this protocol: tcp, udp, udplite, sctp, dccp, icmp, icmpv6, or a number
    #[arg(long, value_name = "NAME")]
    proto: Option<String>,
    /// Through this gateway
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// In this state: drop, open, established or close; several with commas between them
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Decided by this rule
    #[arg(long, value_name = "NAME")]
    acl: Option<String>,
    /// Ended for this reason
    #[arg(long, value_name = "REASON")]
    close_reason: Option<String>,
    /// Not before this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The oldest first instead of the newest
    #[arg(long)]
    oldest_first: bool,
    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 1000, conflicts_with = "all")]
    limit: u64,
    /// As many as there are
    #[arg(long)]
    all: bool,
    /// Read on after this place, in the same order
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    after: Option<String>,
    /// How they are shown
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// The filters, checked.
pub(super) struct Asked {
    filter: SearchFilter,
    after: Option<RowKey>,
    /// Rows that are shown at most.
    limit: u64,
    format: Format,
}

impl Filters {
    pub(super) fn read(&self, zone: &Zone, now: Timestamp) -> Result<Asked> {
        let time = |option: &str, text: Option<&str>| {
            let Some(text) = text else { return Ok(None) };
            match zone.parse(text, now) {
                Some(at) => Ok(Some(at)),
                None => bail!(
                    "{option}: {:?} is not a time such as 2026-11-20T14:03:00Z, '2026-11-20 14:03' or 2h",
                    ask::shown(text)
                ),
            }
        };
        let (since, until) = (
            time("--since", self.since.as_deref())?,
            time("--until", self.until.as_deref())?,
        );
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            bail!("--since is not before --until: nothing can be between them");
        }
        let states = self.state.as_deref().map(ask::states).transpose()?;
        Ok(Asked {
            filter: SearchFilter {
                user: self.user.clone(),
                app: self.app.clone(),
                source: self.src.as_deref().map(ask::range).transpose()?,
                destination: self.dst.as_deref().map(ask::range).transpose()?,
                source_port: self.sport,
                port: self.port,
                protocol: self.proto.as_deref().map(ask::protocol).transpose()?,
                gateway: self.gateway.clone(),
                states: states.unwrap_or_default(),
                acl: self.acl.clone(),
                close_reason: self.close_reason.clone(),
                since,
                until,
                order: if self.oldest_first {
                    Order::OldestFirst
                } else {
                    Order::NewestFirst
                },
            },
            after: self.after.as_deref().map(str::parse).transpose()?,
            limit: if self.all { u64::MAX } else { self.limit },
            format: self.format,
        })
    }
}

/// Where pages go.
enum Shown<'a> {
    Table(&'a mut dyn Write, Option<Table>),
    Csv(Box<Csv<'a>>),
    Json(&'a mut dyn Write),
}

impl Shown<'_> {
    fn page(&mut self, rows: &[Row], zone: &Zone) -> io::Result<()> {
        match self {
            Self::Table(out, table) => {
                let lines: Vec<_> = rows.iter().map(|row| show::cells(row, zone)).collect();
                match table {
                    Some(table) => table.lines(out, &lines)?,
                    None => *table = Some(Table::begin(out, &show::heads(zone), &lines)?),
                }
                out.flush()
            }
            Self::Csv(csv) => {
                csv.begin()?;
                rows.iter().try_for_each(|row| csv.row(row, zone))?;
                csv.flush()
            }
            Self::Json(out) => {
                for row in rows {
                    let object = Value::Object(show::object(row, zone));
                    writeln!(out, "{}", show::json_line(&object))?;
                }
                out.flush()
            }
        }
    }
}

pub(super) async fn run(asked: &Asked, context: &mut Context<'_>) -> Result<ExitCode, Failure> {
    let Context {
        search,
        zone,
        out,
        notes,
        terminal,
        ..
    } = context;
    let mut shown = match asked.format {
        Format::Table => Shown::Table(&mut **out, None),
        Format::Csv => Shown::Csv(Box::new(Csv::new(&mut **out, *terminal))),
        Format::Json => Shown::Json(&mut **out),
    };
    let mut after = asked.after;
    let mut left = asked.limit;
    loop {
        let size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let rows = search.page(&asked.filter, after, size).await.map_err(failure)?;
        shown
            .page(&rows, zone)
            .map_err(anyhow::Error::from)
            .or_exit(Exit::IoErr)?;
        left = left.saturating_sub(rows.len() as u64);
        if rows.len() < size as usize {
            break;
        }
        after = rows.last().map(|row| row.key).or(after);
        if left == 0 {
            tell_of_more(search, &asked.filter, after, notes).await?;
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says where to read on, if there is more.
async fn tell_of_more(
    search: &mut Search,
    filter: &SearchFilter,
    after: Option<RowKey>,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    let Some(place) = after else { return Ok(()) };
    let more = search.page(filter, after, 1).await.map_err(failure)?;
    if !more.is_empty() {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(
            notes,
            "nulog: there are more: --after {place} reads on, --all shows them all"
        );
    }
    Ok(())
}
