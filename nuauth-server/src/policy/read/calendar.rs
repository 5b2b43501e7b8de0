//! Periods and time zones.
//!
//! A period that could never be is refused; one that is over is the reader's business, who asks no clock.

use super::Reader;
use crate::policy::period::{Days, Hours, Period};
use crate::policy::raw::{RawDecision, RawLog, RawPeriod, RawRule};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::time::Duration;

impl Reader<'_> {
    /// The zone of that name; the system's own where none is named, as far as it has a name.
    pub(super) fn time_zone(&mut self, key: &str, name: Option<&str>) -> TimeZone {
        let Some(name) = name else {
            return TimeZone::try_system()
                .ok()
                .filter(|zone| zone.iana_name().is_some())
                .unwrap_or(TimeZone::UTC);
        };
        TimeZone::get(name).unwrap_or_else(|_| {
            let expected = "a time zone of this host, such as \"Europe/Berlin\" or \"UTC\"";
            self.reject(key, format_args!("string \"{name}\""), expected);
            TimeZone::UTC
        })
    }

    pub(super) fn period(&mut self, at: &str, raw: &RawPeriod) -> Arc<Period> {
        self.text(&format!("{at}.name"), &raw.name);
        let zone = match &raw.time_zone {
            Some(name) => self.time_zone(&format!("{at}.time-zone"), Some(name)),
            None => self.zone.clone(),
        };
        let mut period = Period::new(Arc::from(raw.name.as_str()), zone);
        if let Some(days) = &raw.days {
            period.days = Days::default();
            let key = format!("{at}.days");
            for (index, text) in self.list(&key, Some(days)).iter().enumerate() {
                if !period.days.add(text) {
                    let expected = "a day or days such as \"mon\" or \"mon-fri\"";
                    self.reject(
                        &format!("{key}[{index}]"),
                        format_args!("string \"{text}\""),
                        expected,
                    );
                }
            }
        }
        let key = format!("{at}.hours");
        for (index, text) in self.list(&key, raw.hours.as_deref()).iter().enumerate() {
            if let Some(hours) = Hours::parse(text) {
                period.hours.push(hours);
            } else {
                let expected = "hours such as \"08:00-12:30\", \"22:00-06:00\" or \"18:00-24:00\"";
                self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string \"{text}\""),
                    expected,
                );
            }
        }
        period.hours.sort_unstable_by_key(|hours| (hours.from, hours.to));
        let key = format!("{at}.dates");
        for (index, text) in self.list(&key, raw.dates.as_deref()).iter().enumerate() {
            if let Some(dates) = dates(text) {
                period.dates.push(dates);
            } else {
                let expected = "a date or dates such as \"2026-12-24\" or \"2026-12-24..2027-01-06\"";
                self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string \"{text}\""),
                    expected,
                );
            }
        }
        period.dates.sort_unstable();
        if let Some(duration) = raw.duration {
            if duration.0 < Duration::from_secs(1) {
                self.reject(&format!("{at}.duration"), duration, "at least 1s");
            }
            period.duration = Some(duration.0);
        }
        let period = Arc::new(period);
        if self
            .periods
            .insert(raw.name.clone(), Arc::clone(&period))
            .is_some()
        {
            self.reject(
                &format!("{at}.name"),
                format_args!("\"{}\" again", raw.name),
                "each name once",
            );
        }
        period
    }

    pub(super) fn period_of(&mut self, at: &str, raw: &RawRule) -> Option<Arc<Period>> {
        let name = raw.period.as_ref()?;
        let key = format!("{at}.period");
        let Some(period) = self.periods.get(name).map(Arc::clone) else {
            self.reject(
                &key,
                format_args!("string \"{name}\""),
                "the name of a [[period]] of this file",
            );
            return None;
        };
        if matches!((raw.decision, raw.log), (RawDecision::Accept, Some(RawLog::None))) {
            self.note(
                &key,
                "with log = \"none\" what it accepts goes on after the period: what has no row cannot be ended",
            );
        }
        Some(period)
    }
}

fn dates(text: &str) -> Option<(Date, Date)> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    // Exactly as they are written here: the parser takes times and zones, too.
    let date = |text: &str| (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten();
    let (first, last) = (date(first)?, date(last)?);
    (first <= last).then_some((first, last))
}
