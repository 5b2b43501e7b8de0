//! Drives the engine through seeded random lives of a small world, and compares it with somebody who sees everything.
//!
//! A life that ends badly prints its seed and its last steps. `SIM_SEED=n` replays it, `SIM_TRACE=n` prints more of its
//! steps; `SIM_SEEDS=n` lives through more lives, `SIM_STEPS=n` through longer ones.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on ends, and tells why"
)]

mod agent;
mod client;
mod flood;
mod journal;
mod kernel;
mod reference;
mod sim;
mod steps;
mod traffic;

use sim::Sim;
use std::collections::BTreeSet;
use std::panic::catch_unwind;

/// Lives in an ordinary run.
const SEEDS: u64 = 300;
/// Steps of each, before the world comes to rest.
const STEPS: u64 = 3000;
/// Lines of a story that ended badly.
const TRACE: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a life was worth.
struct Life {
    connections: usize,
    seen: BTreeSet<&'static str>,
}

/// Tells the story of a life that ended badly.
struct Story {
    seed: u64,
    sim: Sim,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.sim.trace.is_empty() {
            for line in &self.sim.trace {
                eprintln!("{line}");
            }
            eprintln!("seed {0} failed; SIM_SEED={0} replays it", self.seed);
        }
    }
}

fn live(seed: u64, steps: u64, remember: usize) -> Life {
    let mut story = Story {
        seed,
        sim: Sim::new(seed, remember),
    };
    for _ in 0..steps {
        story.sim.step();
    }
    story.sim.settle();
    Life {
        connections: story.sim.connections(),
        seen: std::mem::take(&mut story.sim.reference.seen),
    }
}

/// Telling a story takes longer than living it: only a life that ended badly is told, by living it once more.
fn live_and_tell(seed: u64, steps: u64) -> Life {
    catch_unwind(|| live(seed, steps, 0)).unwrap_or_else(|_| {
        let remember = number("SIM_TRACE").unwrap_or(TRACE);
        live(seed, steps, usize::try_from(remember).unwrap_or(usize::MAX))
    })
}

#[test]
fn the_promises_hold_whatever_happens() {
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let lives = seeds.end - seeds.start;
    let mut connections = 0;
    let mut seen = BTreeSet::new();
    for seed in seeds {
        let life = live_and_tell(seed, steps);
        connections += life.connections;
        seen.extend(life.seen);
    }
    println!("{lives} lives, {connections} connections, with {seen:?}");
    assert!(
        lives == 1 || connections as u64 >= lives * steps / 200,
        "only {connections} connections in {lives} lives: the world does too little to prove anything"
    );
    let wanted = [
        "sync",
        "async",
        "none",
        "late",
        "drop without row",
        "aggregated",
        "resynced",
        "deleted",
        "counted",
        "adopted",
        "killed",
    ];
    let missing: Vec<_> = wanted.iter().filter(|what| !seen.contains(*what)).collect();
    assert!(lives < 100 || missing.is_empty(), "no life had {missing:?}");
}
