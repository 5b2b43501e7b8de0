//! Everything that can be seen, made from rows and keys: what is read, how it is sorted, what is selected.
//!
//! Pure: no terminal, no database, no clock. The edges bring reads, keys and the time, and draw what stands here.

#[cfg(test)]
mod tests;

use crate::filter::Filter;
use crate::order::{self, Group, GroupBy, GroupSort, Sort};
use crate::row::{Rate, Row};
use nufw_proto::Timestamp;
use nulog::Picture;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Characters of a filter; more are not taken.
const FILTER_LIMIT: usize = 200;

/// A key as the model knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C, whatever is on the screen.
    Interrupt,
    /// Ctrl-U.
    Erase,
}

/// What the edges must do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    Quit,
    /// Read at once.
    Read,
}

/// What is on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Screen {
    Table,
    /// One connection, as it was last seen.
    Details {
        row: Box<Row>,
        ended: bool,
    },
    Help,
    /// A filter is being typed; the one before comes back on Escape.
    Typing {
        before: String,
    },
}

/// Why the picture is an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) since: Timestamp,
    pub(crate) message: String,
}

/// The rows of the table, as they are arranged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Places in [`Model::rows`].
    Connections(Vec<usize>),
    Groups(Vec<Group>),
}

/// What was selected, by name: places change with every read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selected {
    Connection(i64),
    Group(String),
}

/// The view's state.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rows: Vec<Row>,
    /// More rows are live than were read.
    pub(crate) cut: bool,
    /// When the picture was read.
    pub(crate) read: Option<Timestamp>,
    read_mono: Option<Instant>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) lines: Lines,
    pub(crate) screen: Screen,
    pub(crate) sort: Sort,
    pub(crate) falling: bool,
    pub(crate) group: Option<GroupBy>,
    pub(crate) group_sort: GroupSort,
    pub(crate) group_falling: bool,
    pub(crate) filter: String,
    /// Since when it stands still.
    pub(crate) paused: Option<Timestamp>,
    pub(crate) selected: usize,
    selected_name: Option<Selected>,
    /// The first line on the screen.
    pub(crate) top: usize,
    /// Lines that the screen has room for.
    height: usize,
    /// What the last key came to, if it needs a word.
    pub(crate) note: Option<&'static str>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            cut: false,
            read: None,
            read_mono: None,
            trouble: None,
            lines: Lines::Connections(Vec::new()),
            screen: Screen::Table,
            sort: Sort::Age,
            falling: false,
            group: None,
            group_sort: GroupSort::Connections,
            group_falling: true,
            filter: String::new(),
            paused: None,
            selected: 0,
            selected_name: None,
            top: 0,
            height: 1,
            note: None,
        }
    }

    /// Takes what was read. A read that was under way when the view was paused is not shown.
    pub(crate) fn show(&mut self, picture: Picture, at: Timestamp, mono: Instant) {
        if self.paused.is_some() {
            return;
        }
        let time = self
            .read_mono
            .map_or(Duration::ZERO, |before| mono.saturating_duration_since(before));
        let before: HashMap<i64, &Row> = self.rows.iter().map(|row| (row.log.id, row)).collect();
        let rows = picture.connections.into_iter().map(|log| {
            let known = before.get(&log.id);
            let rate = known.and_then(|before| Rate::between(&before.log, &log, time));
            Row { log, rate }
        });
        self.rows = rows.collect();
        self.cut = picture.cut;
        self.read = Some(at);
        self.read_mono = Some(mono);
        self.trouble = None;
        self.arrange();
        self.follow_details();
    }

    /// Takes note that a read failed; the picture stays.
    pub(crate) fn fail(&mut self, message: String, at: Timestamp) {
        let since = self.trouble.as_ref().map_or(at, |trouble| trouble.since);
        self.trouble = Some(Trouble { since, message });
    }

    /// The time that ages are counted to: it stands still with the picture.
    pub(crate) fn time(&self, now: Timestamp) -> Timestamp {
        self.paused.unwrap_or(now)
    }

    /// Makes the table have this many lines.
    pub(crate) fn resize(&mut self, height: usize) {
        self.height = height.max(1);
        self.scroll();
    }

    pub(crate) fn filter_by(&mut self, text: String) {
        self.filter = text;
        self.arrange();
    }

    pub(crate) fn group_by(&mut self, group: Option<GroupBy>) {
        self.group = group;
        self.selected = 0;
        self.selected_name = None;
        self.arrange();
    }

    pub(crate) fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.falling = sort.falls();
        self.arrange();
    }

    pub(crate) fn reverse(&mut self) {
        match self.group {
            Some(_) => self.group_falling = !self.group_falling,
            None => self.falling = !self.falling,
        }
        self.arrange();
    }

    pub(crate) fn count(&self) -> usize {
        match &self.lines {
            Lines::Connections(places) => places.len(),
            Lines::Groups(groups) => groups.len(),
        }
    }

    /// Acts on a key.
    pub(crate) fn press(&mut self, key: Key, now: Timestamp) -> Effect {
        self.note = None;
        if key == Key::Interrupt {
            return Effect::Quit;
        }
        match &self.screen {
            Screen::Typing { .. } => self.type_filter(key),
            Screen::Help | Screen::Details { .. } => self.leave(key),
            Screen::Table => return self.press_in_table(key, now),
        }
        Effect::Nothing
    }

    fn leave(&mut self, key: Key) {
        if matches!(
            key,
            Key::Escape | Key::Enter | Key::Backspace | Key::Char('q' | '?' | 'h')
        ) {
            self.screen = Screen::Table;
        }
    }

    fn type_filter(&mut self, key: Key) {
        let Screen::Typing { before } = &self.screen else {
            return;
        };
        match key {
            Key::Enter => self.screen = Screen::Table,
            Key::Escape => {
                let before = before.clone();
                self.screen = Screen::Table;
                self.filter_by(before);
            }
            Key::Backspace => {
                self.filter.pop();
                self.arrange();
            }
            Key::Erase => self.filter_by(String::new()),
            Key::Char(c) if !c.is_control() && self.filter.chars().count() < FILTER_LIMIT => {
                self.filter.push(c);
                self.arrange();
            }
            _ => {}
        }
    }

    fn press_in_table(&mut self, key: Key, now: Timestamp) -> Effect {
        let last = self.count().saturating_sub(1);
        match key {
            Key::Char('q') => return Effect::Quit,
            Key::Char('?' | 'h') => self.screen = Screen::Help,
            Key::Char('/' | 'f') => {
                self.screen = Screen::Typing {
                    before: self.filter.clone(),
                };
            }
            Key::Char('p' | ' ') => {
                self.paused = match self.paused {
                    Some(_) => None,
                    None => Some(now),
                };
                if self.paused.is_none() {
                    return Effect::Read;
                }
            }
            Key::Char('R') => {
                if self.paused.is_none() {
                    return Effect::Read;
                }
                self.note = Some("paused: p goes on");
            }
            Key::Char('g') => self.group_by(GroupBy::after(self.group)),
            Key::Char('<' | ',') => self.next_sort(-1),
            Key::Char('>' | '.') => self.next_sort(1),
            Key::Char('r') => self.reverse(),
            Key::Char(digit @ '0'..='9') => self.sort_by_digit(digit),
            Key::Up | Key::Char('k') => self.select(self.selected.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(self.selected + 1),
            Key::PageUp => self.select(self.selected.saturating_sub(self.height)),
            Key::PageDown => self.select(self.selected + self.height),
            Key::Home => self.select(0),
            Key::End | Key::Char('G') => self.select(last),
            Key::Enter => self.enter(),
            Key::Escape => {
                self.filter_by(String::new());
            }
            _ => {}
        }
        Effect::Nothing
    }

    fn enter(&mut self) {
        match &self.lines {
            Lines::Connections(places) => {
                let row = places.get(self.selected).and_then(|&place| self.rows.get(place));
                if let Some(row) = row {
                    self.screen = Screen::Details {
                        row: Box::new(row.clone()),
                        ended: false,
                    };
                }
            }
            Lines::Groups(groups) => {
                let group = groups.get(self.selected);
                let filter = group.and_then(|group| self.group?.filter(&group.key));
                match filter {
                    Some(filter) => {
                        if !self.filter.is_empty() {
                            self.filter.push(' ');
                        }
                        self.filter.push_str(&filter);
                        self.group_by(None);
                    }
                    None => self.note = Some("no filter can name this group"),
                }
            }
        }
    }

    fn next_sort(&mut self, step: isize) {
        fn neighbour<T: Copy + PartialEq>(all: &[T], current: T, step: isize) -> T {
            let place = all.iter().position(|each| *each == current).unwrap_or(0);
            let next = place.saturating_add_signed(step).min(all.len() - 1);
            all.get(next).copied().unwrap_or(current)
        }
        match self.group {
            Some(_) => {
                self.group_sort = neighbour(&GroupSort::ALL, self.group_sort, step);
                self.group_falling = self.group_sort.falls();
                self.arrange();
            }
            None => self.sort_by(neighbour(&Sort::ALL, self.sort, step)),
        }
    }

    /// By the column of this number, 1 for the first; 0 for the tenth.
    fn sort_by_digit(&mut self, digit: char) {
        let column = match digit.to_digit(10) {
            Some(0) | None => 9,
            Some(digit) => digit as usize - 1,
        };
        match self.group {
            Some(_) => {
                if let Some(sort) = GroupSort::ALL.get(column) {
                    self.group_sort = *sort;
                    self.group_falling = sort.falls();
                    self.arrange();
                }
            }
            None => {
                if let Some(sort) = Sort::ALL.get(column) {
                    self.sort_by(*sort);
                }
            }
        }
    }

    /// Filters, groups and sorts anew, and finds the selected line again.
    fn arrange(&mut self) {
        let filter = Filter::parse(&self.filter);
        let fitting = self.rows.iter().enumerate().filter(|(_, row)| filter.fits(row));
        let mut places: Vec<usize> = fitting.map(|(place, _)| place).collect();
        self.lines = if let Some(by) = self.group {
            Lines::Groups(order::group(
                &places,
                &self.rows,
                by,
                self.group_sort,
                self.group_falling,
            ))
        } else {
            order::sort(&mut places, &self.rows, self.sort, self.falling);
            Lines::Connections(places)
        };
        let found = match (&self.selected_name, &self.lines) {
            (Some(Selected::Connection(id)), Lines::Connections(places)) => places
                .iter()
                .position(|&place| self.rows.get(place).is_some_and(|row| row.log.id == *id)),
            (Some(Selected::Group(key)), Lines::Groups(groups)) => {
                groups.iter().position(|group| group.key == *key)
            }
            _ => None,
        };
        match found {
            Some(place) => self.selected = place,
            None => self.selected = self.selected.min(self.count().saturating_sub(1)),
        }
        self.scroll();
    }

    fn select(&mut self, place: usize) {
        self.selected = place.min(self.count().saturating_sub(1));
        // The first line is a place rather than a row: what is new there is what one wants to see.
        self.selected_name = match &self.lines {
            _ if self.selected == 0 => None,
            Lines::Connections(places) => places
                .get(self.selected)
                .and_then(|&place| self.rows.get(place))
                .map(|row| Selected::Connection(row.log.id)),
            Lines::Groups(groups) => groups
                .get(self.selected)
                .map(|group| Selected::Group(group.key.clone())),
        };
        self.scroll();
    }

    /// Keeps the selected line on the screen, and the screen full.
    fn scroll(&mut self) {
        let last_top = self.count().saturating_sub(self.height);
        let lowest = (self.selected + 1).saturating_sub(self.height);
        self.top = self.top.min(last_top).max(lowest).min(self.selected);
    }

    fn follow_details(&mut self) {
        if let Screen::Details { row, ended } = &mut self.screen {
            match self.rows.iter().find(|found| found.log.id == row.log.id) {
                Some(found) => {
                    **row = found.clone();
                    *ended = false;
                }
                // Beyond the limit it may be live all the same.
                None => *ended = !self.cut,
            }
        }
    }
}
