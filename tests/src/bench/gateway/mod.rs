//! The measurements of the gateway: nothing lost at full rate, floods, buffers beside what people use today, throughput,
//! overrun, many live connections, workers that are killed, and what it costs that the agent is two processes.
//!
//! Figures only, never a judgement: the machine is noisy, so ratios within one run are what counts.

mod beside;
mod cases;
mod floods;
mod stand;
mod worker;

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
    /// Connections during which the agent's worker is killed.
    restart: u32,
    /// How long they take, seconds.
    restart_seconds: u32,
    /// How often it is killed meanwhile.
    kills: u32,
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
    restart_seconds: 4,
    kills: 5,
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
    restart_seconds: 100,
    kills: 100,
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
    let measured = bench.all(options.only.as_deref());
    // What was measured before a case failed took its time, too.
    if options.json {
        bench.figures.write_json(out)?;
    } else {
        bench.figures.write_table(out)?;
    }
    measured
}

/// What measures a case.
type Measure = fn(&mut Gateway) -> Result<()>;

struct Gateway {
    stand: Stand,
    size: Size,
    figures: Figures,
}

impl Gateway {
    fn all(&mut self, only: Option<&str>) -> Result<()> {
        let cases: [(&str, Measure); 8] = [
            ("full", Self::full),
            ("buffers", Self::buffers),
            ("floods", Self::floods),
            ("throughput", Self::throughput),
            ("overrun", Self::overrun),
            ("live", Self::live),
            ("restart", Self::restart),
            ("split", Self::split),
        ];
        for (name, measure) in cases {
            if only.is_none_or(|only| name.contains(only)) {
                super::say(format_args!("gateway: {name}"));
                measure(self).with_context(|| format!("case {name}"))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, case: &'static str, metric: &'static str, value: f64, unit: &'static str) {
        self.figures
            .add(Figure::new(case, metric, Rate::Full, value, unit));
    }

    fn count(&mut self, case: &'static str, metric: &'static str, value: u64, unit: &'static str) {
        self.add(case, metric, ratio(value, 1), unit);
    }
}
