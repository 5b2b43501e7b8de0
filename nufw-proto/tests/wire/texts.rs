//! Texts are bounded and cannot forge a log line, whoever made them.

use nufw_proto::{BadText, Text};
use proptest::prelude::*;

/// Characters of every width, control characters among them.
fn any_text() -> impl Strategy<Value = String> {
    let any_char = prop_oneof![
        any::<char>(),
        proptest::char::range('\u{0}', '\u{1f}'),
        proptest::char::range('\u{7f}', '\u{9f}'),
        Just('€'),
        Just('a')
    ];
    proptest::collection::vec(any_char, 0..40).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn a_lossy_text_is_always_one_that_could_have_been_made(raw in any_text()) {
        let lossy = Text::<16>::lossy(&raw);
        prop_assert!(lossy.len() <= 16);
        prop_assert_eq!(Text::<16>::new(lossy.as_str()), Ok(lossy));
    }

    #[test]
    fn a_lossy_text_is_the_text_itself_where_that_is_allowed(raw in any_text()) {
        if let Ok(exact) = Text::<16>::new(raw.as_str()) {
            prop_assert_eq!(Text::lossy(&raw), exact);
        }
    }

    #[test]
    fn a_lossy_text_keeps_as_much_as_fits(raw in any_text()) {
        let lossy = Text::<16>::lossy(&raw);
        let replaced: String = raw.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        prop_assert!(replaced.starts_with(lossy.as_str()));
        if let Some(next) = replaced[lossy.len()..].chars().next() {
            prop_assert!(lossy.len() + next.len_utf8() > 16);
        }
    }

    #[test]
    fn a_text_is_taken_as_it_is_or_refused(raw in any_text()) {
        let expected = if raw.len() > 16 {
            Err(BadText::TooLong { found: raw.len(), max: 16 })
        } else if raw.chars().any(char::is_control) {
            Err(BadText::Control)
        } else {
            Ok(raw.clone())
        };
        prop_assert_eq!(Text::<16>::new(raw).map(String::from), expected);
    }

    #[test]
    fn a_text_from_the_wire_obeys_the_same_rule(raw in any_text()) {
        let wire = postcard::to_allocvec(&raw).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Text<16>>(&wire).ok(), Text::new(raw).ok());
    }
}
