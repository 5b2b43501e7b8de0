//! A file of leases: `address user until`, a line each, as a captive portal or a script behind a DHCP server writes it.
//!
//! Pure: text and time in, changes out. Whoever may write the file says who is where.

use nufw_proto::{Addr, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of the file.
pub(super) const MAX_BYTES: u64 = 8 << 20;
/// Lines with a lease; further ones are left out.
const MAX_LEASES: usize = 65_536;
/// Sentences about bad lines of one reading.
const MAX_SENTENCES: usize = 5;

/// Who is told to be where, and until when.
#[derive(Debug, Default)]
pub(super) struct Leases {
    wanted: HashMap<Addr, (Arc<str>, Option<Timestamp>)>,
    told: HashMap<Addr, Arc<str>>,
}

impl Leases {
    /// Takes the file's text in the place of the former; gives sentences about lines that say nothing.
    pub(super) fn read(&mut self, text: &str) -> Vec<String> {
        self.wanted.clear();
        let mut sentences = Vec::new();
        let mut bad = 0_usize;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse(line) {
                Ok((address, lease)) if self.wanted.len() < MAX_LEASES => {
                    self.wanted.insert(address, lease);
                }
                Ok(_) => {
                    sentences.push(format!(
                        "there are more than {MAX_LEASES} leases: from line {} on they are left out",
                        index + 1
                    ));
                    break;
                }
                Err(why) => {
                    bad += 1;
                    if bad <= MAX_SENTENCES {
                        sentences.push(format!("line {}: {why}", index + 1));
                    }
                }
            }
        }
        if bad > MAX_SENTENCES {
            sentences.push(format!("{} further lines are wrong", bad - MAX_SENTENCES));
        }
        sentences
    }

    /// What is other than it was told last.
    pub(super) fn changes(&mut self, now: Timestamp) -> Vec<(Addr, Option<Arc<str>>)> {
        let live = |address: &Addr| {
            self.wanted
                .get(address)
                .filter(|(_, until)| until.is_none_or(|until| now < until))
                .map(|(user, _)| Arc::clone(user))
        };
        let mut changes: Vec<(Addr, Option<Arc<str>>)> = self
            .told
            .keys()
            .filter(|address| live(address).is_none())
            .map(|&address| (address, None))
            .collect();
        changes.extend(self.wanted.keys().filter_map(|address| {
            let user = live(address)?;
            (self.told.get(address) != Some(&user)).then_some((*address, Some(user)))
        }));
        changes.sort_unstable();
        for (address, user) in &changes {
            match user {
                Some(user) => self.told.insert(*address, Arc::clone(user)),
                None => self.told.remove(address),
            };
        }
        changes
    }
}

type Lease = (Arc<str>, Option<Timestamp>);

/// The user's name may have blanks: the address is before the first, the time behind the last.
fn parse(line: &str) -> Result<(Addr, Lease), String> {
    let expected = "expected: address, user, and a time such as 2026-12-31T18:00:00Z or \"-\"";
    let (address, rest) = line.split_once(char::is_whitespace).ok_or(expected)?;
    let (user, until) = rest.trim().rsplit_once(char::is_whitespace).ok_or(expected)?;
    let address = address
        .parse::<std::net::IpAddr>()
        .map_err(|_| format!("\"{address}\" is no address; {expected}"))?;
    let until = match until {
        "-" => None,
        text => {
            let at: jiff::Timestamp = text
                .parse()
                .map_err(|_| format!("\"{text}\" is no time; {expected}"))?;
            Some(Timestamp::from_micros(at.as_microsecond()))
        }
    };
    let user = user.trim();
    if user.is_empty() {
        return Err(expected.to_owned());
    }
    Ok((Addr::from(address), (Arc::from(user), until)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn changes(leases: &mut Leases, now: &str) -> Vec<(String, Option<String>)> {
        let changes = leases.changes(at(now));
        changes
            .into_iter()
            .map(|(address, user)| (address.to_string(), user.map(|user| user.to_string())))
            .collect()
    }

    #[test]
    fn a_lease_begins_changes_hands_and_ends() {
        let mut leases = Leases::default();
        let (early, late) = ("2026-12-01T08:00:00Z", "2026-12-01T12:00:00Z");
        let text = "# portal\n\n10.0.0.7 alice 2026-12-01T10:00:00Z\n2001:db8::7\tbob  smith\t-\n";
        assert_eq!(leases.read(text), Vec::<String>::new());
        let some = |user: &str| Some(user.to_owned());
        assert_eq!(
            changes(&mut leases, early),
            [
                ("10.0.0.7".to_owned(), some("alice")),
                ("2001:db8::7".to_owned(), some("bob  smith"))
            ]
        );
        assert_eq!(changes(&mut leases, early), []);
        leases.read("10.0.0.7 carol 2026-12-01T10:00:00+01:00\n2001:db8::7 bob  smith -\n");
        assert_eq!(
            changes(&mut leases, early),
            [("10.0.0.7".to_owned(), some("carol"))]
        );
        assert_eq!(changes(&mut leases, late), [("10.0.0.7".to_owned(), None)]);
        leases.read("");
        assert_eq!(changes(&mut leases, late), [("2001:db8::7".to_owned(), None)]);
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_takes_no_other_with_it() {
        let mut leases = Leases::default();
        let told = leases.read("10.0.0.7 alice -\n10.0.0.8\n10.0.0.9 bob soon\nhost carol -\n");
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("line 2: expected: "), "{told:?}");
        assert!(told[1].starts_with("line 3: \"soon\" is no time"), "{told:?}");
        assert!(told[2].starts_with("line 4: \"host\" is no address"), "{told:?}");
        assert_eq!(changes(&mut leases, "2026-12-01T08:00:00Z").len(), 1);
        let many = leases.read(&"nonsense\n".repeat(100));
        assert_eq!(many.len(), MAX_SENTENCES + 1);
        assert_eq!(many[MAX_SENTENCES], "95 further lines are wrong");
    }

    #[test]
    fn leases_are_bounded() {
        let mut leases = Leases::default();
        let line = |n: usize| format!("10.{}.{}.{} u -\n", n >> 16, n >> 8 & 255, n & 255);
        let told = leases.read(&(0..=MAX_LEASES).map(line).collect::<String>());
        assert_eq!(
            told,
            ["there are more than 65536 leases: from line 65537 on they are left out"]
        );
        assert_eq!(leases.changes(at("2026-12-01T08:00:00Z")).len(), MAX_LEASES);
    }
}
