//! Names of interfaces that are renamed, go, and come back under the index of another.

use crate::support::{Netns, permitted, sh};
use nufw_agent::queue::{InterfaceNames, MAX_NAMES};
use std::fmt::Write;

#[test]
fn a_name_follows_renaming_removal_and_the_reuse_of_an_index() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let mut names = InterfaceNames::new().unwrap();
        sh("ip link add first index 100 type bridge");
        names.refresh();
        assert_eq!(names.name(100).as_str(), "first");
        sh("ip link set first name second");
        names.refresh();
        assert_eq!(names.name(100).as_str(), "second");
        sh("ip link del second");
        names.refresh();
        assert_eq!(names.name(100).as_str(), "");
        sh("ip link add third index 100 type bridge");
        names.refresh();
        assert_eq!(names.name(100).as_str(), "third");
        // Whatever happens between two looks.
        sh("ip link del third; ip link add fourth index 100 type bridge");
        names.refresh();
        assert_eq!(names.name(100).as_str(), "fourth");
    });
}

#[test]
fn changes_that_were_lost_leave_no_old_name() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        sh("ip link add one index 100 type bridge");
        let mut names = InterfaceNames::new().unwrap();
        names.name(100);
        let mut batch = String::from("link set one name two\n");
        // More than the socket's buffer holds, and then the one that matters.
        for _ in 0..400 {
            batch.push_str("link set two mtu 1400\nlink set two mtu 1500\n");
        }
        batch.push_str("link set two name three\n");
        sh(&format!("ip -batch - <<'END'\n{batch}END"));
        names.refresh();
        assert_eq!(names.name(100).as_str(), "three");
    });
}

#[test]
fn more_interfaces_than_are_remembered_have_their_names_all_the_same() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let count = u32::try_from(MAX_NAMES).unwrap() + 100;
        let mut batch = String::new();
        // A pair is made in one go; the peers take indexes of their own.
        for n in 0..count / 2 {
            let _ = writeln!(batch, "link add a{n} type veth peer name b{n}");
        }
        sh(&format!("ip -batch - <<'END'\n{batch}END"));
        let table = sh("ip -o link show");
        let mut names = InterfaceNames::new().unwrap();
        let mut seen = 0;
        for _ in 0..2 {
            for line in table.lines() {
                let (index, rest) = line.split_once(": ").unwrap();
                let name = rest.split([':', '@']).next().unwrap();
                assert_eq!(names.name(index.trim().parse().unwrap()).as_str(), name);
                seen += 1;
            }
        }
        assert!(seen > 2 * MAX_NAMES, "{seen}");
        assert_eq!(names.remembered(), MAX_NAMES);
        sh("ip link set a0 name renamed");
        names.refresh();
        let index = sh("ip -o link show renamed | cut -d: -f1");
        assert_eq!(names.name(index.trim().parse().unwrap()).as_str(), "renamed");
    });
}
