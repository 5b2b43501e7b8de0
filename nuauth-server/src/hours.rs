//! Times of the week: when users may be logged in.
//!
//! Parsed once, with its zone; asked with the time as a parameter. It ends nobody: that is the engine's part.

use crate::engine::Identity;
use jiff::tz::TimeZone;
use nufw_proto::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Windows of one list; what comes after is refused when it is parsed.
const MAX_WINDOWS: usize = 64;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_OF_A_DAY: u16 = 24 * 60;
/// What is expected where a window stands.
pub const EXPECTED: &str =
    "days and times such as \"mon-fri 08:00-18:00\", \"sat,sun 10:00-12:30\" or \"daily 22:00-06:00\"";

/// One window: days on which it begins, and two times; past midnight when the second is not later than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// Monday is bit 0.
    days: u8,
    from: u16,
    until: u16,
}

/// Some windows of the week.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Week(Vec<Window>);

/// When who may be logged in.
#[derive(Debug, Clone, Default)]
pub struct Hours {
    zone: Option<TimeZone>,
    everybody: Option<Week>,
    groups: BTreeMap<Arc<str>, Week>,
}

impl Week {
    /// Reads windows; gives the index of one that is none.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, usize> {
        if texts.len() > MAX_WINDOWS {
            return Err(MAX_WINDOWS);
        }
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| Window::parse(text.as_ref()).ok_or(index))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn contains(&self, day: u8, minute: u16) -> bool {
        let before = (day + 6) % 7;
        self.0.iter().any(|window| {
            let on = |day: u8| window.days & (1 << day) != 0;
            if window.from < window.until {
                on(day) && (window.from..window.until).contains(&minute)
            } else {
                (on(day) && minute >= window.from) || (on(before) && minute < window.until)
            }
        })
    }
}

impl Window {
    fn parse(text: &str) -> Option<Self> {
        let (days, times) = text.trim().split_once(' ')?;
        let (from, until) = times.trim().split_once('-')?;
        let window = Self {
            days: parse_days(days)?,
            from: parse_time(from)?,
            until: parse_time(until)?,
        };
        (window.from < MINUTES_OF_A_DAY && window.from != window.until).then_some(window)
    }
}

fn parse_days(text: &str) -> Option<u8> {
    if text.eq_ignore_ascii_case("daily") {
        return Some(0x7f);
    }
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // From Friday to Monday goes over the end of the week.
        let length = (last + 7 - first) % 7;
        Some((first..=first + length).fold(days, |days, day| days | 1 << (day % 7)))
    })
}

fn parse_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())
            .flatten()
    };
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    let time = hour * 60 + minute;
    (minute < 60 && time <= MINUTES_OF_A_DAY).then_some(time)
}

impl Hours {
    /// Windows for everybody, if there are any, and for groups; the system's zone unless one is given.
    pub fn new(zone: Option<TimeZone>, everybody: Option<Week>, groups: BTreeMap<Arc<str>, Week>) -> Self {
        Self {
            zone: Some(zone.unwrap_or_else(TimeZone::system)),
            everybody,
            groups,
        }
    }

    /// Whether this user may be logged in at this time. Who is in groups with windows of their own goes by those, and by any
    /// of them; the others go by everybody's.
    pub fn allow(&self, user: &Identity, at: Timestamp) -> bool {
        if self.everybody.is_none() && self.groups.is_empty() {
            return true;
        }
        // A time that no calendar has is at no time of the day.
        let Ok(at) = jiff::Timestamp::from_microsecond(at.micros()) else {
            return false;
        };
        let at = self.zone.as_ref().unwrap_or(&TimeZone::UTC).to_datetime(at);
        let day = at.weekday().to_monday_zero_offset().unsigned_abs();
        let minute = u16::from(at.hour().unsigned_abs()) * 60 + u16::from(at.minute().unsigned_abs());
        let mut own = user
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group))
            .peekable();
        if own.peek().is_some() {
            return own.any(|week| week.contains(day, minute));
        }
        self.everybody
            .as_ref()
            .is_none_or(|week| week.contains(day, minute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::Mark;

    fn user(groups: &[&str]) -> Identity {
        Identity {
            user: nulog::User {
                id: 1,
                name: Arc::from("alice"),
            },
            mark: Mark(1),
            groups: groups.iter().map(|&group| Arc::from(group)).collect(),
        }
    }

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(at.as_microsecond())
    }

    fn hours(zone: &str, everybody: &[&str]) -> Hours {
        let zone = TimeZone::get(zone).unwrap();
        Hours::new(Some(zone), Some(Week::parse(everybody).unwrap()), BTreeMap::new())
    }

    #[test]
    fn a_window_is_of_its_days_and_in_its_zone() {
        let hours = hours("Europe/Berlin", &["mon-fri 08:00-18:00"]);
        // A Monday in winter, when Berlin is an hour ahead.
        for (time, allowed) in [
            ("2026-11-30T06:59:59Z", false),
            ("2026-11-30T07:00:00Z", true),
            ("2026-11-30T16:59:59Z", true),
            ("2026-11-30T17:00:00Z", false),
            ("2026-11-29T10:00:00Z", false),
            // In summer two.
            ("2026-07-06T06:00:00Z", true),
        ] {
            assert_eq!(hours.allow(&user(&[]), at(time)), allowed, "{time}");
        }
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_begins_on() {
        let hours = hours("UTC", &["fri 22:00-06:00"]);
        for (time, allowed) in [
            ("2026-12-04T21:59:00Z", false),
            ("2026-12-04T22:00:00Z", true),
            ("2026-12-05T05:59:00Z", true),
            ("2026-12-05T06:00:00Z", false),
            ("2026-12-05T22:30:00Z", false),
        ] {
            assert_eq!(hours.allow(&user(&[]), at(time)), allowed, "{time}");
        }
    }

    #[test]
    fn groups_with_windows_go_by_their_own() {
        let week = |text| Week::parse(&[text]).unwrap();
        let hours = Hours::new(
            Some(TimeZone::UTC),
            Some(week("daily 08:00-12:00")),
            [
                (Arc::from("staff"), week("daily 00:00-24:00")),
                (Arc::from("night"), week("daily 20:00-24:00")),
            ]
            .into(),
        );
        let evening = at("2026-12-04T21:00:00Z");
        let morning = at("2026-12-04T09:00:00Z");
        assert!(!hours.allow(&user(&["other"]), evening) && hours.allow(&user(&["other"]), morning));
        assert!(hours.allow(&user(&["staff"]), evening));
        assert!(hours.allow(&user(&["night"]), evening) && !hours.allow(&user(&["night"]), morning));
        assert!(hours.allow(&user(&["night", "staff"]), morning));
        assert!(Hours::default().allow(&user(&[]), evening));
    }

    #[test]
    fn what_is_no_window_is_refused_with_its_place() {
        for wrong in [
            "",
            "mon",
            "08:00-18:00",
            "mon 8:00-18:00",
            "mon 08:00-24:01",
            "mon 08:60-09:00",
            "mon 08:00-08:00",
            "mon 24:00-01:00",
            "moon 08:00-09:00",
            "mon,, 08:00-09:00",
            "mon 08:00",
        ] {
            assert_eq!(Week::parse(&["daily 00:00-24:00", wrong]), Err(1), "{wrong:?}");
        }
        let many = vec!["daily 00:00-24:00"; MAX_WINDOWS + 1];
        assert_eq!(Week::parse(&many), Err(MAX_WINDOWS));
        assert!(Week::parse(&many[1..]).is_ok());
        let week = Week::parse(&["fri-mon,wed 00:00-24:00"]).unwrap();
        let days: Vec<u8> = (0..7).filter(|&day| week.contains(day, 1)).collect();
        assert_eq!(days, [0, 2, 4, 5, 6]);
    }
}
