//! The measurements of the gateway: nothing lost at full rate, floods, buffers beside what people use today, throughput,
//! overrun, many live connections, restart.
//!
//! Figures only, never a judgement: the machine is noisy, so ratios within one run are what counts.

mod beside;
mod cases;
mod floods;
mod stand;

use super::BenchOptions;
use super::figures::{Figure, Figures, Rate};
use super::ratio;
use anyhow::{Context, Result};
use stand::Stand;
use std::io::Write;
use std::time::Duration;

/// How much of each.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Connections at full rate with the default buffers.
    full: u32,
    /// Connections for each size of buffer, and for what people use today.
    buffers: u32,
    /// How long a flood lasts.
    flood: Duration,
    /// Connections a second of those who work meanwhile.
    work: u32,
    /// Connections that are open while the events are lost.
    overrun: u32,
    /// Live connections, as far as descriptors reach.
    live: u32,
    /// Connections during which the agent is killed.
    restart: u32,
    /// How long throughput is measured, seconds.
    throughput: u32,
}

const QUICK: Size = Size {
    full: 2_000,
    buffers: 1_000,
    flood: Duration::from_secs(2),
    work: 50,
    overrun: 1_000,
    live: 500,
    restart: 400,
    throughput: 1,
};

const WHOLE: Size = Size {
    full: 200_000,
    buffers: 20_000,
    flood: Duration::from_secs(20),
    work: 200,
    overrun: 10_000,
    live: 100_000,
    restart: 20_000,
    throughput: 10,
};

/// Measures the gateway and writes the figures.
pub fn bench_gateway(options: &BenchOptions, out: &mut impl Write) -> Result<()> {
    let size = if options.quick { QUICK } else { WHOLE };
    let mut bench = Gateway {
        stand: Stand::new(size.live)?,
        size,
        figures: Figures::new("gateway"),
    };
    let measured = bench.all();
    // What was measured before a case failed took its time, too.
    if options.json {
        bench.figures.write_json(out)?;
    } else {
        bench.figures.write_table(out)?;
    }
    measured
}

struct Gateway {
    stand: Stand,
    size: Size,
    figures: Figures,
}

impl Gateway {
    fn all(&mut self) -> Result<()> {
        let step = |name: &str| super::say(format_args!("gateway: {name}"));
        step("full rate");
        self.full().context("case full-default")?;
        step("buffers");
        self.buffers()?;
        step("floods");
        self.floods()?;
        step("throughput");
        self.throughput().context("case throughput")?;
        step("overrun");
        self.overrun().context("case overrun")?;
        step("many live connections");
        self.live().context("case live")?;
        step("restart");
        self.restart().context("case restart")
    }

    fn add(&mut self, case: &'static str, metric: &'static str, value: f64, unit: &'static str) {
        self.figures
            .add(Figure::new(case, metric, Rate::Full, value, unit));
    }

    fn count(&mut self, case: &'static str, metric: &'static str, value: u64, unit: &'static str) {
        self.add(case, metric, ratio(value, 1), unit);
    }
}
