//! Periods: when a rule holds, by days, hours and dates of a time zone, or for how long.
//!
//! The clock on the wall counts. A span begins when that clock first shows its beginning and ends when it last shows its
//! end, so that of an hour that daylight saving repeats both belong to it; a time that the clock leaves out is the moment at
//! which it jumps. Asks no clock: the time is a parameter.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use nufw_proto::Timestamp;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Spans that follow each other without a gap are one; whatever goes on for longer than this has no end.
const FURTHEST_END: i32 = 400;
const DAY: &str = "24:00";

/// Minutes of a day from one to another; the second is not the first, and may be on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Minutes after midnight.
    pub from: u16,
    /// Minutes after midnight; 1440 is the next midnight.
    pub to: u16,
}

impl Hours {
    /// `08:00-12:30`, `22:00-06:00`, `18:00-24:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let minutes = |text: &str| {
            if text == DAY {
                return Some(1440);
            }
            let (hour, minute) = text.split_once(':')?;
            let number = |text: &str, below: u16| {
                (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
                    .then(|| text.parse().ok())
                    .flatten()
                    .filter(|&n: &u16| n < below)
            };
            Some(number(hour, 24)? * 60 + number(minute, 60)?)
        };
        let hours = Self {
            from: minutes(from)?,
            to: minutes(to)?,
        };
        (hours.from != hours.to && hours.from < 1440 && hours.to > 0).then_some(hours)
    }

    fn wraps(self) -> bool {
        self.to <= self.from
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

/// The words of the days, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Days of the week, as bits; bit 0 is Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Days(u8);

impl Days {
    /// Every day.
    pub const ALL: Self = Self(0x7f);

    /// Adds `mon` or `sat-tue`; `false` if it is neither.
    pub fn add(&mut self, text: &str) -> bool {
        let day = |word: &str| DAYS.iter().position(|day| word.eq_ignore_ascii_case(day));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Some(first), Some(last)) = (day(first), day(last)) else {
            return false;
        };
        let mut at = first;
        loop {
            self.0 |= 1 << at;
            if at == last {
                return true;
            }
            at = (at + 1) % 7;
        }
    }

    fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = (0..7)
            .filter(|d| self.0 & (1 << d) != 0)
            .map(|d| DAYS[d])
            .collect();
        f.write_str(&days.join(","))
    }
}

/// When rules hold.
#[derive(Debug)]
pub struct Period {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Whose clock counts.
    pub zone: TimeZone,
    /// The days on which a span may begin.
    pub days: Days,
    /// The hours of such a day; all of it, if there are none.
    pub hours: Vec<Hours>,
    /// First and last dates; any, if there are none.
    pub dates: Vec<(Date, Date)>,
    /// What is accepted in it lives no longer.
    pub duration: Option<Duration>,
    /// What the calendar said last, and from when until when it says the same.
    last: Mutex<Option<Answer>>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    from: i64,
    until: i64,
    /// Where in the period that is.
    inside: Inside,
}

/// The same in microseconds.
#[derive(Debug, Clone, Copy)]
enum Inside {
    No,
    Until(Option<i64>),
}

/// Where in the period a time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// It is outside.
    No,
    /// It is inside, and will be outside then, if ever.
    Until(Option<Timestamp>),
}

impl Period {
    /// A period of that name that is always.
    pub fn new(name: Arc<str>, zone: TimeZone) -> Self {
        Self {
            name,
            zone,
            days: Days::ALL,
            hours: Vec::new(),
            dates: Vec::new(),
            duration: None,
            last: Mutex::new(None),
        }
    }

    /// Whether and how long that time is in the period.
    pub fn at(&self, at: Timestamp) -> Within {
        let now = at.micros();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match *last {
            Some(answer) if (answer.from..answer.until).contains(&now) => answer,
            _ => {
                let answer = self.look(now);
                *last = Some(answer);
                answer
            }
        };
        drop(last);
        let Inside::Until(end) = answer.inside else {
            return Within::No;
        };
        let of_duration = self.duration.map(|lifetime| {
            let micros = i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX);
            now.saturating_add(micros)
        });
        Within::Until(
            end.into_iter()
                .chain(of_duration)
                .min()
                .map(Timestamp::from_micros),
        )
    }

    /// Asks the calendar.
    fn look(&self, now: i64) -> Answer {
        let Ok(instant) = jiff::Timestamp::from_microsecond(now) else {
            // No clock of ours shows such a time.
            return Answer {
                from: now,
                until: now,
                inside: Inside::No,
            };
        };
        let today = self.zone.to_datetime(instant).date();
        // A span of yesterday may go on past midnight.
        let mut spans: Vec<(i64, i64)> = (-1..=2).flat_map(|days| self.spans(today, days)).collect();
        spans.sort_unstable();
        let inside = spans
            .iter()
            .find(|(from, to)| (*from..*to).contains(&now))
            .copied();
        // Until the next edge; and not past the days that were looked at.
        let edges = spans.iter().flat_map(|&(from, to)| [from, to]);
        let next_edge = edges.filter(|&edge| edge > now).min();
        let horizon = moved(today, 2).map_or(now, |date| {
            self.clock_shows(date.to_datetime(Time::midnight()), false)
        });
        let until = next_edge.map_or(horizon, |edge| edge.min(horizon)).max(now);
        Answer {
            from: now,
            until,
            inside: inside.map_or(Inside::No, |(_, end)| Inside::Until(self.end_of(today, end))),
        }
    }

    /// The end of what follows without a gap; none, if it goes on for ever as far as anybody cares.
    fn end_of(&self, today: Date, mut end: i64) -> Option<i64> {
        for days in -1..FURTHEST_END {
            for (from, to) in self.spans(today, days) {
                if from <= end && to > end {
                    end = to;
                }
            }
            // What begins later begins with the next day at the earliest.
            let next_day = moved(today, days + 1)?;
            if self.clock_shows(next_day.to_datetime(Time::midnight()), false) > end {
                return Some(end);
            }
        }
        None
    }

    /// The spans that begin so many days after a date, in microseconds since 1970.
    fn spans(&self, today: Date, days: i32) -> Vec<(i64, i64)> {
        let Some(date) = moved(today, days) else {
            return Vec::new();
        };
        let in_dates = self.dates.is_empty()
            || self
                .dates
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&date));
        if !in_dates || !self.days.has(date.weekday()) {
            return Vec::new();
        }
        let whole = [Hours { from: 0, to: 1440 }];
        let hours = if self.hours.is_empty() {
            &whole[..]
        } else {
            &self.hours
        };
        let mut spans: Vec<(i64, i64)> = hours
            .iter()
            .filter_map(|hours| {
                let end = if hours.wraps() || hours.to == 1440 {
                    moved(date, 1)?
                } else {
                    date
                };
                let from = self.clock_shows(on(date, hours.from), false);
                let to = self.clock_shows(on(end, hours.to % 1440), true);
                (from < to).then_some((from, to))
            })
            .collect();
        spans.sort_unstable();
        spans
    }

    /// The first or the last moment at which the clock on the wall shows that; the moment of the jump, if it never does.
    fn clock_shows(&self, shown: DateTime, last: bool) -> i64 {
        let ambiguous = self.zone.to_ambiguous_timestamp(shown);
        let micros = |moment: Result<jiff::Timestamp, jiff::Error>| {
            moment.map_or(i64::MAX, jiff::Timestamp::as_microsecond)
        };
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => micros(ambiguous.compatible()),
            AmbiguousOffset::Fold { .. } if last => micros(ambiguous.later()),
            AmbiguousOffset::Fold { .. } => micros(ambiguous.earlier()),
            AmbiguousOffset::Gap { .. } => {
                let after = ambiguous.later();
                let jump = after
                    .as_ref()
                    .ok()
                    .and_then(|&after| self.zone.preceding(after).next())
                    .map(|jump| jump.timestamp());
                micros(jump.map_or(after, Ok))
            }
        }
    }
}

fn on(date: Date, minutes: u16) -> DateTime {
    let part = |n: u16| i8::try_from(n).unwrap_or_default();
    date.at(part(minutes / 60), part(minutes % 60), 0, 0)
}

fn moved(date: Date, days: i32) -> Option<Date> {
    date.checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

impl fmt::Display for Period {
    /// The conditions, for people: `days mon,tue hours 08:00-12:00 in Europe/Berlin`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Days::ALL {
            write!(f, "days {} ", self.days)?;
        }
        if !self.hours.is_empty() {
            write!(f, "hours {} ", list(&self.hours))?;
        }
        if !self.dates.is_empty() {
            write!(f, "dates {} ", list(self.dates()))?;
        }
        if let Some(duration) = self.duration {
            write!(f, "for {} ", nufw_common::config::HumanDuration(duration))?;
        }
        write!(f, "in {}", self.zone_name())
    }
}

impl Period {
    /// The dates as they are written.
    pub fn dates(&self) -> Vec<String> {
        self.dates
            .iter()
            .map(|(first, last)| {
                if first == last {
                    first.to_string()
                } else {
                    format!("{first}..{last}")
                }
            })
            .collect()
    }

    /// The name of the time zone.
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The days, if they are not all.
    pub fn days_word(&self) -> Option<String> {
        (self.days != Days::ALL).then(|| self.days.to_string())
    }
}

fn list(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(",")
}

#[cfg(test)]
#[path = "period_tests.rs"]
mod tests;
