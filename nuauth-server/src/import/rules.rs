//! `policy.toml` of the old access lists and periods.
//!
//! What cannot be said exactly never lets more pass: an ACL that accepts is left out, one that refuses is left so that `check`
//! refuses the file until somebody has decided.

use super::acls::Acl;
use super::conf::Conf;
use super::periods::{Item, Period};
use super::report::{Fate, Place, Report};
use super::write::{comment, string, strings};
use ipnet::IpNet;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Flags of an ACL.
const ASYNC: u32 = 1;
const NO_LOG: u32 = 2;
const SYNC: u32 = 4;
const STRICT: u32 = 8;
/// The longest name of a rule and prefix of a row, bytes.
const MAX_NAME: usize = 64;
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Which of several rules that match decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    First,
    Accept,
    Drop,
}

impl Order {
    /// As `nuauth_prio_to_nok` says; the first, if it says nothing.
    pub(super) fn of(conf: &Conf, report: &mut Report) -> Self {
        let Some(setting) = conf.get("nuauth_prio_to_nok") else {
            return Self::First;
        };
        match setting.value.as_str() {
            "0" => Self::Accept,
            "1" => Self::Drop,
            "2" => Self::First,
            other => {
                let text = format!("found {other:?}, expected 0, 1 or 2: the first match decides");
                report.say(&setting.place, &setting.key, Fate::Look, text);
                Self::First
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::First => "first-match",
            Self::Accept => "accept-wins",
            Self::Drop => "drop-wins",
        }
    }
}

/// The periods and rules.
pub(super) fn convert(
    path: &Path,
    acls: &[Acl],
    periods: (&Path, &[Period]),
    order: Order,
    report: &mut Report,
) -> String {
    let mut writer = Writer {
        path,
        order,
        names: HashSet::new(),
        periods: HashSet::new(),
        report,
        out: comment(&format!(
            "From {}. `nuauth-server policy check` tells whether it is right.",
            path.display()
        )),
    };
    let _ = writeln!(writer.out, "order = {}", string(order.word()));
    for period in periods.1 {
        writer.period(periods.0, period);
    }
    for acl in acls {
        writer.acl(acl);
    }
    writer.out
}

struct Writer<'a> {
    path: &'a Path,
    order: Order,
    names: HashSet<String>,
    periods: HashSet<String>,
    report: &'a mut Report,
    out: String,
}

impl Writer<'_> {
    fn period(&mut self, path: &Path, period: &Period) {
        let place = Place::new(path, period.line);
        match period_text(period) {
            Ok((text, changed)) => {
                let _ = write!(self.out, "\n[[period]]\nname = {}\n{text}", string(&period.name));
                self.periods.insert(period.name.clone());
                let (fate, text) = match changed {
                    Some(text) => (Fate::Changed, text),
                    None => (Fate::Taken, "period"),
                };
                self.report.say(&place, &period.name, fate, text);
            }
            Err(why) => self
                .report
                .say(&place, &period.name, Fate::Look, format!("left out: {why}")),
        }
    }

    fn acl(&mut self, acl: &Acl) {
        let place = Place::new(self.path, acl.line);
        let what = format!("[{}]", acl.name);
        if acl.uids.is_empty() && acl.gids.is_empty() {
            let text = "left out: without uid and gid it matched nobody";
            return self.report.say(&place, what, Fate::Changed, text);
        }
        match self.conditions(acl, &place) {
            Ok(conditions) => {
                let name = self.name(&acl.name, &place);
                self.rules(acl, &name, &conditions, &place);
            }
            Err(why) if acl.decision == 1 => {
                self.report
                    .say(&place, what, Fate::Look, format!("left out: {why}"));
            }
            Err(why) => {
                let name = self.name(&acl.name, &place);
                let _ = write!(
                    self.out,
                    "\n{}[[rule]]\nname = {}\ndecision = {}\n",
                    comment(&why),
                    string(&name),
                    string(&format!("write what {place} refuses")),
                );
                let text = format!(
                    "it refuses, and cannot be left out: the file is invalid until you have written it: {why}"
                );
                self.report.say(&place, what, Fate::Look, text);
            }
        }
    }

    /// One rule, or one for each type of ICMP; and behind it what a user of too low a quality ran into.
    fn rules(&mut self, acl: &Acl, name: &str, conditions: &str, place: &Place) {
        let decision = match acl.decision {
            0 => "drop",
            3 => "reject",
            _ => "accept",
        };
        let log = log_of(acl);
        let quality = match acl.quality {
            0 | 1 => None,
            2 | 3 => Some("password"),
            _ => Some("certificate"),
        };
        let mut changes: Vec<&str> = Vec::new();
        if !acl.apps.is_empty() || !acl.systems.is_empty() {
            changes.push("where the client says no program or system it does not match; in NuFW it did");
        }
        if acl.flags & STRICT != 0 {
            changes.push("the strict flag is not needed: rows are found by the whole tuple");
        }
        if acl.flags >> 4 != 0 {
            changes.push("its flags above 15 are left out: say mark and [marks]");
        }
        let types: Vec<Option<u8>> = match acl.proto {
            ICMP | ICMPV6 => acl.types.iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        for kind in types {
            let name = match kind {
                Some(kind) if acl.types.len() > 1 => self.name(&format!("{} type {kind}", acl.name), place),
                _ => name.to_owned(),
            };
            let _ = write!(self.out, "\n{}", comment(&format!("{place} [{}]", acl.name)));
            let icmp = kind.map_or_else(String::new, |kind| format!("icmp-type = {kind}\n"));
            let mut rule = |name: &str, quality: Option<&str>, decision: &str, log: Option<&str>| {
                let _ = write!(self.out, "[[rule]]\nname = {}\n{conditions}{icmp}", string(name));
                for (key, word) in [("min-auth", quality), ("decision", Some(decision)), ("log", log)] {
                    if let Some(word) = word {
                        let _ = writeln!(self.out, "{key} = {}", string(word));
                    }
                }
            };
            rule(&name, quality, decision, log);
            if quality.is_some() && self.order != Order::Drop {
                let log = log.filter(|log| *log == "none");
                let weak = cut(&format!("{name} (too weak)"));
                rule(&weak, None, "drop", log);
            }
        }
        if quality.is_some() && self.order == Order::Drop {
            changes
                .push("a user of too low a quality is not refused by it, but is not accepted by it either");
        }
        let (fate, text) = if changes.is_empty() {
            (Fate::Taken, format!("rule {name:?}"))
        } else {
            (Fate::Changed, changes.join("; "))
        };
        self.report.say(place, format!("[{}]", acl.name), fate, text);
    }

    /// Everything that must hold, as lines of the rule.
    fn conditions(&mut self, acl: &Acl, place: &Place) -> Result<String, String> {
        if acl.broken {
            return Err("a line of it could not be read".to_owned());
        }
        let mut lines = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(lines, "{key} = {value}");
        };
        if !acl.uids.is_empty() {
            let ids: Result<Vec<u64>, _> = acl.uids.iter().map(|uid| uid.parse()).collect();
            let ids = ids.map_err(|_| "its uid is no number".to_owned())?;
            line("users", format!("{ids:?}"));
        }
        if !acl.gids.is_empty() {
            line("groups", strings(&acl.gids));
        }
        line("protocol", acl.proto.to_string());
        for (key, nets) in [("source", &acl.source), ("destination", &acl.destination)] {
            if !nets.is_empty() {
                let nets: Result<Vec<String>, String> = nets.iter().map(|text| network(text)).collect();
                line(key, strings(nets?));
            }
        }
        let has_ports = matches!(acl.proto, 6 | 17 | 33 | 132 | 136);
        for (key, ports) in [("source-ports", &acl.source_ports), ("ports", &acl.ports)] {
            if has_ports && !ports.is_empty() {
                if let Some(wrong) = ports.iter().find(|text| !is_range(text)) {
                    return Err(format!("{wrong:?} is no port and no range"));
                }
                line(key, strings(ports));
            }
        }
        if matches!(acl.proto, ICMP | ICMPV6) && acl.types.is_empty() {
            return Err("an ACL of ICMP without types matched nothing".to_owned());
        }
        for (key, items) in [
            ("programs", &acl.apps),
            ("os", &acl.systems),
            ("in", &acl.in_devs),
            ("out", &acl.out_devs),
            ("bridge-in", &acl.phys_in),
            ("bridge-out", &acl.phys_out),
        ] {
            if !items.is_empty() {
                line(key, strings(items));
            }
        }
        if let Some(period) = &acl.period {
            if !self.periods.contains(period) {
                return Err(format!(
                    "its period {period:?} is not among those that were taken over"
                ));
            }
            line("period", string(period));
        }
        if let Some(prefix) = &acl.log_prefix {
            let short = cut(prefix);
            if short != *prefix {
                let text = format!("its log_prefix is cut to {MAX_NAME} bytes");
                self.report
                    .say(place, format!("[{}]", acl.name), Fate::Changed, text);
            }
            if !short.is_empty() {
                line("log-prefix", string(&short));
            }
        }
        Ok(lines)
    }

    /// A name that no other rule has.
    fn name(&mut self, wanted: &str, place: &Place) -> String {
        let base = match wanted {
            "" => "acl".to_owned(),
            "default" => "default acl".to_owned(),
            _ => cut(wanted.trim_start_matches('(')),
        };
        let mut name = base.clone();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            let tail = format!(" {count}");
            let room = base.floor_char_boundary(MAX_NAME - tail.len());
            name = format!("{}{tail}", &base[..room.min(base.len())]);
        }
        if name != wanted {
            let text = format!("is rule {name:?} here");
            self.report.say(place, format!("[{wanted}]"), Fate::Changed, text);
        }
        name
    }
}

/// No control characters, and no more bytes than a name may have.
fn cut(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    clean[..clean.floor_char_boundary(MAX_NAME)].to_owned()
}

fn log_of(acl: &Acl) -> Option<&'static str> {
    let accepts = acl.decision == 1;
    match acl.flags {
        flags if flags & NO_LOG != 0 => Some("none"),
        flags if flags & SYNC != 0 && accepts => Some("sync"),
        flags if flags & ASYNC != 0 => Some("async"),
        _ => None,
    }
}

/// `10.0.0.0/255.0.0.0`, `10.0.0.0/8` or an address, as a network without host bits.
fn network(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no address and no network");
    let net = match text.split_once('/') {
        None => IpNet::from(text.parse::<IpAddr>().map_err(|_| wrong())?),
        Some((address, mask)) => {
            let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
            let prefix = match mask.trim().parse::<Ipv4Addr>() {
                Ok(dotted) => ipnet::ip_mask_to_prefix(IpAddr::V4(dotted)).map_err(|_| wrong())?,
                Err(_) => mask.trim().parse().map_err(|_| wrong())?,
            };
            IpNet::new(address, prefix).map_err(|_| wrong())?
        }
    };
    Ok(net.trunc().to_string())
}

fn is_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok();
    port(first).is_some() && port(first) <= port(last)
}

/// The lines of a period, and what of it means something else.
fn period_text(period: &Period) -> Result<(String, Option<&'static str>), String> {
    if period.items.is_empty() {
        return Err("it has no item that could be read".to_owned());
    }
    let mut changed = None;
    let mut whole = Item::default();
    for item in &period.items {
        // A duration alone counts where there is one, else the dates.
        let item = match *item {
            Item {
                duration: Some(length),
                ..
            } => Item {
                duration: Some(length),
                ..Item::default()
            },
            Item {
                dates: Some(dates), ..
            } => Item {
                dates: Some(dates),
                ..Item::default()
            },
            item => item,
        };
        let twice = whole.days.is_some() && item.days.is_some()
            || whole.hours.is_some() && item.hours.is_some()
            || whole.dates.is_some() && item.dates.is_some()
            || whole.duration.is_some() && item.duration.is_some();
        if twice {
            return Err("several of its items speak of the same: write what they have in common".to_owned());
        }
        whole = Item {
            days: whole.days.or(item.days),
            hours: whole.hours.or(item.hours),
            dates: whole.dates.or(item.dates),
            duration: whole.duration.or(item.duration),
        };
    }
    let mut lines = String::new();
    if let Some((first, last)) = whole.days {
        let word = |day: u8| DAYS[usize::from(day) % 7];
        let days = if first == last {
            word(first).to_owned()
        } else {
            format!("{}-{}", word(first), word(last))
        };
        let _ = writeln!(lines, "days = {}", strings([days]));
    }
    if let Some((first, last)) = whole.hours {
        if first >= last {
            return Err(format!("its hours from {first} to {last} are none"));
        }
        let _ = writeln!(
            lines,
            "hours = {}",
            strings([format!("{first:02}:00-{last:02}:00")])
        );
    }
    if let Some((first, last)) = whole.dates {
        let date = |seconds: i64| {
            jiff::Timestamp::from_second(seconds)
                .map(|at| at.to_zoned(jiff::tz::TimeZone::system()).date())
                .map_err(|_| format!("{seconds} is no time"))
        };
        let (first, last) = (date(first)?, date(last)?);
        if first > last {
            return Err("its dates end before they begin".to_owned());
        }
        let _ = writeln!(lines, "dates = {}", strings([format!("{first}..{last}")]));
        changed = Some("its dates are whole days here, the first and the last within");
    }
    if let Some(seconds) = whole.duration {
        let _ = writeln!(lines, "duration = {}", string(&format!("{seconds}s")));
    }
    Ok((lines, changed))
}
