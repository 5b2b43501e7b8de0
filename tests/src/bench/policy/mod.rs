//! The access lists alone: decisions a second on one core, beside a look at every rule; and many clients of one server.
//!
//! Rules, users and packets come from `mix`, the same in every run. Every answer that is compared is compared with that of a
//! look at every rule; a difference ends the measurement.

mod clients;
mod mix;

use super::figures::{Figure, Figures, Rate};
use super::{BenchOptions, ratio, say};
use anyhow::{Context as _, Result, ensure};
use mix::Mix;
use nuauth_server::engine::Subject;
use nuauth_server::policy::{Against, Marks, Policy};
use nuauth_server::users::Users;
use nufw_common::clock;
use nufw_proto::Mark;
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

/// Lists of so many rules.
const CASES: [(&str, usize); 3] = [("rules-10", 10), ("rules-1000", 1000), ("rules-10000", 10_000)];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    repeats: u32,
    users: u32,
    packets: usize,
    /// Packets whose answers are compared with those of a look at every rule.
    compared: usize,
    /// How long decisions are counted.
    time: Duration,
    /// Cases of many clients, and how many.
    clients: &'static [(&'static str, u32)],
    /// How long verdicts are timed while nothing else happens.
    quiet: Duration,
}

const WHOLE: Size = Size {
    repeats: 3,
    users: 100_000,
    packets: 200_000,
    compared: 20_000,
    time: Duration::from_secs(3),
    clients: &[("clients-1000", 1000), ("clients-10000", 10_000)],
    quiet: Duration::from_secs(10),
};
const QUICK: Size = Size {
    repeats: 1,
    users: 1000,
    packets: 2000,
    compared: 500,
    time: Duration::from_millis(100),
    clients: &[("clients-20", 20)],
    quiet: Duration::from_secs(1),
};

/// Measures the access lists and writes the figures.
pub fn bench_policy(options: &BenchOptions, out: &mut impl Write) -> Result<()> {
    let size = if options.quick { QUICK } else { WHOLE };
    let dir = tempfile::tempdir()?;
    let users = dir.path().join("users.toml");
    std::fs::write(&users, "")?;
    let users = Users::load(&users, Mark(u32::MAX))?;
    let mix = Mix::new(size.users, size.packets)?;
    let mut figures = Figures::new("policy");
    let names: Vec<_> = CASES
        .iter()
        .map(|(name, _)| *name)
        .chain(size.clients.iter().map(|(name, _)| *name))
        .collect();
    // The whole name of a case is that case alone, although another one's may begin with it.
    let wanted = |case: &str| {
        options.only.as_deref().is_none_or(|only| {
            if names.contains(&only) {
                case == only
            } else {
                case.contains(only)
            }
        })
    };
    for (name, rules) in CASES.into_iter().filter(|(name, _)| wanted(name)) {
        say(format_args!("{name}"));
        let file = dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, mix.rules(rules))?;
        let began = clock::mono();
        let against = Against {
            users: &users,
            all_known: false,
            marks: &Marks::default(),
        };
        let policy = Policy::load(&file, &against)
            .with_context(|| format!("case {name}"))?
            .policy;
        let figure = |metric, value, unit| Figure::new(name, metric, Rate::Full, value, unit);
        figures.add(figure("load_ms", began.elapsed().as_secs_f64() * 1000.0, "ms"));
        let subjects: Vec<Subject<'_>> = mix.subjects().collect();
        compare(&policy, &subjects[..size.compared])?;
        for _ in 0..size.repeats {
            figures.add(figure(
                "decisions_per_second",
                rate(&policy, &subjects, size.time),
                "1/s",
            ));
            figures.add(figure("decision_p99_us", p99(&policy, &subjects), "us"));
            figures.add(figure(
                "linear_decisions_per_second",
                linear_rate(&policy, &subjects, size.time / 3),
                "1/s",
            ));
        }
    }
    for &case in size.clients.iter().filter(|(name, _)| wanted(name)) {
        clients::run(case, size.quiet, &mut figures)?;
    }
    if options.json {
        figures.write_json(out)
    } else {
        figures.write_table(out)
    }
}

fn compare(policy: &Policy, subjects: &[Subject<'_>]) -> Result<()> {
    let mut decided = 0_usize;
    for subject in subjects {
        let (found, expected) = (policy.search(subject), policy.search_all(subject));
        ensure!(
            found == expected,
            "the index finds rule {found:?} where a look at every rule finds {expected:?}: {subject:?}"
        );
        decided += usize::from(found.is_some());
    }
    // Lists that decide nothing, or a search that ends at the first rule, would measure nothing.
    ensure!(
        policy.rules().len() < 1000 || decided > subjects.len() / 10,
        "only {decided} of {} packets are decided by a rule",
        subjects.len()
    );
    Ok(())
}

/// Whole decisions, as the engine asks for them.
fn rate(policy: &Policy, subjects: &[Subject<'_>], time: Duration) -> f64 {
    for subject in subjects {
        let _ = black_box(policy.decide(subject).decision);
    }
    counted(subjects, time, |subject| {
        let _ = black_box(policy.decide(subject).decision);
    })
}

fn linear_rate(policy: &Policy, subjects: &[Subject<'_>], time: Duration) -> f64 {
    counted(subjects, time, |subject| {
        black_box(policy.search_all(subject));
    })
}

fn counted(subjects: &[Subject<'_>], time: Duration, mut decide: impl FnMut(&Subject<'_>)) -> f64 {
    let began = clock::mono();
    let mut count = 0_u64;
    loop {
        for part in subjects.chunks(256) {
            part.iter().for_each(&mut decide);
            count += part.len() as u64;
            let took = began.elapsed();
            if took >= time {
                return ratio(count, 1) / took.as_secs_f64();
            }
        }
    }
}

fn p99(policy: &Policy, subjects: &[Subject<'_>]) -> f64 {
    let mut took: Vec<u64> = subjects
        .iter()
        .map(|subject| {
            let began = clock::mono();
            let _ = black_box(policy.decide(subject).decision);
            u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100)
        .map_or(0.0, |&nanos| ratio(nanos, 1000))
}
