//! `periods.xml`: named times, each of items that must all hold.
//!
//! Reads; what they become in the access lists is `acls`' business.

use super::report::{Fate, Place, Report};
use roxmltree::{Document, Node};
use std::path::Path;
use thiserror::Error;

/// Why the file cannot be read.
#[derive(Debug, Error)]
pub(super) enum PeriodError {
    /// It is no XML.
    #[error("{place}: {source}")]
    Xml { place: Place, source: roxmltree::Error },
}

/// One period.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Period {
    pub(super) name: String,
    pub(super) items: Vec<Item>,
    pub(super) line: usize,
}

/// What must hold at one time. A duration alone counts where there is one, else the dates, else days and hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Item {
    /// First and last day, both within; 0 is Sunday.
    pub(super) days: Option<(u8, u8)>,
    /// First hour, and the hour at which it is over.
    pub(super) hours: Option<(u8, u8)>,
    /// Seconds of the Unix epoch.
    pub(super) dates: Option<(i64, i64)>,
    /// Seconds.
    pub(super) duration: Option<u64>,
}

/// Reads the periods; what is wrong in one is said, and the period is then empty, which lets nothing pass.
pub(super) fn read(path: &Path, text: &str, report: &mut Report) -> Result<Vec<Period>, PeriodError> {
    let xml = Document::parse(text).map_err(|source| PeriodError::Xml {
        place: Place::new(path, source.pos().row as usize),
        source,
    })?;
    let periods = xml.descendants().filter(|node| node.has_tag_name("period"));
    Ok(periods.map(|node| period(&xml, node, path, report)).collect())
}

fn period(xml: &Document<'_>, node: Node<'_, '_>, path: &Path, report: &mut Report) -> Period {
    let line = |node: Node<'_, '_>| xml.text_pos_at(node.range().start).row as usize;
    let name = node.attribute("name").unwrap_or_default().to_owned();
    let mut period = Period {
        name,
        items: Vec::new(),
        line: line(node),
    };
    for node in node.children().filter(|node| node.has_tag_name("perioditem")) {
        let Some(item) = item(node) else {
            let text = "left out with its period: expected days 0 to 6, hours 0 to 24, dates or a duration in seconds";
            report.say(&Place::new(path, line(node)), &period.name, Fate::Look, text);
            period.items.clear();
            return period;
        };
        period.items.push(item);
    }
    period
}

fn item(node: Node<'_, '_>) -> Option<Item> {
    let mut item = Item::default();
    for part in node.children().filter(Node::is_element) {
        match part.tag_name().name() {
            "days" => item.days = Some(pair(part, "start", "end").filter(|(a, b)| *a <= 6 && *b <= 6)?),
            "hours" => item.hours = Some(pair(part, "start", "end").filter(|(a, b)| *a <= 24 && *b <= 24)?),
            "dates" => item.dates = Some(pair(part, "start", "end")?),
            "duration" => {
                let length = part.attribute("length").or_else(|| part.text())?;
                item.duration = Some(length.trim().parse().ok()?);
            }
            _ => return None,
        }
    }
    (item != Item::default()).then_some(item)
}

fn pair<T: std::str::FromStr>(node: Node<'_, '_>, first: &str, second: &str) -> Option<(T, T)> {
    let number = |name| node.attribute(name)?.trim().parse().ok();
    Some((number(first)?, number(second)?))
}
