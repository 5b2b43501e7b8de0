//! Reads what a daemon tells at `/metrics`, strictly: the asker's side, for the lab, the measurements and the tests.
//!
//! The text format 0.0.4 of Prometheus. What Prometheus would forgive is an error here.

use std::collections::{BTreeMap, HashSet};

/// What is wrong with a text: the line, from 1, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ScrapeError {
    /// The line.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Everything that was told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    samples: Vec<Sample>,
    /// Kind of each family.
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, ScrapeError> {
        let mut scrape = Self::default();
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            reader
                .line(line, &mut scrape)
                .map_err(|why| ScrapeError { line: index + 1, why })?;
        }
        let last = text.lines().count();
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(ScrapeError {
                line: last,
                why: "the last line has no end".to_owned(),
            });
        }
        scrape
            .histograms()
            .map_err(|why| ScrapeError { line: last, why })?;
        Ok(scrape)
    }

    /// The value of one number, found by some of its labels; none when there is none, or more than one.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.samples.iter().filter(|sample| sample.has(name, labels));
        match (found.next(), found.next()) {
            (Some(sample), None) => Some(sample.value),
            _ => None,
        }
    }

    /// The sum of all numbers of a name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples
            .iter()
            .filter(|sample| sample.has(name, labels))
            .map(|sample| sample.value)
            .sum()
    }

    /// Every number.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// A histogram's buckets grow, and the last holds all.
    fn histograms(&self) -> Result<(), String> {
        for family in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let name = family.0;
            let mut series = BTreeMap::<Vec<_>, Vec<(&str, f64)>>::new();
            for sample in self.samples.iter().filter(|s| s.name == format!("{name}_bucket")) {
                let end = sample
                    .labels
                    .get("le")
                    .ok_or(format!("{name}: a bucket has no end"))?;
                let others = sample.labels.iter().filter(|(key, _)| *key != "le").collect();
                series.entry(others).or_default().push((end, sample.value));
            }
            for buckets in series.values() {
                if !buckets.is_sorted_by(|one, next| one.1 <= next.1) {
                    return Err(format!("{name}: its buckets do not grow"));
                }
                if buckets.last().is_none_or(|(end, _)| *end != "+Inf") {
                    return Err(format!("{name}: it does not end with +Inf"));
                }
            }
            let all = self.sum(&format!("{name}_bucket"), &[("le", "+Inf")]);
            if (all - self.sum(&format!("{name}_count"), &[])).abs() > f64::EPSILON {
                return Err(format!("{name}: its count is not what its buckets hold"));
            }
            if !self.samples.iter().any(|s| s.name == format!("{name}_sum")) {
                return Err(format!("{name}: it has no sum"));
            }
        }
        Ok(())
    }
}

impl Sample {
    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name
            && labels
                .iter()
                .all(|(key, value)| self.labels.get(*key).is_some_and(|found| found == value))
    }
}

#[derive(Default)]
struct Reader {
    /// The family whose help was read last, and whether its kind was.
    family: Option<(String, bool)>,
    seen: HashSet<String>,
}

impl Reader {
    fn line(&mut self, line: &str, scrape: &mut Scrape) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("a help without a text")?;
            if help.trim().is_empty() {
                return Err("a help without a text".to_owned());
            }
            if !is_name(name) || !self.seen.insert(name.to_owned()) {
                return Err(format!("{name} is no name, or was there before"));
            }
            self.family = Some((name.to_owned(), false));
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("a type without a kind")?;
            match &mut self.family {
                Some((family, typed @ false)) if family == name => *typed = true,
                _ => return Err(format!("the type of {name} does not follow its help")),
            }
            let ending = name.ends_with("_total");
            if !["counter", "gauge", "histogram"].contains(&kind) || (kind == "counter") != ending {
                return Err(format!("{name} cannot be a {kind}"));
            }
            scrape.kinds.insert(name.to_owned(), kind.to_owned());
            return Ok(());
        }
        let sample = sample(line)?;
        let Some((family, true)) = &self.family else {
            return Err(format!("{} has no help and type before it", sample.name));
        };
        let suffix = sample.name.strip_prefix(family.as_str());
        let histogram = scrape.kinds.get(family).is_some_and(|kind| kind == "histogram");
        let allowed: &[&str] = if histogram {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        if !suffix.is_some_and(|suffix| allowed.contains(&suffix)) {
            return Err(format!("{} stands among those of {family}", sample.name));
        }
        if scrape
            .samples
            .iter()
            .any(|known| known.name == sample.name && known.labels == sample.labels)
        {
            return Err(format!("{} {:?} is there twice", sample.name, sample.labels));
        }
        scrape.samples.push(sample);
        Ok(())
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .ok_or("a number without a value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err(format!("{name:?} is no name"));
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().map_err(|_| format!("{value:?} is no number"))?,
    })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (key, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(key) || key.contains(':') {
            return Err(format!("{key:?} is no name of a label"));
        }
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().ok_or("a label's value does not end")? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next().ok_or("a label's value does not end")?.1 {
                    'n' => '\n',
                    other @ ('\\' | '"') => other,
                    other => return Err(format!("\\{other} means nothing")),
                }),
                (_, letter) => value.push(letter),
            }
        };
        if labels.insert(key.to_owned(), value).is_some() {
            return Err(format!("the label {key} is there twice"));
        }
        let after = &after[end + 1..];
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok((labels, after.strip_prefix('}').ok_or("no } after the labels")?)),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}
