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
use clap::ValueEnum;
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

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GatewayCase {
    /// Full rate with the buffers as they come.
    Full,
    /// Buffers of three sizes, beside what people use today.
    Buffers,
    /// Two floods.
    Floods,
    /// What one connection carries.
    Throughput,
    /// Events that find no room.
    Overrun,
    /// Many live connections.
    Live,
    /// Workers that are killed in the middle of a load.
    Restart,
    /// Two processes beside one.
    Split,
}

/// Measures the gateway, or one case of it, and writes the figures.
pub fn bench_gateway(options: BenchOptions, only: Option<GatewayCase>, out: &mut impl Write) -> Result<()> {
    let size = if options.quick { QUICK } else { WHOLE };
    let mut bench = Gateway {
        stand: Stand::new(size.live)?,
        size,
        figures: Figures::new("gateway"),
    };
    for case in GatewayCase::value_variants() {
        if only.is_none_or(|only| only == *case) {
            bench.measure(*case).with_context(|| format!("case {case:?}"))?;
        }
    }
    if options.json {
        bench.figures.write_json(out)
    } else {
        bench.figures.write_table(out)
    }
}

struct Gateway {
    stand: Stand,
    size: Size,
    figures: Figures,
}

impl Gateway {
    fn measure(&mut self, case: GatewayCase) -> Result<()> {
        match case {
            GatewayCase::Full => self.full(),
            GatewayCase::Buffers => self.buffers(),
            GatewayCase::Floods => self.floods(),
            GatewayCase::Throughput => self.throughput(),
            GatewayCase::Overrun => self.overrun(),
            GatewayCase::Live => self.live(),
            GatewayCase::Restart => self.restart(),
            GatewayCase::Split => self.split(),
        }
    }

    fn add(&mut self, case: &'static str, metric: &'static str, value: f64, unit: &'static str) {
        self.figures
            .add(Figure::new(case, metric, Rate::Full, value, unit));
    }

    fn count(&mut self, case: &'static str, metric: &'static str, value: u64, unit: &'static str) {
        self.add(case, metric, ratio(value, 1), unit);
    }
}
