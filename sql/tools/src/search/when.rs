//! Points in time as people give them, and as they are shown: in UTC, or in this machine's zone.
//!
//! What time it is comes from the caller.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nufw_common::config::HumanDuration;
use nufw_proto::Timestamp;

/// Where times are given and shown.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// UTC, or the zone of this machine.
    pub(super) fn new(local: bool) -> Self {
        Self(if local { TimeZone::system() } else { TimeZone::UTC })
    }

    /// What the head of a column of times says of it.
    pub(super) fn name(&self) -> &str {
        if self.0 == TimeZone::UTC {
            "UTC"
        } else {
            self.0.iana_name().unwrap_or("local time")
        }
    }

    /// Reads `now`, a time ago (`2h`, `90d`), RFC 3339, or a date with or without a time of day in this zone.
    pub(super) fn parse(&self, text: &str, now: Timestamp) -> Option<Timestamp> {
        if text == "now" {
            return Some(now);
        }
        if let Some(ago) = HumanDuration::parse(text) {
            let ago = i64::try_from(ago.0.as_micros()).ok()?;
            return Some(Timestamp::from_micros(now.micros().checked_sub(ago)?));
        }
        let at = match text.parse::<jiff::Timestamp>() {
            Ok(at) => at,
            Err(_) => text
                .parse::<DateTime>()
                .ok()?
                .to_zoned(self.0.clone())
                .ok()?
                .timestamp(),
        };
        Some(Timestamp::from_micros(at.as_microsecond()))
    }

    /// RFC 3339 with microseconds, for programs.
    pub(super) fn exact(&self, text: &str) -> String {
        self.show(text, "%Y-%m-%dT%H:%M:%S.%6f%:z")
    }

    /// The same for people.
    pub(super) fn plain(&self, text: &str) -> String {
        self.show(text, "%Y-%m-%d %H:%M:%S.%6f")
    }

    /// A time of the log in another form; as it is, if it is none.
    fn show(&self, text: &str, form: &str) -> String {
        match text.parse::<jiff::Timestamp>() {
            Ok(at) if self.0 == TimeZone::UTC && form.ends_with("%:z") => {
                at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
            }
            Ok(at) => at.to_zoned(self.0.clone()).strftime(form).to_string(),
            Err(_) => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let utc = Zone::new(false);
        // 2026-11-20T14:03:00Z
        let at = Timestamp::from_micros(1_795_183_380_000_000);
        for text in [
            "2026-11-20T14:03:00Z",
            "2026-11-20T15:03:00+01:00",
            "2026-11-20 14:03",
            "2026-11-20T14:03:00",
            "2026-11-20 14:03:00.000000",
            "now",
            "0s",
        ] {
            assert_eq!(utc.parse(text, at), Some(at), "{text}");
        }
        let ago = utc.parse("2h", at).unwrap();
        assert_eq!(at.micros() - ago.micros(), 7_200_000_000);
        let day = utc.parse("2026-11-20", at).unwrap();
        assert_eq!(at.micros() - day.micros(), (14 * 3600 + 180) * 1_000_000);
        for text in ["", "yesterdayish", "2026-13-01", "2 h", "14:03"] {
            assert_eq!(utc.parse(text, at), None, "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_their_zone() {
        let text = "2026-11-20T14:03:00.000007Z";
        assert_eq!(Zone::new(false).exact(text), text);
        let kathmandu = Zone(TimeZone::fixed(jiff::tz::Offset::from_seconds(20_700).unwrap()));
        assert_eq!(kathmandu.exact(text), "2026-11-20T19:48:00.000007+05:45");
        assert_eq!(kathmandu.plain(text), "2026-11-20 19:48:00.000007");
        assert_eq!(kathmandu.plain("?"), "?");
    }
}
