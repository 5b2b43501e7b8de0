//! How the demonstration looks: a line for each state that a row reaches.
//!
//! Colour only on a terminal.

use super::traffic_of;
use crate::daemons::Lab;
use crate::rows::{Row, State};
use crate::wait::wait_for;
use anyhow::Result;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How long a row is waited for.
const ROW: Duration = Duration::from_secs(5);

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

pub(super) struct Show {
    json: bool,
    colour: bool,
    /// The last state shown of each row.
    shown: BTreeMap<i64, State>,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            colour: !json && std::io::stdout().is_terminal(),
            shown: BTreeMap::new(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn title(&self, out: &mut impl Write, text: &str) -> Result<()> {
        if !self.json {
            writeln!(out, "\n{}", self.paint(BOLD, text))?;
            out.flush()?;
        }
        Ok(())
    }

    pub(super) fn note(&self, out: &mut impl Write, text: &str) -> Result<()> {
        if !self.json {
            writeln!(out, "{}", self.paint(DIM, text))?;
            out.flush()?;
        }
        Ok(())
    }

    pub(super) fn answer(&self, out: &mut impl Write, text: &str) -> Result<()> {
        if !self.json {
            writeln!(out, "  {}", self.paint(DIM, &format!("client: {text}")))?;
            out.flush()?;
        }
        Ok(())
    }

    /// Shows the states that rows reached since the last call. A state that was passed meanwhile is shown too: its time
    /// is in the row.
    pub(super) fn progress(&mut self, lab: &Lab, out: &mut impl Write) -> Result<Vec<Row>> {
        let rows = lab.rows("1")?;
        for row in &rows {
            let Some(id) = row.int("id") else { continue };
            let before = self.shown.insert(id, row.state());
            if self.json || before == Some(row.state()) {
                continue;
            }
            let passed = [State::Open, State::Established].into_iter().filter(|state| {
                *state < row.state()
                    && before.is_none_or(|before| before < *state)
                    && (*state != State::Established || !row.is_null("start_timestamp"))
            });
            for state in passed.chain([row.state()]) {
                self.line(out, row, state)?;
            }
        }
        out.flush()?;
        Ok(rows)
    }

    /// Shows the states of one connection's row until it is answered or dropped. What comes later is shown with others.
    pub(super) fn wait_for(&mut self, lab: &Lab, out: &mut impl Write, condition: &str) -> Result<()> {
        // A row that does not come is a fact to be seen, not an error.
        wait_for("the row", ROW, || {
            self.progress(lab, out)?;
            Ok(lab.rows(condition)?.iter().any(|row| row.state() != State::Open))
        })
        .ok();
        self.progress(lab, out).map(drop)
    }

    fn line(&self, out: &mut impl Write, row: &Row, state: State) -> Result<()> {
        let (word, colour) = match state {
            State::Drop => ("DROP", RED),
            State::Open => ("OPEN", YELLOW),
            State::Established => ("ESTABLISHED", GREEN),
            State::Close => ("CLOSE", CYAN),
        };
        let user = row.text("username").unwrap_or("nobody");
        let details = match state {
            State::Drop => format!("rule {}", row.text("acl").unwrap_or("?")),
            State::Open => format!(
                "mark {}, rule {}, {}",
                row.int("oob_mark").unwrap_or_default(),
                row.text("acl").unwrap_or("?"),
                row.text("client_app").unwrap_or("program unknown")
            ),
            State::Established => translated(row),
            State::Close => format!("{}, {}", row.text("close_reason").unwrap_or("?"), traffic_of(row)),
        };
        let word = self.paint(colour, &format!("{word:<12}"));
        let text = format!("{word}{user:<7} {:<52} {details}", connection(row));
        writeln!(out, "  {}", text.trim_end())?;
        Ok(())
    }

    /// The final rows.
    pub(super) fn end(&self, lab: &Lab, out: &mut impl Write) -> Result<()> {
        let rows = lab.rows("1")?;
        if self.json {
            for row in lab.published()? {
                writeln!(out, "{}", serde_json::Value::Object(row))?;
            }
        } else {
            let of = |state| rows.iter().filter(|row| row.state() == state).count();
            let (closed, dropped) = (of(State::Close), of(State::Drop));
            let live = rows.len() - closed - dropped;
            writeln!(
                out,
                "\n{} rows: {closed} closed, {dropped} dropped, {live} still live",
                rows.len()
            )?;
        }
        out.flush()?;
        Ok(())
    }
}

fn connection(row: &Row) -> String {
    let protocol = match row.int("ip_protocol") {
        Some(6) => "tcp",
        Some(17) => "udp",
        _ => "ip",
    };
    let end = |address: &str, port: Option<u16>| {
        let address = row.text(address).unwrap_or("?").to_owned();
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    };
    format!(
        "{protocol} {} -> {}",
        end("ip_saddr", row.sport()),
        end("ip_daddr", row.dport())
    )
}

/// Where the connection really goes, if it is translated.
fn translated(row: &Row) -> String {
    let (Some(server), Some(seen)) = (row.text("reply_saddr"), row.text("reply_daddr")) else {
        return String::new();
    };
    if Some(server) == row.text("ip_daddr") && Some(seen) == row.text("ip_saddr") {
        return String::new();
    }
    let port = |column| row.int(column).map(|port| port.to_string()).unwrap_or_default();
    format!(
        "translated: {seen}:{} -> {server}:{}",
        port("reply_dport"),
        port("reply_sport")
    )
}
