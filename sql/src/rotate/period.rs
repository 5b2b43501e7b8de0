//! Days and months of UTC, which the archive is cut into, and how they are named.
//!
//! Pure arithmetic: no clock, no SQL.

use serde::{Deserialize, Serialize};
use std::fmt;
use time::{Date, Month, OffsetDateTime};

/// Seconds of a day of UTC.
const DAY: i64 = 86_400;

/// How much of the archive goes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A day of UTC.
    Day,
    /// A month of UTC.
    Month,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
        })
    }
}

/// A stretch of time, in seconds since 1970 in UTC: `from` is in it, `to` is not; `None` means without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Its first second.
    pub from: Option<i64>,
    /// The first second after it.
    pub to: Option<i64>,
}

/// One day or month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Which of the two.
    pub unit: Unit,
    /// Its first second.
    pub from: i64,
    /// The first second after it.
    pub to: i64,
}

impl Period {
    /// The one that this second is in; `None` beyond the year 9998, where no calendar of ours reaches.
    pub fn of(unit: Unit, second: i64) -> Option<Self> {
        match unit {
            Unit::Day => {
                let from = second.div_euclid(DAY).checked_mul(DAY)?;
                date(from)?;
                Some(Self {
                    unit,
                    from,
                    to: from + DAY,
                })
            }
            Unit::Month => {
                let date = date(second)?;
                let first = |year, month| Date::from_calendar_date(year, month, 1).ok();
                let (year, month) = (date.year(), date.month());
                let next = match month {
                    Month::December => first(year.checked_add(1)?, Month::January)?,
                    month => first(year, month.next())?,
                };
                Some(Self {
                    unit,
                    from: midnight(first(year, month)?),
                    to: midnight(next),
                })
            }
        }
    }

    /// The one after it.
    pub fn next(self) -> Option<Self> {
        Self::of(self.unit, self.to)
    }

    /// This one and those after it, `ahead` of them.
    pub fn and_ahead(self, ahead: u32) -> Vec<Self> {
        std::iter::successors(Some(self), |period| period.next())
            .take(usize::try_from(ahead).unwrap_or(usize::MAX).saturating_add(1))
            .collect()
    }

    /// As partitions are named: `d20261121`, `m202611`.
    pub(crate) fn name(self) -> String {
        let Some(date) = date(self.from) else {
            return format!("s{}", self.from);
        };
        let (year, month) = (date.year(), u8::from(date.month()));
        match self.unit {
            Unit::Day => format!("d{year:04}{month:02}{:02}", date.day()),
            Unit::Month => format!("m{year:04}{month:02}"),
        }
    }
}

impl Span {
    /// As files are named: `2026-11-21` for a day, `2026-11` for a month, `2026-11-03_2026-11-20` for several days,
    /// `until-2026-11-20` without a beginning; the last day named is in it.
    pub fn label(self) -> String {
        let day = |second: i64| {
            date(second).map_or_else(
                || second.to_string(),
                |date| {
                    format!(
                        "{:04}-{:02}-{:02}",
                        date.year(),
                        u8::from(date.month()),
                        date.day()
                    )
                },
            )
        };
        let whole =
            |unit, from| Period::of(unit, from).is_some_and(|p| p.from == from && Some(p.to) == self.to);
        match (self.from, self.to) {
            (Some(from), _) if whole(Unit::Day, from) => day(from),
            (Some(from), _) if whole(Unit::Month, from) => {
                let mut label = day(from);
                label.truncate(label.len().saturating_sub(3));
                label
            }
            (Some(from), Some(to)) => format!("{}_{}", day(from), day(to.saturating_sub(1))),
            (None, Some(to)) => format!("until-{}", day(to.saturating_sub(1))),
            (Some(from), None) => format!("since-{}", day(from)),
            (None, None) => "all".to_owned(),
        }
    }

    /// What of `wanted` is in none of `taken`, in order.
    pub(crate) fn uncovered(wanted: Period, taken: impl Iterator<Item = Self>) -> Vec<(i64, i64)> {
        let mut free = vec![(wanted.from, wanted.to)];
        for span in taken {
            let from = span.from.unwrap_or(i64::MIN);
            let to = span.to.unwrap_or(i64::MAX);
            free = free
                .into_iter()
                .flat_map(|(a, b)| [(a, b.min(from)), (a.max(to), b)])
                .filter(|(a, b)| a < b)
                .collect();
        }
        free.dedup();
        free
    }
}

/// The beginning of the period in which the time is that lies `keep` seconds before `now`: what is older is not kept.
pub fn cutoff(unit: Unit, now: i64, keep: i64) -> Option<i64> {
    Period::of(unit, now.checked_sub(keep)?).map(|period| period.from)
}

fn date(second: i64) -> Option<Date> {
    let date = OffsetDateTime::from_unix_timestamp(second).ok()?.date();
    (1..=9998).contains(&date.year()).then_some(date)
}

fn midnight(date: Date) -> i64 {
    date.midnight().assume_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T03:04:05Z.
    const NOW: i64 = 1_795_230_245;

    #[test]
    fn days_and_months_begin_at_midnight_of_utc_and_follow_each_other() {
        let day = Period::of(Unit::Day, NOW).unwrap();
        assert_eq!((day.name().as_str(), day.to - day.from), ("d20261121", 86_400));
        assert_eq!(Period::of(Unit::Day, day.to - 1), Some(day));
        assert_eq!(Period::of(Unit::Day, day.to), day.next());
        let names: Vec<_> = Period::of(Unit::Month, NOW)
            .unwrap()
            .and_ahead(3)
            .into_iter()
            .map(Period::name)
            .collect();
        assert_eq!(names, ["m202611", "m202612", "m202701", "m202702"]);
        let before = Period::of(Unit::Day, -1).unwrap();
        assert_eq!((before.name().as_str(), before.to), ("d19691231", 0));
        for second in [i64::MIN, i64::MAX] {
            assert_eq!(Period::of(Unit::Day, second), None);
            assert_eq!(Period::of(Unit::Month, second), None);
        }
    }

    #[test]
    fn the_day_that_is_partly_within_the_time_kept_is_kept() {
        let kept = cutoff(Unit::Day, NOW, 86_400).unwrap();
        assert_eq!(kept, Period::of(Unit::Day, NOW - 86_400).unwrap().from);
        assert_eq!(cutoff(Unit::Day, i64::MIN, 1), None);
    }

    #[test]
    fn spans_are_named_by_their_days() {
        let day = Period::of(Unit::Day, NOW).unwrap();
        let month = Period::of(Unit::Month, NOW).unwrap();
        let span = |from, to| Span { from, to }.label();
        assert_eq!(span(Some(day.from), Some(day.to)), "2026-11-21");
        assert_eq!(span(Some(month.from), Some(month.to)), "2026-11");
        assert_eq!(span(Some(month.from), Some(day.to)), "2026-11-01_2026-11-21");
        assert_eq!(span(None, Some(day.to)), "until-2026-11-21");
        assert_eq!(span(Some(day.from), None), "since-2026-11-21");
    }

    #[test]
    fn what_is_taken_is_left_out() {
        let month = Period::of(Unit::Month, NOW).unwrap();
        let span = |from: i64, to: i64| Span {
            from: Some(from),
            to: Some(to),
        };
        let taken = [
            span(month.from - 9, month.from + 10),
            span(month.from + 20, month.from + 30),
        ];
        let free = Span::uncovered(month, taken.into_iter());
        assert_eq!(
            free,
            [(month.from + 10, month.from + 20), (month.from + 30, month.to)]
        );
        let all = Span { from: None, to: None };
        assert_eq!(Span::uncovered(month, [all].into_iter()), []);
    }
}
