//! Values as a terminal may show them.
//!
//! What comes from the log was said by clients: nothing of it may reach the terminal that is not a plain character.

use nufw_proto::Timestamp;
use std::fmt::Write as _;
use std::time::Duration;
use time::OffsetDateTime;
use unicode_width::UnicodeWidthChar as _;

/// Stands for what is not known.
pub(crate) const UNKNOWN: &str = "–";

/// The text with every character visible that would move the cursor, change the direction of writing, or be nothing.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Formatting characters of Unicode, and separators of lines.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Cells that the text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().filter_map(char::width).sum()
}

/// The text in exactly this many cells: cut with an ellipsis, or filled up.
pub(crate) fn fit(text: &str, cells: usize) -> String {
    let whole = width(text);
    let mut shown = String::with_capacity(cells);
    if whole <= cells {
        shown.push_str(text);
        shown.extend(std::iter::repeat_n(' ', cells - whole));
        return shown;
    }
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide >= cells {
            break;
        }
        used += wide;
        shown.push(c);
    }
    if used < cells {
        shown.push('…');
        used += 1;
    }
    shown.extend(std::iter::repeat_n(' ', cells.saturating_sub(used)));
    shown
}

/// The text at the right end of this many cells.
pub(crate) fn right(text: &str, cells: usize) -> String {
    let fill = cells.saturating_sub(width(text));
    if fill == 0 {
        return fit(text, cells);
    }
    format!("{}{text}", " ".repeat(fill))
}

/// A number of bytes in at most six characters; k, M, G, T are powers of 1000.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1000 {
        return count.to_string();
    }
    let mut unit = 1000;
    let mut name = 'k';
    for next in ['M', 'G', 'T', 'P', 'E'] {
        // What would be rounded up to 1000 belongs to the next unit.
        if count / unit < 1000 - u64::from(count % unit >= unit - unit / 20) {
            break;
        }
        if let Some(larger) = u64::checked_mul(unit, 1000) {
            unit = larger;
            name = next;
        }
    }
    let tenths = count / (unit / 10);
    if tenths >= 1000 {
        format!("{}{name}", tenths / 10)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

/// How long something has lasted, in its two largest units.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// RFC 3339 in UTC with microseconds; the number itself where it is beyond any calendar.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.micros()) * 1000) else {
        return format!("{} µs since 1970", at.micros());
    };
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.microsecond()
    )
}

/// The time of day alone, UTC.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    let text = rfc3339(at);
    text.get(11..19).unwrap_or(&text).to_owned()
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        let _ = write!(shown, "{digit}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let text = "a\x1b[2Jb\rc\nd\u{9b}31me\u{202e}f\u{200b}g\0h\u{7f}";
        let shown = escaped(text);
        assert_eq!(
            shown,
            "a\\u{1b}[2Jb\\u{d}c\\u{a}d\\u{9b}31me\\u{202e}f\\u{200b}g\\u{0}h\\u{7f}"
        );
        assert_eq!(escaped("Zoë 🔥 /usr/bin/x"), "Zoë 🔥 /usr/bin/x");
    }

    #[test]
    fn a_text_fits_its_cells_whatever_its_characters_take() {
        for text in [
            "",
            "abc",
            "abcdef",
            "日本語日本語",
            "e\u{301}e\u{301}e\u{301}e\u{301}",
            "🔥🔥🔥🔥",
        ] {
            for cells in 0..9 {
                assert_eq!(width(&fit(text, cells)), cells, "{text:?} in {cells}");
                assert!(width(&right(text, cells)) == cells, "{text:?} in {cells}");
            }
        }
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 4), "日… ");
        assert_eq!(right("ab", 4), "  ab");
    }

    #[test]
    fn numbers_are_short() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1999, "1.9k"),
            (123_456, "123k"),
            (5_000_000_000, "5.0G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3_661, "1h01m"),
            (90_000, "1d01h"),
            (86_400 * 400, "400d00h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_have_microseconds_and_any_value_is_shown() {
        let shown = |micros| rfc3339(Timestamp::from_micros(micros));
        assert_eq!(shown(1_800_000_000_000_005), "2027-01-15T08:00:00.000005Z");
        assert_eq!(shown(-1), "1969-12-31T23:59:59.999999Z");
        assert!(shown(i64::MAX).contains("since 1970"));
        assert_eq!(
            time_of_day(Timestamp::from_micros(1_800_000_000_000_005)),
            "08:00:00"
        );
    }
}
