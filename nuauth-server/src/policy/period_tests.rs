use super::*;

fn period(zone: &str, change: impl FnOnce(&mut Period)) -> Period {
    let mut period = Period::new(Arc::from("p"), TimeZone::get(zone).unwrap());
    change(&mut period);
    period
}

fn hours(texts: &[&str]) -> Vec<Hours> {
    texts.iter().map(|text| Hours::parse(text).unwrap()).collect()
}

fn utc(text: &str) -> Timestamp {
    let moment: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_micros(moment.as_microsecond())
}

fn until(period: &Period, at: &str) -> Option<String> {
    match period.at(utc(at)) {
        Within::No => None,
        Within::Until(None) => Some("ever".to_owned()),
        Within::Until(Some(end)) => Some(
            jiff::Timestamp::from_microsecond(end.micros())
                .unwrap()
                .to_string(),
        ),
    }
}

#[test]
fn days_and_hours_are_those_of_the_clock_on_the_wall() {
    let office = period("Europe/Berlin", |p| {
        p.days = Days::default();
        assert!(p.days.add("mon-fri"));
        p.hours = hours(&["08:00-12:00", "13:00-17:30"]);
    });
    // A Monday in winter: one hour ahead of UTC.
    assert_eq!(until(&office, "2026-11-30T06:59:59Z"), None);
    assert_eq!(
        until(&office, "2026-11-30T07:00:00Z").unwrap(),
        "2026-11-30T11:00:00Z"
    );
    assert_eq!(until(&office, "2026-11-30T11:00:00Z"), None, "an end is outside");
    assert_eq!(
        until(&office, "2026-11-30T12:00:00Z").unwrap(),
        "2026-11-30T16:30:00Z"
    );
    // In summer two hours.
    assert_eq!(
        until(&office, "2026-07-06T06:00:00Z").unwrap(),
        "2026-07-06T10:00:00Z"
    );
    assert_eq!(until(&office, "2026-11-29T09:00:00Z"), None, "a Sunday");
}

#[test]
fn hours_past_midnight_belong_to_the_day_on_which_they_begin() {
    let night = period("UTC", |p| {
        p.days = Days::default();
        assert!(p.days.add("fri"));
        p.hours = hours(&["22:00-06:00"]);
    });
    assert_eq!(
        until(&night, "2026-12-04T22:00:00Z").unwrap(),
        "2026-12-05T06:00:00Z"
    );
    assert_eq!(
        until(&night, "2026-12-05T05:59:00Z").unwrap(),
        "2026-12-05T06:00:00Z"
    );
    assert_eq!(until(&night, "2026-12-04T05:59:00Z"), None);
    assert_eq!(until(&night, "2026-12-05T22:30:00Z"), None);
}

#[test]
fn spans_that_follow_each_other_end_with_the_last_one() {
    let weekend = period("UTC", |p| {
        p.days = Days::default();
        assert!(p.days.add("sat-mon"));
    });
    assert_eq!(
        until(&weekend, "2026-12-05T10:00:00Z").unwrap(),
        "2026-12-08T00:00:00Z"
    );
    assert_eq!(until(&weekend, "2026-12-08T00:00:00Z"), None);
    let always = period("UTC", |_| {});
    assert_eq!(until(&always, "2026-12-05T10:00:00Z").unwrap(), "ever");
    let all_day = period("UTC", |p| p.hours = hours(&["06:00-18:00", "18:00-06:00"]));
    assert_eq!(until(&all_day, "2026-12-05T10:00:00Z").unwrap(), "ever");
}

#[test]
fn an_hour_that_is_left_out_or_repeated_moves_the_end_with_the_clock() {
    let small_hours = period("Europe/Berlin", |p| p.hours = hours(&["01:00-02:30"]));
    // On 2026-03-29 the clock goes from 02:00 to 03:00, at 01:00 UTC.
    assert_eq!(
        until(&small_hours, "2026-03-29T00:00:00Z").unwrap(),
        "2026-03-29T01:00:00Z"
    );
    assert_eq!(until(&small_hours, "2026-03-29T01:00:00Z"), None);
    // On 2026-10-25 it goes from 03:00 back to 02:00, at 01:00 UTC: 02:30 comes twice.
    assert_eq!(
        until(&small_hours, "2026-10-25T00:45:00Z").unwrap(),
        "2026-10-25T01:30:00Z"
    );
    let night = period("Europe/Berlin", |p| p.hours = hours(&["22:00-06:00"]));
    // The change lies in the middle: the night is an hour longer.
    assert_eq!(
        until(&night, "2026-10-24T20:00:00Z").unwrap(),
        "2026-10-25T05:00:00Z"
    );
    assert_eq!(
        until(&night, "2026-03-28T21:00:00Z").unwrap(),
        "2026-03-29T04:00:00Z"
    );
    let from_the_gap = period("Europe/Berlin", |p| p.hours = hours(&["02:30-04:00"]));
    assert_eq!(
        until(&from_the_gap, "2026-03-29T01:00:00Z").unwrap(),
        "2026-03-29T02:00:00Z"
    );
}

#[test]
fn dates_and_durations_bound_what_is_accepted() {
    let day = |text: &str| text.parse::<Date>().unwrap();
    let holidays = period("UTC", |p| {
        p.dates = vec![(day("2026-12-24"), day("2026-12-26"))];
        p.duration = Some(Duration::from_hours(8));
    });
    assert_eq!(until(&holidays, "2026-12-23T23:59:59Z"), None);
    assert_eq!(
        until(&holidays, "2026-12-24T00:00:00Z").unwrap(),
        "2026-12-24T08:00:00Z"
    );
    assert_eq!(
        until(&holidays, "2026-12-26T20:00:00Z").unwrap(),
        "2026-12-27T00:00:00Z"
    );
    assert_eq!(until(&holidays, "2026-12-27T00:00:00Z"), None);
}

#[test]
fn words_that_are_no_hours_or_days_are_refused() {
    for text in [
        "8:00-12:00",
        "08:00",
        "08:00-08:00",
        "24:00-06:00",
        "08:60-09:00",
        "08:00-25:00",
        "10:00-00:00",
    ] {
        assert_eq!(Hours::parse(text).map(|h| h.to_string()), None, "{text}");
    }
    for text in ["monday", "", "mon-", "1-5"] {
        assert!(!Days::default().add(text), "{text}");
    }
    let mut days = Days::default();
    assert!(days.add("Sat-mon") && days.add("wed"));
    assert_eq!(days.to_string(), "mon,wed,sat,sun");
}

/// Minute by minute, by what the clock on the wall shows: written differently on purpose.
#[test]
fn every_minute_is_as_the_clock_shows_it_where_none_is_repeated() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let spans = ["00:30-02:15", "02:45-03:30", "23:00-01:00"];
    let period = period("Europe/Berlin", |p| p.hours = hours(&spans));
    for day in ["2026-03-28T20:00:00Z", "2026-07-01T00:00:00Z"] {
        let start = utc(day).micros();
        for minute in 0..(36 * 60) {
            let at = start + minute * 60_000_000;
            let shown = zone.to_datetime(jiff::Timestamp::from_microsecond(at).unwrap());
            let clock = u16::try_from(shown.hour()).unwrap() * 60 + u16::try_from(shown.minute()).unwrap();
            let expected = hours(&spans).iter().any(|h| {
                if h.wraps() {
                    clock >= h.from || clock < h.to
                } else {
                    (h.from..h.to).contains(&clock)
                }
            });
            let found = period.at(Timestamp::from_micros(at)) != Within::No;
            assert_eq!(found, expected, "{shown}");
        }
    }
}
