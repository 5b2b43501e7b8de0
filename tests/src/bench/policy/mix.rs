//! The rules, users and packets that access lists are measured with: fixed, from one seed.
//!
//! Overlapping prefixes of both families, single ports and ranges, users in 1 to 200 of 500 groups, globs of programs, and one
//! rule in a hundred that asks for nothing but a group.

use anyhow::Result;
use nuauth_server::engine::{Identity, Quality, Subject};
use nufw_proto::{Addr, Mark, Ports, Timestamp, Transport, Tuple};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const GROUPS: u32 = 500;
/// Groups of a user at most.
const MOST_GROUPS: u32 = 200;
const PORTS: [u16; 12] = [22, 25, 53, 80, 110, 143, 443, 993, 3306, 5432, 8080, 8443];
const PROGRAMS: [&str; 8] = [
    "/usr/bin/ssh",
    "/usr/bin/curl",
    "/usr/lib/firefox/firefox",
    "/usr/lib/thunderbird/thunderbird",
    "/opt/office/bin/writer",
    "/opt/tools/7/bin/sync",
    "/home/user/bin/script",
    "/usr/sbin/daemon",
];
const GLOBS: [&str; 8] = [
    "/usr/bin/*",
    "/usr/lib/firefox/*",
    "/usr/**",
    "/opt/*/bin/*",
    "/opt/tools/?/bin/{sync,copy}",
    "/home/*/bin/*",
    "/usr/sbin/daemon",
    "/snap/**/bin/*",
];
/// 2027-01-15 08:00 UTC.
const AT: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// `SplitMix64`: the same numbers everywhere.
#[derive(Debug, Clone)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }

    fn percent(&mut self, share: u32) -> bool {
        self.below(100) < share
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(u32::try_from(items.len()).unwrap_or(1)) as usize]
    }

    /// An address of 10.0.0.0/8, more often of some parts of it.
    fn v4(&mut self) -> u32 {
        let busy = self.below(16) << 16;
        let spread = self.below(1 << 24);
        let bits = if self.percent(70) {
            busy | (spread & 0xffff)
        } else {
            spread
        };
        0x0a00_0000 | bits
    }

    fn v6(&mut self) -> u128 {
        0x2001_0db8_u128 << 96 | u128::from(self.below(256)) << 80 | u128::from(self.below(1 << 16))
    }
}

/// What is measured with.
pub(super) struct Mix {
    users: Vec<Identity>,
    packets: Vec<Packet>,
}

struct Packet {
    user: Option<usize>,
    quality: Quality,
    tuple: Tuple,
    program: Option<&'static str>,
    in_dev: &'static str,
}

impl Mix {
    pub(super) fn new(users: u32, packets: usize) -> Result<Self> {
        let mut numbers = Numbers(1);
        let names: Vec<Arc<str>> = (0..GROUPS).map(|group| Arc::from(format!("g{group}"))).collect();
        let users = (0..users)
            .map(|id| {
                // Few users are in many groups.
                let tenth = if numbers.percent(10) { MOST_GROUPS } else { 20 };
                let count = 1 + numbers.below(tenth);
                let first = numbers.below(GROUPS);
                let groups = (0..count).map(|n| Arc::clone(&names[((first + n * 7) % GROUPS) as usize]));
                Identity {
                    user: nulog::User {
                        id: u64::from(id) + 1,
                        name: Arc::from(format!("user{id}")),
                    },
                    mark: Mark(id + 1),
                    groups: groups.collect(),
                }
            })
            .collect::<Vec<_>>();
        let count = u32::try_from(users.len()).unwrap_or(u32::MAX);
        let packets = (0..packets)
            .map(|_| Packet::new(&mut numbers, count))
            .collect::<Result<_>>()?;
        Ok(Self { users, packets })
    }

    /// Lists of so many rules.
    pub(super) fn rules(&self, count: usize) -> String {
        let mut numbers = Numbers(2);
        let users = u32::try_from(self.users.len()).unwrap_or(u32::MAX);
        let mut text = String::from(
            "time-zone = \"UTC\"\n[[period]]\nname = \"office\"\ndays = [\"mon-fri\"]\nhours = [\"07:00-19:00\"]\n",
        );
        for number in 0..count {
            let decision = numbers.one_of(&["accept", "accept", "accept", "drop", "reject"]);
            let _ = writeln!(text, "[[rule]]\nname = \"r{number}\"\ndecision = \"{decision}\"");
            if number % 100 == 99 {
                let _ = writeln!(text, "groups = [\"g{}\"]", numbers.below(GROUPS));
                continue;
            }
            rule(&mut numbers, users, &mut text);
        }
        text
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject<'_>> {
        self.packets.iter().map(|packet| Subject {
            quality: packet.quality,
            program: packet.program,
            os: Some("Linux-#1 SMP-6.12.3"),
            in_dev: packet.in_dev,
            out_dev: "wan0",
            gateway: "gw1",
            ..Subject::new(packet.user.map(|user| &self.users[user]), &packet.tuple, AT)
        })
    }
}

fn rule(numbers: &mut Numbers, users: u32, text: &mut String) {
    let v6 = numbers.percent(10);
    let net = |numbers: &mut Numbers| {
        if v6 {
            let len = numbers.one_of(&[40_u8, 48, 48, 64, 128]);
            let bits = numbers.v6() & (u128::MAX << (128 - u32::from(len)));
            format!("\"{}/{len}\"", Ipv6Addr::from_bits(bits))
        } else {
            let len = numbers.one_of(&[9_u8, 12, 16, 16, 20, 22, 24, 24, 24, 28, 32, 32]);
            let bits = numbers.v4() & (u32::MAX << (32 - u32::from(len)));
            format!("\"{}/{len}\"", Ipv4Addr::from_bits(bits))
        }
    };
    if numbers.percent(95) {
        let more = numbers.below(3);
        let nets: Vec<String> = (0..=more).map(|_| net(numbers)).collect();
        let _ = writeln!(text, "destination = [{}]", nets.join(", "));
    }
    if numbers.percent(30) {
        let _ = writeln!(text, "source = [{}]", net(numbers));
    }
    match numbers.below(10) {
        0..7 => text.push_str("protocol = \"tcp\"\n"),
        7 | 8 => text.push_str("protocol = \"udp\"\n"),
        _ => {}
    }
    match numbers.below(100) {
        0..60 => {
            let _ = writeln!(text, "ports = [{}]", numbers.one_of(&PORTS));
        }
        60..85 => {
            let from = numbers.below(60_000);
            let _ = writeln!(text, "ports = [\"{from}-{}\"]", from + numbers.below(5000));
        }
        _ => {}
    }
    match numbers.below(100) {
        0..60 => {
            let more = numbers.below(3);
            let groups: Vec<String> = (0..=more)
                .map(|_| format!("\"g{}\"", numbers.below(GROUPS)))
                .collect();
            let _ = writeln!(text, "groups = [{}]", groups.join(", "));
        }
        60..80 => {
            let more = numbers.below(5);
            let ids: Vec<String> = (0..=more)
                .map(|_| (numbers.below(users) + 1).to_string())
                .collect();
            let _ = writeln!(text, "users = [{}]", ids.join(", "));
        }
        80..85 => text.push_str("who = \"nobody\"\n"),
        // What is left to whoever is logged in is narrow in another way.
        _ => {
            let _ = writeln!(text, "programs = [\"{}\"]", numbers.one_of(&GLOBS));
            text.push_str("min-auth = \"password\"\n");
        }
    }
    match numbers.below(20) {
        0 => text.push_str("period = \"office\"\n"),
        1 => text.push_str("in = [\"lan*\"]\n"),
        _ => {}
    }
}

impl Packet {
    fn new(numbers: &mut Numbers, users: u32) -> Result<Self> {
        let [source, destination] = if numbers.percent(10) {
            [numbers.v6(), numbers.v6()].map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        } else {
            [numbers.v4(), numbers.v4()].map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
        };
        let ports = Ports {
            src: u16::try_from(32_768 + numbers.below(28_000)).unwrap_or(u16::MAX),
            dst: if numbers.percent(80) {
                numbers.one_of(&PORTS)
            } else {
                u16::try_from(numbers.below(65_536)).unwrap_or(0)
            },
        };
        let transport = if numbers.percent(75) {
            Transport::Tcp(ports)
        } else {
            Transport::Udp(ports)
        };
        Ok(Self {
            user: (!numbers.percent(3)).then(|| numbers.below(users) as usize),
            quality: numbers.one_of(&[
                Quality::Address,
                Quality::Password,
                Quality::Password,
                Quality::Certificate,
            ]),
            tuple: Tuple::new(Addr::from(source), Addr::from(destination), transport)?,
            program: Some(numbers.one_of(&PROGRAMS)),
            in_dev: numbers.one_of(&["lan0", "lan1", "dmz0"]),
        })
    }
}
