//! Figures: medians of repeated values, as lines of JSON or as a table.
//!
//! The keys of the JSON form are kept by every measurement of the project.

use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    PerSecond(u32),
    Full,
}

impl Rate {
    fn json(self) -> Value {
        match self {
            Self::PerSecond(rate) => rate.into(),
            Self::Full => "full".into(),
        }
    }

    fn text(self) -> String {
        match self {
            Self::PerSecond(rate) => format!("{rate}/s"),
            Self::Full => "full".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    case: &'static str,
    metric: &'static str,
    rate: Rate,
    process: Option<&'static str>,
    unit: &'static str,
    values: Vec<f64>,
}

impl Figure {
    pub(super) fn new(
        case: &'static str,
        metric: &'static str,
        rate: Rate,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            case,
            metric,
            rate,
            process: None,
            unit,
            values: vec![value],
        }
    }

    /// Of one process of the case.
    pub(super) fn of(mut self, process: &'static str) -> Self {
        self.process = Some(process);
        self
    }

    /// The median; for losses the worst, since one good run excuses nothing.
    fn value(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let worst = matches!(
            self.metric,
            "rows_lost"
                | "rows_stuck"
                | "restart_rows_lost"
                | "packets_lost"
                | "events_lost"
                | "kernel_rows_lost"
                | "kernel_rows_stuck"
                | "connect_failures"
                | "commit_wait_max_ms"
        );
        let index = if worst { sorted.len() - 1 } else { sorted.len() / 2 };
        sorted.get(index).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct Figures {
    /// Which measurement it is.
    bench: &'static str,
    all: Vec<Figure>,
}

impl Figures {
    pub(super) fn new(bench: &'static str) -> Self {
        Self {
            bench,
            all: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, figure: Figure) {
        let same = |known: &&mut Figure| {
            (known.case, known.metric, known.rate, known.process)
                == (figure.case, figure.metric, figure.rate, figure.process)
        };
        match self.all.iter_mut().find(same) {
            Some(known) => known.values.extend(figure.values),
            None => self.all.push(figure),
        }
    }

    pub(super) fn write_json(&self, out: &mut impl Write) -> Result<()> {
        for figure in &self.all {
            let mut object = json!({
                "bench": self.bench,
                "case": figure.case,
                "metric": figure.metric,
                "rate": figure.rate.json(),
                "value": (figure.value() * 1000.0).round() / 1000.0,
                "unit": figure.unit,
            });
            if let Some(process) = figure.process {
                object["process"] = process.into();
            }
            writeln!(out, "{object}")?;
        }
        Ok(())
    }

    pub(super) fn write_table(&self, out: &mut impl Write) -> Result<()> {
        writeln!(
            out,
            "{:<24} {:<6} {:<40} {:>12} {:<12} all runs",
            "case", "rate", "metric", "value", "unit"
        )?;
        for figure in &self.all {
            let metric = match figure.process {
                Some(process) => format!("{} ({process})", figure.metric),
                None => figure.metric.to_owned(),
            };
            let all: Vec<_> = figure.values.iter().map(|value| format!("{value:.2}")).collect();
            writeln!(
                out,
                "{:<24} {:<6} {metric:<40} {:>12.2} {:<12} {}",
                figure.case,
                figure.rate.text(),
                figure.value(),
                figure.unit,
                all.join(" ")
            )?;
        }
        if let (Some(floor), Some(full)) = (
            self.find("accept-all", "connections_per_second", Rate::Full),
            self.find("full-sqlite", "connections_per_second", Rate::Full),
        ) {
            writeln!(
                out,
                "\nfull-sqlite keeps {:.2} of accept-all's connections per second at full rate",
                full / floor
            )?;
        }
        if let (Some(floor), Some(full)) = (
            self.find("accept-all", "connect_p50_ms", Rate::PerSecond(1000)),
            self.find("full-sqlite", "connect_p50_ms", Rate::PerSecond(1000)),
        ) {
            writeln!(
                out,
                "full-sqlite adds {:.2} ms to the median connect() of accept-all at 1000/s",
                full - floor
            )?;
        }
        Ok(())
    }

    pub(super) fn find(&self, case: &str, metric: &str, rate: Rate) -> Option<f64> {
        self.all
            .iter()
            .find(|figure| (figure.case, figure.metric, figure.rate) == (case, metric, rate))
            .map(Figure::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_values_become_a_median_and_losses_the_worst() {
        let mut figures = Figures::new("path");
        for value in [3.0, 1.0, 2.0] {
            figures.add(Figure::new(
                "forward",
                "connect_p50_ms",
                Rate::PerSecond(100),
                value,
                "ms",
            ));
            figures.add(Figure::new("full-sqlite", "rows_lost", Rate::Full, value, "rows"));
        }
        let mut out = Vec::new();
        figures.write_json(&mut out).unwrap();
        let lines: Vec<Value> = out
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                json!({"bench": "path", "case": "forward", "metric": "connect_p50_ms", "rate": 100, "value": 2.0, "unit": "ms"}),
                json!({"bench": "path", "case": "full-sqlite", "metric": "rows_lost", "rate": "full", "value": 3.0, "unit": "rows"}),
            ]
        );
    }
}
