//! A daemon's numbers as one table: a line for each, and the text that Prometheus reads made from it.
//!
//! A line says how a number is read from a snapshot, so nothing is kept twice and nothing is locked where it is counted. Rows
//! of one name follow each other and are one family. The values of labels are constants or names of the configuration: never
//! anything that a peer chooses.

use crate::waits::{WAIT_BUCKETS_MS, WaitHistogram};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::time::Duration;

/// Values of one label that a row may have; what is beyond is left out.
pub const MAX_VALUES: usize = 1024;

/// How a number is read from a snapshot. What is not known is left out: it must not look like a zero.
pub enum Reading<S> {
    /// What only grows. The name gets `_total`.
    Counter(fn(&S) -> Option<u64>),
    /// What grows and shrinks.
    Gauge(fn(&S) -> Option<u64>),
    /// The same in seconds.
    Seconds(fn(&S) -> Option<f64>),
    /// How long things waited, in seconds.
    Waits(fn(&S) -> Option<WaitHistogram>),
    /// One gauge for each of some names of the configuration.
    Each(&'static str, fn(&S) -> Vec<(String, u64)>),
    /// Texts that do not change while the process lives: a gauge that is always 1. The name gets `_info`.
    Info(fn(&S) -> Vec<(&'static str, String)>),
}

/// One row.
pub struct Metric<S> {
    /// Its name, without what the kind appends.
    pub name: &'static str,
    /// What it means and what to do about it; of a family the first row's counts.
    pub help: &'static str,
    /// Constant labels.
    pub labels: &'static [(&'static str, &'static str)],
    /// How it is read.
    pub reading: Reading<S>,
}

impl<S> Metric<S> {
    /// What only grows.
    pub const fn counter(name: &'static str, help: &'static str, read: fn(&S) -> Option<u64>) -> Self {
        Self::new(name, help, Reading::Counter(read))
    }

    /// What grows and shrinks.
    pub const fn gauge(name: &'static str, help: &'static str, read: fn(&S) -> Option<u64>) -> Self {
        Self::new(name, help, Reading::Gauge(read))
    }

    /// A time, or a point in time.
    pub const fn seconds(name: &'static str, help: &'static str, read: fn(&S) -> Option<f64>) -> Self {
        Self::new(name, help, Reading::Seconds(read))
    }

    /// How long things waited.
    pub const fn waits(
        name: &'static str,
        help: &'static str,
        read: fn(&S) -> Option<WaitHistogram>,
    ) -> Self {
        Self::new(name, help, Reading::Waits(read))
    }

    /// One gauge for each value of a label.
    pub const fn each(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: fn(&S) -> Vec<(String, u64)>,
    ) -> Self {
        Self::new(name, help, Reading::Each(label, read))
    }

    /// Texts.
    pub const fn info(
        name: &'static str,
        help: &'static str,
        read: fn(&S) -> Vec<(&'static str, String)>,
    ) -> Self {
        Self::new(name, help, Reading::Info(read))
    }

    const fn new(name: &'static str, help: &'static str, reading: Reading<S>) -> Self {
        Self {
            name,
            help,
            labels: &[],
            reading,
        }
    }

    /// With constant labels.
    #[must_use]
    pub const fn with(self, labels: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            name: self.name,
            help: self.help,
            labels,
            reading: self.reading,
        }
    }

    fn kind(&self) -> MetricType {
        match self.reading {
            Reading::Counter(_) => MetricType::Counter,
            Reading::Gauge(_) | Reading::Seconds(_) | Reading::Each(..) => MetricType::Gauge,
            Reading::Waits(_) => MetricType::Histogram,
            Reading::Info(_) => MetricType::Info,
        }
    }

    fn value(&self, snapshot: &S) -> Option<Value> {
        match &self.reading {
            Reading::Counter(read) => read(snapshot).map(Value::Counter),
            Reading::Gauge(read) => read(snapshot).map(Value::Gauge),
            Reading::Seconds(read) => read(snapshot).map(Value::Seconds),
            Reading::Waits(read) => read(snapshot).map(Value::Waits),
            Reading::Each(label, read) => Some(Value::Each(label, read(snapshot))),
            Reading::Info(read) => Some(Value::Info(read(snapshot))),
        }
    }
}

enum Value {
    Counter(u64),
    Gauge(u64),
    Seconds(f64),
    Waits(WaitHistogram),
    Each(&'static str, Vec<(String, u64)>),
    Info(Vec<(&'static str, String)>),
}

/// The text of a table for one snapshot.
pub fn render<S: Send + Sync + 'static>(
    table: &'static [Metric<S>],
    snapshot: S,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { table, snapshot }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The names as they are told: what a query may ask for.
pub fn names<S>(table: &[Metric<S>]) -> Vec<String> {
    let mut names: Vec<String> = table
        .iter()
        .flat_map(|metric| {
            let suffixes: &[&str] = match metric.reading {
                Reading::Counter(_) => &["_total"],
                Reading::Waits(_) => &["_bucket", "_sum", "_count"],
                Reading::Info(_) => &["_info"],
                Reading::Gauge(_) | Reading::Seconds(_) | Reading::Each(..) => &[""],
            };
            suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name))
        })
        .collect();
    names.dedup();
    names
}

/// What is wrong with a table: rows of a family apart, of two kinds or with other labels, a row twice, no help.
pub fn mistakes<S>(table: &[Metric<S>]) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for family in table.chunk_by(|one, next| one.name == next.name) {
        let [first, ..] = family else { continue };
        if !seen.insert(first.name) {
            found.push(format!(
                "{}: rows of one family must follow each other",
                first.name
            ));
        }
        if first.help.len() < 20 || !first.help.ends_with('.') {
            found.push(format!("{}: its help must be a sentence", first.name));
        }
        let keys = |metric: &Metric<S>| metric.labels.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        let mut labels = HashSet::new();
        for metric in family {
            if metric.kind() != first.kind() || keys(metric) != keys(first) {
                found.push(format!("{}: its rows differ in kind or in labels", first.name));
            }
            if !labels.insert(metric.labels) {
                found.push(format!("{}: {:?} is there twice", first.name, metric.labels));
            }
        }
    }
    found
}

struct Page<S: 'static> {
    table: &'static [Metric<S>],
    snapshot: S,
}

impl<S> Debug for Page<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl<S: Send + Sync + 'static> Collector for Page<S> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.table.chunk_by(|one, next| one.name == next.name) {
            let [first, ..] = family else { continue };
            let values: Vec<_> = family
                .iter()
                .filter_map(|metric| Some((metric.labels, metric.value(&self.snapshot)?)))
                .collect();
            if values.is_empty() {
                continue;
            }
            let mut encoder = encoder.encode_descriptor(first.name, first.help, None, first.kind())?;
            for (labels, value) in values {
                encode(&mut encoder, labels, value)?;
            }
        }
        Ok(())
    }
}

fn encode(
    encoder: &mut MetricEncoder<'_>,
    labels: &'static [(&'static str, &'static str)],
    value: Value,
) -> fmt::Result {
    match value {
        Value::Counter(value) => ConstCounter::new(value).encode(encoder.encode_family(&labels)?),
        Value::Gauge(value) => ConstGauge::new(value).encode(encoder.encode_family(&labels)?),
        Value::Seconds(value) => ConstGauge::new(value).encode(encoder.encode_family(&labels)?),
        Value::Waits(waits) => {
            let ends = WAIT_BUCKETS_MS
                .iter()
                .map(|&end| Duration::from_millis(end).as_secs_f64())
                .chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = ends.zip(waits.buckets).collect();
            let sum = Duration::from_micros(waits.sum_us).as_secs_f64();
            encoder
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 0]>(sum, waits.count(), &buckets, None)
        }
        Value::Each(label, values) => {
            for (text, value) in values.into_iter().take(MAX_VALUES) {
                ConstGauge::new(value).encode(encoder.encode_family(&[(label, text)])?)?;
            }
            Ok(())
        }
        Value::Info(texts) => encoder.encode_info(&texts),
    }
}
