//! Whether the host's rules do what the agent relies on: send packets to its queue, and refuse what it marks as rejected, or
//! as ended.
//!
//! A mark alone lets a packet pass, so what cannot be seen counts as missing. Looking runs the listing commands of
//! iptables and nft on a thread of its own, never on the path of a packet.

mod watched;

pub use watched::{Load, Reapply, Watch};

use crate::check::RuleFacts;
use crate::keeper::{Access, Looked};
use nufw_common::clock;
use nufw_proto::Mark;
use nufw_proto::gateway::{Gap, Hook};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};
use watched::Watched;

/// Least time between two looks that packets cause.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a look may take; until then what was seen before counts, after that nothing does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where packets come from the queue: hook, and whether they are IPv4.
type Place = (Hook, bool);

/// Where the rules come from.
enum Source {
    /// The listing commands, run by this process.
    Commands(Option<Arc<Reapply>>),
    /// The supervisor runs them and writes what they print.
    Pipe(File),
}

impl Source {
    fn new(access: &Access, mending: Option<Arc<Reapply>>) -> io::Result<Self> {
        Ok(match access {
            Access::Own => Self::Commands(mending),
            Access::Keeper(keeper) => Self::Pipe(keeper.rules(mending.is_some())?.into()),
        })
    }

    /// On a thread that ends afterwards.
    fn look(self) -> Looked {
        match self {
            Self::Commands(mending) => Looked::with_lent_rights(mending.as_ref().and_then(|how| how.load())),
            Self::Pipe(pipe) => serde_json::from_reader(io::BufReader::new(pipe))
                .inspect_err(|error| tracing::debug!(%error, "the supervisor's list of rules broke off"))
                .unwrap_or_default(),
        }
    }
}

const HOOKS: [Hook; 5] = [
    Hook::Prerouting,
    Hook::Input,
    Hook::Forward,
    Hook::Output,
    Hook::Postrouting,
];

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    /// Why the rules were not loaded, where they were to be loaded again first.
    not_loaded: Option<String>,
    /// Whether the rules of a family could be seen at all: IPv4, IPv6.
    visible: (bool, bool),
    /// Where a rule sends to the queue, and whether another surely refuses what comes back with the bit.
    places: Vec<(Place, bool)>,
    /// Whether rules surely refuse connections that were ended, in every hook that sends to the queue: IPv4, IPv6.
    ends: (bool, bool),
}

impl Seen {
    fn new(queue: u16, bit: Mark, kill_bit: Mark, rules: &(Option<RuleFacts>, Option<RuleFacts>)) -> Self {
        let families = [(true, &rules.0), (false, &rules.1)];
        let ends = |facts: &Option<RuleFacts>| {
            facts.as_ref().is_some_and(|facts| {
                let mut used = HOOKS
                    .into_iter()
                    .filter(|hook| facts.queues_at(queue, *hook))
                    .peekable();
                used.peek().is_some() && used.all(|hook| facts.ends(kill_bit.0, hook))
            })
        };
        let places = families
            .into_iter()
            .filter_map(|(is_ipv4, facts)| Some((is_ipv4, facts.as_ref()?)))
            .flat_map(|(is_ipv4, facts)| {
                HOOKS
                    .into_iter()
                    .filter(move |hook| facts.queues_at(queue, *hook))
                    .map(move |hook| ((hook, is_ipv4), facts.refuses(queue, bit.0, hook)))
            })
            .collect();
        Self {
            not_loaded: None,
            visible: (rules.0.is_some(), rules.1.is_some()),
            places,
            ends: (ends(&rules.0), ends(&rules.1)),
        }
    }

    fn is_refused(&self, place: Place) -> bool {
        self.places.contains(&(place, true))
    }
}

/// What is known of the rules, and when it is looked at again.
pub struct Refusals {
    access: Access,
    watched: Watched,
    /// An interval without the rules that the log has to hear of.
    gap: Option<Gap>,
    queue: u16,
    bit: Mark,
    kill_bit: Mark,
    seen: Seen,
    looked: Instant,
    looking: Option<Receiver<Seen>>,
    wanted: bool,
    at_once: bool,
    /// Somebody asked, and wants to hear all of it again.
    tell_again: bool,
    warned: Vec<Place>,
    /// Families of which it was said that what is ended is only deleted: IPv4, IPv6.
    warned_of_ends: [bool; 2],
}

impl Refusals {
    /// Looks for the first time, and waits for what is found, if packets can wait so long.
    pub fn look(
        access: Access,
        queue: u16,
        (bit, kill_bit): (Mark, Mark),
        watch: Watch,
        patience: Duration,
    ) -> Self {
        let mut refusals = Self {
            access,
            watched: Watched::new(watch, clock::wall()),
            gap: None,
            queue,
            bit,
            kill_bit,
            seen: Seen::default(),
            looked: clock::mono(),
            looking: None,
            wanted: false,
            at_once: false,
            tell_again: false,
            warned: Vec::new(),
            warned_of_ends: [false; 2],
        };
        refusals.begin(refusals.looked);
        let found = refusals
            .looking
            .as_ref()
            .and_then(|looking| looking.recv_timeout(patience.min(PATIENCE)).ok());
        if let Some(found) = found {
            refusals.looking = None;
            refusals.learn(found);
        }
        refusals
    }

    /// Whether a packet that goes on with the bit is surely refused. Rules come and go, so whoever asks makes it be
    /// looked at again, if that was long ago.
    pub(super) fn sure(&mut self, hook: Hook, is_ipv4: bool) -> bool {
        self.wanted = true;
        let place = (hook, is_ipv4);
        let sure = self.seen.is_refused(place);
        // Before the first look has ended there is nothing to say.
        let looks_first = self.looking.is_some() && self.seen == Seen::default();
        if !sure && !looks_first {
            self.warn(place);
        }
        sure
    }

    /// Whether packets of a connection that has the kill bit are surely refused. Like [`Self::sure`], asking makes it be
    /// looked at again.
    pub(super) fn ends(&mut self, is_ipv4: bool) -> bool {
        self.wanted = true;
        let (ends, warned) = if is_ipv4 {
            (self.seen.ends.0, &mut self.warned_of_ends[0])
        } else {
            (self.seen.ends.1, &mut self.warned_of_ends[1])
        };
        if !ends && !std::mem::replace(warned, true) {
            tracing::warn!(
                family = family(is_ipv4),
                "no rule surely refuses connections with marks.kill-bit, so those that the server ends are only deleted and nobody is told; load the rules (nufw-agent rules), then send SIGHUP"
            );
        } else if ends {
            *warned = false;
        }
        ends
    }

    /// Looks again as soon as may be.
    pub(super) fn look_at_once(&mut self) {
        (self.wanted, self.at_once) = (true, true);
        self.watched.forget();
    }

    /// The interval without rules that became known since the last call.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// Takes over what a look found, and begins the next if one is due.
    pub(super) fn step(&mut self, now: Instant) {
        if let Some(looking) = &self.looking {
            match looking.try_recv() {
                Ok(found) => {
                    self.looking = None;
                    self.learn(found);
                }
                Err(TryRecvError::Empty) => {
                    if now >= self.looked + PATIENCE {
                        self.seen = Seen::default();
                    }
                    return;
                }
                Err(TryRecvError::Disconnected) => {
                    self.looking = None;
                    self.learn(Seen::default());
                }
            }
        }
        let is_asked_for = self.bit.0 | self.kill_bit.0 != 0
            && self.wanted
            && (self.at_once || now >= self.looked + LOOK_EVERY);
        if is_asked_for || self.watched.is_due(self.looked, now) {
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        self.tell_again |= self.at_once;
        (self.looked, self.wanted, self.at_once) = (now, false, false);
        let (queue, bit, kill_bit) = (self.queue, self.bit, self.kill_bit);
        let mending = self.watched.mending();
        let source = match Source::new(&self.access, mending.clone()) {
            Ok(source) => source,
            Err(error) => {
                // It lists for too many already, of which none may be left.
                tracing::debug!(%error, "the supervisor does not list the rules yet");
                (self.wanted, self.at_once) = (true, true);
                if mending.is_some() {
                    self.watched.mend_still();
                }
                return;
            }
        };
        let (tell, told) = mpsc::channel();
        let begun = std::thread::Builder::new()
            .name("look-at-rules".to_owned())
            .spawn(move || {
                let Looked { not_loaded, listings } = source.look();
                let seen = Seen {
                    not_loaded,
                    ..Seen::new(queue, bit, kill_bit, &listings.rules())
                };
                // If nobody waits any more, nobody needs to know.
                let _ = tell.send(seen);
            });
        match begun {
            Ok(_) => self.looking = Some(told),
            Err(error) => {
                tracing::warn!(%error, "no thread can be made to look at the rules");
                self.learn(Seen::default());
            }
        }
    }

    fn learn(&mut self, found: Seen) {
        let places: Vec<Place> = found.places.iter().map(|(place, _)| *place).collect();
        let (v4, v6) = found.visible;
        let visible = |is_ipv4| if is_ipv4 { v4 } else { v6 };
        self.gap = self.watched.learn(&places, visible, clock::wall()).or(self.gap);
        if let Some(error) = &found.not_loaded {
            let _ = self.watched.not_mended(error);
        }
        self.seen = found;
        let seen = &self.seen;
        self.warned.retain(|place| {
            let mended = seen.is_refused(*place);
            if mended {
                tracing::info!(
                    family = family(place.1),
                    hook = name(place.0),
                    "a rule refuses rejected packets again"
                );
            }
            !mended
        });
        if std::mem::take(&mut self.tell_again) {
            self.warned.clear();
        }
        let lacking: Vec<Place> = seen
            .places
            .iter()
            .filter(|(_, sure)| !sure)
            .map(|(place, _)| *place)
            .collect();
        for place in lacking {
            self.warn(place);
        }
    }

    /// Says once that rejected packets are dropped.
    fn warn(&mut self, place: Place) {
        if self.bit.0 == 0 || self.warned.contains(&place) {
            return;
        }
        self.warned.push(place);
        let (family, hook) = (family(place.1), name(place.0));
        let visible = if place.1 {
            self.seen.visible.0
        } else {
            self.seen.visible.1
        };
        if !visible {
            tracing::warn!(
                family,
                hook,
                "the rules cannot be seen (iptables-save, nft list ruleset), so packets that the server rejects are dropped without an answer; install either command, or set marks.reject-bit = 0"
            );
        } else if matches!(place.0, Hook::Forward | Hook::Input | Hook::Output) {
            tracing::warn!(
                family,
                hook,
                mend = format_args!("nufw-agent rules --hook {} --apply", self.hooks(place.0)),
                "no rule surely refuses packets with marks.reject-bit, so those that the server rejects are dropped without an answer; load the rules, then send SIGHUP"
            );
        } else {
            tracing::warn!(
                family,
                hook,
                "no rule surely refuses packets with marks.reject-bit, so those that the server rejects are dropped without an answer; hold connections back in forward, input or output (nufw-agent rules), then send SIGHUP"
            );
        }
    }

    /// The hooks to load rules for: loading those of one removes those of the other.
    fn hooks(&self, lacking: Hook) -> String {
        let used = |hook| {
            hook == lacking
                || [true, false].into_iter().any(|is_ipv4| {
                    self.seen
                        .places
                        .iter()
                        .any(|(place, _)| *place == (hook, is_ipv4))
                })
        };
        let hooks: Vec<_> = [Hook::Forward, Hook::Input, Hook::Output]
            .into_iter()
            .filter(|hook| used(*hook))
            .map(name)
            .collect();
        hooks.join(",")
    }
}

fn family(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "IPv4" } else { "IPv6" }
}

fn name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

#[cfg(test)]
mod tests;
