//! Rows as a table, CSV or lines of JSON.
//!
//! Whatever a name holds, it cannot move a terminal's cursor, hide itself or end a line: what is not plainly visible is shown
//! by its number. Programs that read a file or a pipe get CSV texts as they are.

use super::ask::{protocol_name, state_name};
use super::when::Zone;
use nulog::Row;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::{self, Write};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns of the screen that one text of a table may take.
const WIDEST: usize = 48;
/// Columns that hold times.
const TIMES: [&str; 3] = ["oob_time", "start_timestamp", "end_timestamp"];
/// Where to read on, in CSV and JSON.
const AFTER: &str = "after";

/// Whether a character shows as nothing else than itself.
fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text as a terminal may have it.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
    }
    out
}

/// An object in one line that is safe for a terminal and still the same JSON.
pub(super) fn json_line(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for character in text.chars() {
        if is_plain(character) {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// A row's object, with its times in a zone.
pub(super) fn object(row: &Row, zone: &Zone) -> Map<String, Value> {
    let mut values = row.values.clone();
    for name in TIMES {
        if let Some(Value::String(time)) = values.get_mut(name) {
            *time = zone.exact(time);
        }
    }
    values.insert(AFTER.to_owned(), Value::from(row.key.to_string()));
    values
}

/// A value as a cell has it; nothing for NULL.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Writes rows of CSV as RFC 4180 has it, the first line the names of the columns.
pub(super) struct Csv<'a> {
    out: csv::Writer<&'a mut dyn Write>,
    terminal: bool,
    begun: bool,
}

impl<'a> Csv<'a> {
    pub(super) fn new(out: &'a mut dyn Write, terminal: bool) -> Self {
        Self {
            out: csv::Writer::from_writer(out),
            terminal,
            begun: false,
        }
    }

    pub(super) fn row(&mut self, row: &Row, zone: &Zone) -> io::Result<()> {
        self.begin()?;
        let object = object(row, zone);
        for name in Row::COLUMNS.iter().chain([&AFTER]) {
            let cell = plain(object.get(*name));
            let cell = if self.terminal { visible(&cell) } else { cell };
            self.out.write_field(cell)?;
        }
        self.out.write_record(None::<&[u8]>)?;
        Ok(())
    }

    /// The names of the columns, also where no row follows.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.out.write_record(Row::COLUMNS.iter().chain([&AFTER]))?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A cell of a table: made visible, and cut, visibly, where it is too wide.
pub(super) fn cell(text: &str) -> String {
    let text = visible(text);
    if text.width() <= WIDEST {
        return text;
    }
    let mut out = String::new();
    let mut width = 0;
    for character in text.chars() {
        width += character.width().unwrap_or(0);
        if width >= WIDEST {
            break;
        }
        out.push(character);
    }
    out.push('…');
    out
}

/// One end of a connection.
fn end(row: &Row, address: &str, port: &str) -> String {
    let (address, port) = (plain(row.values.get(address)), plain(row.values.get(port)));
    match (address.is_empty(), port.is_empty()) {
        (true, _) => String::new(),
        (false, true) => address,
        (false, false) if address.contains(':') => format!("[{address}]:{port}"),
        (false, false) => format!("{address}:{port}"),
    }
}

/// The heads of a table's columns.
pub(super) fn heads(zone: &Zone) -> Vec<String> {
    let time = format!("time ({})", zone.name());
    let mut heads = vec![time];
    heads.extend(
        [
            "user",
            "proto",
            "from",
            "to",
            "seen from outside as",
            "state",
            "bytes",
            "program",
            "gateway",
        ]
        .map(str::to_owned),
    );
    heads
}

/// A row's cells under those heads.
pub(super) fn cells(row: &Row, zone: &Zone) -> Vec<String> {
    let text = |name: &str| plain(row.values.get(name));
    let number = |name: &str| row.values.get(name).and_then(Value::as_i64);
    let from = end(row, "ip_saddr", "sport");
    let outside = end(row, "reply_daddr", "reply_dport");
    let state = number("state").map(state_name).unwrap_or_default();
    let reason = text("close_reason");
    let bytes = match (number("bytes_in"), number("bytes_out")) {
        (Some(sent), Some(got)) => format!("{sent}/{got}"),
        _ => String::new(),
    };
    [
        zone.plain(&text("oob_time")),
        text("username"),
        number("ip_protocol").map(protocol_name).unwrap_or_default(),
        from.clone(),
        end(row, "ip_daddr", "dport"),
        if outside == from { String::new() } else { outside },
        if reason.is_empty() {
            state
        } else {
            format!("{state} {reason}")
        },
        bytes,
        text("client_app"),
        text("gateway"),
    ]
    .iter()
    .map(|text| cell(text))
    .collect()
}

/// Writes lines of cells in columns, as wide as those of the first page need.
#[derive(Debug, Default)]
pub(super) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Writes the heads and a first page.
    pub(super) fn begin(out: &mut dyn Write, heads: &[String], page: &[Vec<String>]) -> io::Result<Self> {
        let mut table = Self {
            widths: heads.iter().map(|head| head.width()).collect(),
        };
        for line in page {
            for (width, cell) in table.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.width());
            }
        }
        table.line(out, heads)?;
        table.lines(out, page)?;
        Ok(table)
    }

    pub(super) fn lines(&self, out: &mut dyn Write, page: &[Vec<String>]) -> io::Result<()> {
        page.iter().try_for_each(|line| self.line(out, line))
    }

    fn line(&self, out: &mut dyn Write, cells: &[String]) -> io::Result<()> {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            let pad = width.saturating_sub(cell.width());
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', pad + 2));
        }
        writeln!(out, "{}", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_hides_reaches_a_terminal() {
        let name = "a\u{1b}[2J\u{9b}1m\0\r\n\u{202e}b\u{200b}\"'\u{feff}é";
        let shown = visible(name);
        assert_eq!(
            shown,
            "a\\u{1b}[2J\\u{9b}1m\\u{0}\\u{d}\\u{a}\\u{202e}b\\u{200b}\"'\\u{feff}é"
        );
        let line = json_line(&serde_json::json!({ "n": name, "tag": "\u{e0041}" }));
        assert!(line.chars().all(is_plain), "{line}");
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&back["n"], &back["tag"]), (&name.into(), &"\u{e0041}".into()));
    }

    #[test]
    fn a_long_text_is_cut_so_that_it_shows() {
        let long = cell(&"字".repeat(100));
        assert!(long.ends_with('…') && long.width() <= WIDEST, "{long}");
        assert_eq!(cell("short"), "short");
    }
}
