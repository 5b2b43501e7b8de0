//! The view's state under rows and keys, and what is drawn of it.

use super::*;
use crate::row::tests::{EPOCH, connection};
use crate::view::{self, Theme};
use nulog::LiveConnection;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn now() -> Timestamp {
    Timestamp::from_micros(EPOCH)
}

fn three() -> Vec<LiveConnection> {
    let mut alice = connection(1, "alice", "10.0.0.9", "/usr/bin/ssh");
    alice.state = 1;
    let mut bob = connection(2, "bob", "10.0.0.10", "/usr/bin/firefox");
    (bob.bytes_in, bob.bytes_out) = (Some(1000), Some(0));
    let carol = connection(3, "carol", "2001:db8::1", "/usr/bin/firefox");
    vec![carol, bob, alice]
}

fn picture(connections: Vec<LiveConnection>) -> Picture {
    Picture {
        connections,
        cut: false,
    }
}

struct Bench {
    model: Model,
    mono: Instant,
}

impl Bench {
    fn new(connections: Vec<LiveConnection>) -> Self {
        let mut bench = Self {
            model: Model::new(),
            mono: nufw_common::clock::mono(),
        };
        bench.model.resize(10);
        bench.read(connections);
        bench
    }

    /// Two seconds after the last one.
    fn read(&mut self, connections: Vec<LiveConnection>) {
        self.mono += Duration::from_secs(2);
        self.model.show(picture(connections), now(), self.mono);
    }

    fn press(&mut self, keys: &str) -> Effect {
        let mut effect = Effect::Nothing;
        for c in keys.chars() {
            let key = match c {
                '\n' => Key::Enter,
                '\x1b' => Key::Escape,
                '\x08' => Key::Backspace,
                c => Key::Char(c),
            };
            effect = self.model.press(key, now());
        }
        effect
    }

    fn users(&self) -> Vec<&str> {
        match &self.model.lines {
            Lines::Connections(places) => places
                .iter()
                .map(|&place| self.model.rows[place].user())
                .collect(),
            Lines::Groups(groups) => groups.iter().map(|group| group.key.as_str()).collect(),
        }
    }

    fn drawn(&mut self, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let theme = Theme { colour: false };
        terminal
            .draw(|frame| view::draw(frame, &mut self.model, "sqlite:/x\u{1b}.db", now(), theme))
            .unwrap();
        terminal.backend().to_string()
    }
}

#[test]
fn every_column_sorts_both_ways_and_what_is_not_known_stands_last() {
    let mut bench = Bench::new(three());
    for (keys, users) in [
        ("1", ["alice", "bob", "carol"]),
        ("r", ["carol", "bob", "alice"]),
        // The same program: the newest first, whichever way.
        ("2", ["carol", "bob", "alice"]),
        // As addresses, not as their text.
        ("4", ["alice", "bob", "carol"]),
        ("6", ["alice", "carol", "bob"]),
        ("7", ["alice", "bob", "carol"]),
        ("r", ["carol", "bob", "alice"]),
        ("8", ["bob", "carol", "alice"]),
        ("r", ["bob", "carol", "alice"]),
        ("0", ["carol", "bob", "alice"]),
        ("<<<", ["alice", "bob", "carol"]),
    ] {
        bench.press(keys);
        assert_eq!(bench.users(), users, "{keys}");
    }
    assert_eq!(bench.model.sort, Sort::Age);
    bench.press(">>>>>>>>>>>>");
    assert_eq!(bench.model.sort, Sort::Rate, "it stops at the last column");
}

#[test]
fn a_filter_is_applied_as_it_is_typed_and_escape_takes_the_one_before() {
    let mut bench = Bench::new(three());
    bench.press("/firefox");
    assert_eq!(bench.users(), ["bob", "carol"]);
    // Letters that are commands elsewhere are text here.
    bench.press("q");
    assert!(bench.users().is_empty());
    bench.press("\x08\n");
    assert_eq!(bench.users(), ["bob", "carol"]);
    bench.press("/ user:carol");
    assert_eq!(bench.users(), ["carol"]);
    bench.press("\x1b");
    assert_eq!((bench.model.filter.as_str(), bench.users().len()), ("firefox", 2));
    bench.press("\x1b");
    assert_eq!(bench.users().len(), 3);
    bench.press("/");
    bench.press(&"x".repeat(500));
    assert_eq!(bench.model.filter.len(), FILTER_LIMIT);
    bench.model.press(Key::Erase, now());
    assert_eq!(bench.model.filter, "");
}

#[test]
fn the_selection_stays_with_its_connection_and_the_first_line_is_a_place() {
    let mut bench = Bench::new(three());
    bench.press("1jj");
    assert_eq!(bench.users()[bench.model.selected], "carol");
    let mut more = three();
    more.push(connection(9, "aaron", "10.0.0.1", "x"));
    bench.read(more);
    assert_eq!(bench.users()[bench.model.selected], "carol");
    // When it is gone, the place stays, as far as there are lines.
    bench.read(three()[1..].to_vec());
    assert_eq!(bench.model.selected, 1);
    bench.press("kkkk");
    let mut more = three();
    more.push(connection(9, "aaron", "10.0.0.1", "x"));
    bench.read(more);
    assert_eq!(bench.users()[bench.model.selected], "aaron");
}

#[test]
fn the_screen_follows_the_selection_and_stays_full() {
    let many = (1..=100)
        .map(|n| connection(n, &format!("user{n:03}"), "10.0.0.1", "x"))
        .collect();
    let mut bench = Bench::new(many);
    bench.press("1G");
    assert_eq!((bench.model.top, bench.model.selected), (90, 99));
    bench.model.press(Key::PageUp, now());
    assert_eq!((bench.model.top, bench.model.selected), (89, 89));
    bench.model.press(Key::Home, now());
    assert_eq!((bench.model.top, bench.model.selected), (0, 0));
    bench.model.press(Key::PageDown, now());
    assert_eq!((bench.model.top, bench.model.selected), (1, 10));
    bench.press("G");
    bench.model.resize(200);
    assert_eq!((bench.model.top, bench.model.selected), (0, 99));
    bench.model.resize(0);
    assert_eq!(bench.model.top, 99);
    bench.read(Vec::new());
    assert_eq!((bench.model.top, bench.model.selected), (0, 0));
    for key in [Key::Enter, Key::Up, Key::Down, Key::End, Key::PageDown] {
        bench.model.press(key, now());
        assert_eq!(bench.model.screen, Screen::Table);
    }
}

#[test]
fn a_pause_holds_picture_and_ages_and_its_end_reads_at_once() {
    let mut bench = Bench::new(three());
    assert_eq!(bench.press("p"), Effect::Nothing);
    bench.read(Vec::new());
    assert_eq!(bench.users().len(), 3, "a read that was under way is not shown");
    let later = Timestamp::from_micros(EPOCH + 60_000_000);
    assert_eq!(bench.model.time(later), now());
    assert_eq!(bench.press("R"), Effect::Nothing);
    assert!(bench.drawn(120, 10).contains("PAUSED"));
    assert_eq!(bench.press(" "), Effect::Read);
    assert_eq!(bench.model.time(later), later);
    assert_eq!(bench.press("R"), Effect::Read);
}

#[test]
fn groups_add_up_and_open_into_their_connections() {
    let mut bench = Bench::new(three());
    bench.press("ggg");
    let Lines::Groups(groups) = &bench.model.lines else {
        panic!("no groups");
    };
    let firefox = &groups[0];
    assert_eq!(
        (firefox.key.as_str(), firefox.connections, firefox.established),
        ("/usr/bin/firefox", 2, 2)
    );
    // Of those whose counters are known; the other group has none.
    assert_eq!((firefox.bytes_in, groups[1].bytes_in), (Some(1000), None));
    assert_eq!(firefox.age(now()), Duration::from_secs(3));
    bench.press("1");
    assert_eq!(bench.users(), ["/usr/bin/firefox", "/usr/bin/ssh"]);
    bench.press("r\n");
    assert_eq!(bench.model.filter, "program:/usr/bin/ssh");
    assert_eq!(bench.users(), ["alice"]);
    bench.press("gg\n");
    assert_eq!(bench.model.filter, "program:/usr/bin/ssh src:10.0.0.9");
    assert_eq!(bench.users(), ["alice"]);
    // By user, then by host, then by program, then not at all.
    bench.press("\x1bg");
    assert_eq!(bench.users(), ["carol", "bob", "alice"]);
    bench.press("g1");
    assert_eq!(bench.users(), ["10.0.0.9", "10.0.0.10", "2001:db8::1"]);
    bench.press("gg");
    assert_eq!(bench.model.group, None);
}

#[test]
fn a_name_that_a_filter_can_not_say_is_said_to_be_one() {
    let mut bench = Bench::new(vec![connection(1, "al\"ice", "10.0.0.1", "x")]);
    bench.press("g\n");
    assert_eq!(
        (bench.model.group, bench.model.filter.as_str()),
        (Some(GroupBy::User), "")
    );
    assert!(bench.drawn(80, 8).contains("no filter can name this group"));
    bench.read(vec![connection(1, "al ice", "10.0.0.1", "x")]);
    bench.press("\n");
    assert_eq!(bench.users(), ["al ice"]);
}

#[test]
fn rates_come_from_two_reads_and_details_follow_their_connection() {
    let mut bench = Bench::new(three());
    bench.press("/bob\n\n");
    assert!(bench.drawn(120, 40).contains("bytes         1000 in, 0 out"));
    assert!(bench.drawn(120, 40).contains("rate          –"));
    let mut grown = three();
    grown[1].bytes_in = Some(5000);
    bench.read(grown);
    assert!(bench.drawn(120, 40).contains("rate          2.0k/s in, 0/s out"));
    // It ends while it is looked at.
    bench.read(three()[..1].to_vec());
    let drawn = bench.drawn(120, 40);
    assert!(
        drawn.contains("not live any more") && drawn.contains("5000 in"),
        "{drawn}"
    );
    bench.press("q");
    assert_eq!(bench.model.screen, Screen::Table);
    assert_eq!(bench.press("q"), Effect::Quit);
}

#[test]
fn a_database_that_is_away_is_said_since_when_and_the_picture_stays() {
    let mut bench = Bench::new(three());
    bench
        .model
        .fail("the log\x1b[2J cannot be reached".to_owned(), now());
    let later = Timestamp::from_micros(EPOCH + 60_000_000);
    bench.model.fail("it still cannot".to_owned(), later);
    let drawn = bench.drawn(120, 12);
    assert!(
        drawn.contains("AWAY since 08:00:00") && drawn.contains("it still cannot"),
        "{drawn}"
    );
    assert!(drawn.contains("alice") && drawn.contains("carol"), "{drawn}");
    bench.read(three());
    assert!(!bench.drawn(120, 12).contains("AWAY"));
}

#[test]
fn whatever_the_size_nothing_breaks_and_no_control_character_is_drawn() {
    let mut evil = connection(
        4,
        "ev\x1b[31mil\u{202e}",
        "10.0.0.66",
        "/tmp/\r\n\u{9b}2J\u{200b}",
    );
    evil.gateway = "g\x07w".to_owned();
    let mut rows = three();
    rows.insert(0, evil);
    let mut bench = Bench::new(rows);
    bench.model.cut = true;
    for keys in ["", "\n", "\x1b?", "\x1b/e", "\x1bg", "gg/\x1b", "g"] {
        bench.press(keys);
        for (width, height) in [(1, 1), (3, 2), (10, 5), (80, 24), (300, 60)] {
            let drawn = bench.drawn(width, height);
            let bad = drawn
                .chars()
                .find(|c| c.is_control() && *c != '\n' || matches!(c, '\u{202e}' | '\u{200b}' | '\u{9b}'));
            assert_eq!(bad, None, "{drawn:?}");
        }
    }
    bench.press("\x1b\x1b1");
    let drawn = bench.drawn(300, 10);
    assert!(
        drawn.contains("ev\\u{1b}[31mil\\u{202e}") && drawn.contains("CUT: there are more"),
        "{drawn}"
    );
    assert!(
        drawn.contains("sqlite:/x\\u{1b}.db  4 connections, 3 established"),
        "{drawn}"
    );
}

#[test]
fn the_help_names_every_field_of_a_filter() {
    let mut bench = Bench::new(three());
    bench.press("?");
    let drawn = bench.drawn(120, 50);
    for (field, _) in crate::filter::FIELDS {
        assert!(drawn.contains(&format!("  {field}")), "{field}");
    }
    bench.press("h");
    assert_eq!(bench.model.screen, Screen::Table);
}
