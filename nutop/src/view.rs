//! Draws the model; decides nothing but where things stand.
//!
//! Every text of the log passes `text::escaped` before it is drawn.

use crate::filter::FIELDS;
use crate::model::{Lines, Model, Screen};
use crate::order::{Group, GroupBy};
use crate::row::Row;
use crate::text::{UNKNOWN, age, bytes, escaped, fit, grouped, rfc3339, right, time_of_day};
use nufw_proto::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Wrap};

/// How things are told apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    /// With colours; without, by bold and reverse alone.
    pub(crate) colour: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn warning(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn note(self) -> Style {
        self.colour(Color::Yellow)
    }
}

/// A column: its title, its width, whether numbers stand in it. The widest ones share what is left.
struct Column {
    title: &'static str,
    cells: usize,
    grows: usize,
    number: bool,
}

const fn column(title: &'static str, cells: usize, grows: usize, number: bool) -> Column {
    Column {
        title,
        cells,
        grows,
        number,
    }
}

/// In the order of [`crate::order::Sort::ALL`].
const CONNECTIONS: [Column; 10] = [
    column("USER", 10, 1, false),
    column("PROGRAM", 12, 3, false),
    column("PROTO", 6, 0, false),
    column("SOURCE", 21, 2, false),
    column("DESTINATION", 21, 2, false),
    column("STATE", 11, 0, false),
    column("AGE", 7, 0, true),
    column("IN", 6, 0, true),
    column("OUT", 6, 0, true),
    column("RATE/S", 6, 0, true),
];
/// In the order of [`crate::order::GroupSort::ALL`]; the first has the name of what is grouped by.
const GROUPS: [Column; 6] = [
    column("", 20, 1, false),
    column("CONNECTIONS", 16, 0, true),
    column("IN", 8, 0, true),
    column("OUT", 8, 0, true),
    column("RATE/S", 8, 0, true),
    column("OLDEST", 8, 0, true),
];

/// Draws everything. `log` names the log.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, log: &str, now: Timestamp, theme: Theme) {
    let [head, second, titles, table, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    model.resize(usize::from(table.height));
    let now = model.time(now);
    frame.render_widget(header(model, log, theme), head);
    frame.render_widget(second_line(model, theme), second);
    draw_table(frame, model, now, titles, table);
    frame.render_widget(footer(model, theme), foot);
    let body = titles.union(table);
    match &model.screen {
        Screen::Help => over(frame, body, &help()),
        Screen::Details { row, ended } => over(frame, body, &details(row, *ended, now)),
        Screen::Table | Screen::Typing { .. } => {}
    }
}

fn over(frame: &mut Frame<'_>, area: Rect, lines: &[String]) {
    let lines: Vec<Line<'_>> = lines.iter().map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn header<'a>(model: &Model, log: &str, theme: Theme) -> Line<'a> {
    let all = model.rows.len();
    let established = model.rows.iter().filter(|row| row.log.state == 2).count();
    let mut spans = vec![
        Span::styled("nutop", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            " {}  {} connections, {} established",
            escaped(log),
            grouped(all),
            grouped(established)
        )),
    ];
    if model.cut {
        spans.push(Span::styled("  CUT: there are more", theme.warning()));
    }
    if let Some(read) = model.read {
        spans.push(Span::raw(format!("  read {}", time_of_day(read))));
    }
    if model.paused.is_some() {
        spans.push(Span::styled("  PAUSED", theme.warning()));
    }
    Line::from(spans)
}

fn second_line<'a>(model: &Model, theme: Theme) -> Line<'a> {
    if let Screen::Typing { .. } = model.screen {
        return Line::raw(format!("filter: {}_", escaped(&model.filter)));
    }
    if let Some(trouble) = &model.trouble {
        let since = time_of_day(trouble.since);
        let text = format!(
            "AWAY since {since}, trying again; below is the last picture. {}",
            escaped(&trouble.message)
        );
        return Line::styled(text, theme.warning());
    }
    if let Some(note) = model.note {
        return Line::styled(note, theme.note());
    }
    if model.filter.is_empty() {
        return Line::default();
    }
    let shown = match &model.lines {
        Lines::Connections(places) => places.len(),
        Lines::Groups(groups) => groups.iter().map(|group| group.connections).sum(),
    };
    let text = format!("filter: {}  ({} fit)", escaped(&model.filter), grouped(shown));
    Line::styled(text, theme.note())
}

fn footer<'a>(model: &Model, theme: Theme) -> Line<'a> {
    let text = match &model.screen {
        Screen::Typing { .. } => "Enter keeps the filter  Esc takes the one before  Ctrl-U empties it",
        Screen::Help | Screen::Details { .. } => "Esc back",
        Screen::Table => {
            "q quit  ? help  / filter  < > sort  r reverse  g group  p pause  Enter details  Esc no filter"
        }
    };
    Line::styled(text, theme.colour(Color::Cyan))
}

/// How wide each column is in this many cells; those that have no room are left out, from the right.
fn widths(columns: &[Column], cells: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = Vec::new();
    let mut used = 0;
    for column in columns {
        let gap = usize::from(!widths.is_empty());
        if used + gap + column.cells > cells && !widths.is_empty() {
            break;
        }
        used += gap + column.cells;
        widths.push(column.cells.min(cells));
    }
    let spare = cells.saturating_sub(used);
    let shares: usize = columns.iter().take(widths.len()).map(|column| column.grows).sum();
    for (width, column) in widths.iter_mut().zip(columns) {
        *width += (spare * column.grows).checked_div(shares).unwrap_or(0);
    }
    widths
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, now: Timestamp, titles: Rect, table: Rect) {
    let (columns, sorted, falling): (&[Column], usize, bool) = match model.group {
        None => (&CONNECTIONS, model.sort as usize, model.falling),
        Some(_) => (&GROUPS, model.group_sort as usize, model.group_falling),
    };
    let widths = widths(columns, usize::from(table.width));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = Vec::new();
    for (place, (column, &width)) in columns.iter().zip(&widths).enumerate() {
        let mut title = match model.group {
            Some(by) if place == 0 => title_of(by).to_owned(),
            _ => column.title.to_owned(),
        };
        let mut style = bold;
        if place == sorted {
            title.push(if falling { '▼' } else { '▲' });
            style = style.add_modifier(Modifier::UNDERLINED);
        }
        let text = if column.number {
            right(&title, width)
        } else {
            fit(&title, width)
        };
        if place > 0 {
            spans.push(Span::raw(" "));
        }
        spans.push(Span::styled(text, style));
    }
    frame.render_widget(Line::from(spans), titles);

    let height = usize::from(table.height);
    let all: Vec<Vec<String>> = match &model.lines {
        Lines::Connections(places) => {
            let shown = places.iter().skip(model.top).take(height);
            let rows = shown.filter_map(|&place| model.rows.get(place));
            rows.map(|row| cells(row, now).to_vec()).collect()
        }
        Lines::Groups(groups) => {
            let shown = groups.iter().skip(model.top).take(height);
            shown.map(|group| group_cells(group, now).to_vec()).collect()
        }
    };
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (place, cells) in all.iter().enumerate() {
        let mut text = String::new();
        for ((cell, &width), column) in cells.iter().zip(&widths).zip(columns) {
            if !text.is_empty() {
                text.push(' ');
            }
            text += &if column.number {
                right(cell, width)
            } else {
                fit(cell, width)
            };
        }
        let mut style = Style::new();
        if model.top + place == model.selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        lines.push(Line::styled(text, style));
    }
    if lines.is_empty() && model.read.is_some() {
        let text = if model.rows.is_empty() {
            "No connection is live."
        } else {
            "No connection fits the filter."
        };
        lines.push(Line::raw(text));
    }
    frame.render_widget(Paragraph::new(lines), table);
}

pub(crate) fn title_of(by: GroupBy) -> &'static str {
    match by {
        GroupBy::User => "USER",
        GroupBy::Host => "HOST",
        GroupBy::Program => "PROGRAM",
    }
}

fn known(count: Option<u64>) -> String {
    count.map_or_else(|| UNKNOWN.to_owned(), bytes)
}

/// What the table shows of a connection, safe for a terminal.
pub(crate) fn cells(row: &Row, now: Timestamp) -> [String; 10] {
    [
        escaped(row.user()),
        escaped(row.program()),
        row.protocol(),
        escaped(&row.source()),
        escaped(&row.destination()),
        row.state().to_owned(),
        age(row.age(now)),
        known(row.log.bytes_in),
        known(row.log.bytes_out),
        known(row.rate.map(crate::row::Rate::total)),
    ]
}

/// What the table shows of a group.
pub(crate) fn group_cells(group: &Group, now: Timestamp) -> [String; 6] {
    [
        escaped(&group.key),
        format!(
            "{} ({} est.)",
            grouped(group.connections),
            grouped(group.established)
        ),
        known(group.bytes_in),
        known(group.bytes_out),
        known(group.rate),
        age(group.age(now)),
    ]
}

/// Everything that is known of a connection.
fn details(row: &Row, ended: bool, now: Timestamp) -> Vec<String> {
    let log = &row.log;
    let text = |text: Option<&str>| text.map_or_else(|| UNKNOWN.to_owned(), escaped);
    let number = |number: Option<u64>| number.map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string());
    let mut lines = Vec::new();
    if ended {
        lines.push("This connection is not live any more; this is how it was last seen.".to_owned());
    }
    let mut add = |name: &str, value: String| lines.push(format!("{name:<14}{value}"));
    add("id", log.id.to_string());
    let user_id = log
        .user_id
        .map_or_else(|| UNKNOWN.to_owned(), |id| id.to_string());
    add("user", format!("{} ({user_id})", escaped(row.user())));
    add("program", escaped(row.program()));
    add("system", text(log.client_os.as_deref()));
    add("state", row.state().to_owned());
    add("protocol", row.protocol());
    add(
        "original",
        format!("{} → {}", escaped(&row.source()), escaped(&row.destination())),
    );
    let end = |end: Option<String>| end.map_or_else(|| UNKNOWN.to_owned(), |end| escaped(&end));
    add(
        "reply (NAT)",
        format!("{} → {}", end(row.reply_source()), end(row.reply_destination())),
    );
    if let (Some(kind), Some(code)) = (log.icmp_type, log.icmp_code) {
        let id = number(log.icmp_id.map(u64::from));
        add("icmp", format!("type {kind} code {code} id {id}"));
    }
    add(
        "first packet",
        format!("{} ({} ago)", rfc3339(log.received), age(row.age(now))),
    );
    add(
        "answered",
        log.start_timestamp.map_or_else(|| UNKNOWN.to_owned(), rfc3339),
    );
    add(
        "packets",
        format!("{} in, {} out", number(log.packets_in), number(log.packets_out)),
    );
    add(
        "bytes",
        format!("{} in, {} out", number(log.bytes_in), number(log.bytes_out)),
    );
    let rate = row.rate.map_or_else(
        || UNKNOWN.to_owned(),
        |rate| format!("{}/s in, {}/s out", bytes(rate.input), bytes(rate.output)),
    );
    add("rate", rate);
    add("gateway", escaped(&log.gateway));
    add(
        "interfaces",
        format!(
            "{} → {}",
            text(log.oob_in.as_deref()),
            text(log.oob_out.as_deref())
        ),
    );
    if log.phys_in.is_some() || log.phys_out.is_some() {
        let ports = (text(log.phys_in.as_deref()), text(log.phys_out.as_deref()));
        add("bridge ports", format!("{} → {}", ports.0, ports.1));
    }
    add("rule", text(log.acl.as_deref()));
    add("prefix", text(log.oob_prefix.as_deref()));
    let mark = |mark: Option<u32>| mark.map_or_else(|| UNKNOWN.to_owned(), |mark| format!("{mark:#x}"));
    add(
        "mark",
        format!(
            "{} given, {} on the connection",
            mark(log.oob_mark),
            mark(log.ct_mark)
        ),
    );
    let entry = number(log.ct_id.map(u64::from));
    add(
        "kernel entry",
        format!("{entry}, zone {}", number(log.ct_zone.map(u64::from))),
    );
    lines
}

fn help() -> Vec<String> {
    let mut lines: Vec<String> = [
        "Keys",
        "  ↑ ↓ j k PgUp PgDn Home End G   move",
        "  Enter      details of a connection; in a group, its connections",
        "  /          filter; Esc in the table shows everything again",
        "  < >        sort by the column to the left or right; 1 to 9 and 0 by its number",
        "  r          reverse the order",
        "  g          group by user, host (source address), program, or not",
        "  p, space   pause: nothing is read, nothing moves",
        "  R          read now",
        "  q, Ctrl-C  quit",
        "",
        "IN is what the client sent, OUT what came back. – is not known: counters come with the end of a",
        "connection unless the gateway sends them before. Program and system are what the client says.",
        "",
        "Filter: words that must all occur, and pairs:",
    ]
    .map(str::to_owned)
    .to_vec();
    lines.extend(FIELDS.map(|(field, what)| format!("  {field:<9}:  {what}")));
    lines
}
