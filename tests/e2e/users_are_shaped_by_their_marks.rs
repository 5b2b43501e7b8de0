//! Two users of one host get two rates: their groups are bits of the mark, and the gateway's `nft` and `tc` (the example of
//! docs/shaping.md) put each user's packets into the class that is meant.

use anyhow::{Context as _, Result};
use lab::{Attempt, Options, Outcome, TcpService, User, addr, fed, two_users_possible, with_lab};
use toml::Value;

const USERS: [(&str, u32, &str, i64); 2] = [
    ("alice", 31_001, "1:10", 0x1_03e9),
    ("bob", 31_002, "1:20", 0x2_03ea),
];
/// The two examples of the page.
const PAGE: &str = include_str!("../../docs/shaping.md");

/// The indented block that begins with this line.
fn example(first: &str) -> Result<String> {
    let lines = PAGE.lines().skip_while(|line| line.trim() != first);
    let block: Vec<&str> = lines
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .collect();
    anyhow::ensure!(
        !block.is_empty(),
        "docs/shaping.md has no block that begins with {first:?}"
    );
    Ok(block.join("\n") + "\n")
}

fn field(shift: i64, width: i64) -> toml::Table {
    toml::Table::from_iter([
        ("shift".to_owned(), Value::from(shift)),
        ("width".to_owned(), Value::from(width)),
    ])
}

fn options() -> Options {
    let mut groups = field(16, 2);
    let value = |name: &str, value: i64| {
        Value::Table(toml::Table::from_iter([
            ("match".to_owned(), Value::from(name)),
            ("value".to_owned(), Value::from(value)),
        ]))
    };
    groups.insert(
        "values".to_owned(),
        vec![value("gold", 1), value("silver", 2)].into(),
    );
    let user = |name, id, group: &str| User {
        groups: vec![group.to_owned()],
        ..User::new(name, id)
    };
    let mut options = Options::nobody();
    options.users = vec![user("alice", 1001, "gold"), user("bob", 1002, "silver")];
    options
        .nuauth("marks.user", field(0, 16))
        .nuauth("marks.groups", groups)
}

#[test]
fn claim() {
    if !two_users_possible() {
        return;
    }
    with_lab(options(), |lab| {
        let gateway = lab.net.gateway.clone();
        for line in example("tc qdisc add dev wan root handle 1: htb default 30")?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [program, args @ ..] = &words[..] {
                lab::checked(gateway.command(program).args(args))?;
            }
        }
        fed(
            gateway.command("nft").args(["-f", "-"]),
            &example("table inet shaping {")?,
        )?;
        let sent = |class: &str| -> Result<u64> {
            let text = lab::checked(gateway.command("tc").args(["-s", "class", "show", "dev", "wan"]))?;
            let mut lines = text
                .lines()
                .skip_while(|line| !line.contains(&format!("htb {class} ")));
            let line = lines
                .nth(1)
                .with_context(|| format!("no class {class} in {text}"))?;
            let bytes = line.split_whitespace().nth(1).context("no count")?;
            Ok(bytes.parse()?)
        };
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for (name, uid, ..) in USERS {
            let spec = lab.client_as(name, uid)?;
            lab.log_in_with(name, spec)?;
        }
        for (name, uid, class, mark) in USERS {
            let before = USERS.map(|(.., class, _)| class).map(sent);
            let mut tried = Attempt::to(addr::SERVER4, 80).as_user(uid).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected, "{name}");
            tried.talk(&"x".repeat(20_000))?;
            let port = format!("sport={} ", tried.port);
            let entry = lab
                .net
                .conntrack()?
                .into_iter()
                .find(|entry| entry.contains(&port));
            assert!(
                entry
                    .as_ref()
                    .is_some_and(|e| e.contains(&format!(" mark={mark} "))),
                "{entry:?}"
            );
            for ((.., other, _), before) in USERS.iter().zip(before) {
                let grown = sent(other)? - before?;
                assert_eq!(
                    grown > 20_000,
                    *other == class,
                    "{name} in {other}: {grown} bytes"
                );
            }
        }
        Ok(())
    });
}
