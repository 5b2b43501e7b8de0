//! The words of people for IP protocol numbers: one table for every file, option and column that has them.
//!
//! What a protocol's packets hold is `Transport`'s business.

/// Protocols that have a word, with their numbers (IANA, Assigned Internet Protocol Numbers).
const WORDS: [(&str, u8); 10] = [
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("sctp", 132),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp", 1),
    ("icmpv6", 58),
];

/// What is to be written for a protocol, as a message says it.
pub const EXPECTED: &str =
    "tcp, udp, udplite, sctp, dccp, gre, esp, ah, icmp, icmpv6 or a number from 0 to 255";

/// The number of a protocol that is written as its word or as a number: digits only, and small letters.
pub fn parse(text: &str) -> Option<u8> {
    let known = WORDS.iter().find(|(word, _)| *word == text);
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    known
        .map(|(_, number)| *number)
        .or_else(|| text.parse().ok().filter(|_| is_number))
}

/// The word for a protocol, or its number.
pub fn show(number: u8) -> String {
    WORDS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_a_number_are_the_same_protocol() {
        for (word, number) in WORDS {
            assert_eq!((parse(word), show(number)), (Some(number), word.to_owned()));
            assert_eq!(parse(&number.to_string()), Some(number));
            assert!(EXPECTED.contains(word));
        }
        assert_eq!((parse("200"), show(200)), (Some(200), "200".to_owned()));
        for wrong in ["", "tpc", "TCP", "+6", "256", " 6", "-1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
