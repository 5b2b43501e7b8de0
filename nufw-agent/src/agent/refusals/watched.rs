//! Whether the rules that send packets to the queue are still where they were: another program may flush them.
//!
//! Pure: what was seen, and when, are parameters. While they are gone, packets pass or fall without being asked about; the
//! log gets the interval.

use super::{Place, family, name};
use crate::rules::LoadError;
use nufw_proto::Timestamp;
use nufw_proto::gateway::{Gap, GapCause};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Loads the rules.
pub type Load = Arc<dyn Fn() -> Result<(), LoadError> + Send + Sync>;

/// Who loads the rules again.
#[derive(Clone)]
pub enum Reapply {
    /// This process.
    Here(Load),
    /// The supervisor.
    Keeper,
}

impl Reapply {
    /// What this process does.
    pub(super) fn load(&self) -> Option<&Load> {
        match self {
            Self::Here(load) => Some(load),
            Self::Keeper => None,
        }
    }
}

/// What becomes of rules that somebody else removes.
#[derive(Default)]
pub struct Watch {
    /// How often it is looked whether they are there; 0 never.
    pub every: Duration,
    /// What loads them again; `None` where that is the administrator's part.
    pub reapply: Option<Reapply>,
}

/// What is known of the rules that send packets to the queue.
pub(super) struct Watched {
    every: Duration,
    reapply: Option<Arc<Reapply>>,
    /// Where they have been seen.
    known: Vec<Place>,
    /// Where they are gone.
    pub(super) missing: Vec<Place>,
    /// When they were last known to be where they belong, or the time without them was last told.
    whole_at: Timestamp,
    mend: bool,
    /// The last attempt to load them failed.
    retry: bool,
    /// Why loading them failed, as it was last told of the present interval without them.
    told: Option<String>,
}

impl Watched {
    pub(super) fn new(watch: Watch, now: Timestamp) -> Self {
        Self {
            every: watch.every,
            reapply: watch.reapply.map(Arc::new),
            known: Vec::new(),
            missing: Vec::new(),
            whole_at: now,
            mend: false,
            retry: false,
            told: None,
        }
    }

    /// Whether it is time to look, by the last look.
    pub(super) fn is_due(&self, looked: Instant, now: Instant) -> bool {
        self.mend || (!self.every.is_zero() && now >= looked + self.every)
    }

    /// What the next look does first.
    pub(super) fn mending(&mut self) -> Option<Arc<Reapply>> {
        std::mem::take(&mut self.mend)
            .then(|| self.reapply.clone())
            .flatten()
    }

    /// Takes over where rules send to the queue; a family of which nothing could be seen says nothing. Gives the interval
    /// in which they were not where they belong, when it begins to be known and when it is over.
    pub(super) fn learn(
        &mut self,
        seen: &[Place],
        visible: impl Fn(bool) -> bool,
        now: Timestamp,
    ) -> Option<Gap> {
        for place in seen {
            if !self.known.contains(place) {
                self.known.push(*place);
            }
        }
        let was_missing = !self.missing.is_empty();
        let before = std::mem::take(&mut self.missing);
        self.missing = self
            .known
            .iter()
            .filter(|place| {
                let is_seen = seen.contains(place);
                let unknown = !visible(place.1);
                !is_seen && (!unknown || before.contains(place))
            })
            .copied()
            .collect();
        for place in self.missing.iter().filter(|place| !before.contains(place)) {
            tracing::warn!(
                family = family(place.1),
                hook = name(place.0),
                reapplied = self.reapply.is_some(),
                "the rule that sent packets to the queue is gone: they are not asked about; load the rules again (nufw-agent rules --apply), or set rules.reapply"
            );
        }
        for place in before.iter().filter(|place| !self.missing.contains(place)) {
            tracing::warn!(
                family = family(place.1),
                hook = name(place.0),
                "a rule sends packets to the queue again"
            );
        }
        let is_missing = !self.missing.is_empty();
        if !is_missing {
            self.told = None;
        }
        let retry = std::mem::take(&mut self.retry);
        self.mend = is_missing && (retry || !was_missing) && self.reapply.is_some();
        let gap = (is_missing != was_missing).then_some(Gap {
            from: self.whole_at,
            to: now,
            cause: GapCause::RulesMissing,
        });
        if gap.is_some() || !is_missing {
            self.whole_at = now;
        }
        gap
    }

    /// The look that should have loaded them did not come about.
    pub(super) fn mend_still(&mut self) {
        self.mend = true;
    }

    /// Loading them again failed: the next look in its turn tries anew. It is said once in an interval without rules, and again
    /// where the reason is another one. Tells whether it was.
    pub(super) fn not_mended(&mut self, error: &str) -> bool {
        self.retry = true;
        let is_news = self.told.as_deref() != Some(error);
        if is_news {
            tracing::warn!(
                error,
                "the rules that are gone cannot be loaded again; it is tried at each look (rules.watch)"
            );
            self.told = Some(error.to_owned());
        }
        is_news
    }

    /// The administrator says that things are as they should be.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::gateway::Hook;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn the_time_without_rules_is_told_when_it_is_noticed_and_when_it_ends() {
        let places = [(Hook::Forward, true), (Hook::Forward, false)];
        let mut watched = Watched::new(Watch::default(), at(0));
        let mut learn = |seen: &[Place], visible, second| {
            let gap = watched.learn(seen, |_| visible, at(second));
            gap.map(|gap| (gap.from, gap.to))
        };
        assert_eq!(learn(&[], true, 0), None, "what was never there is not gone");
        assert_eq!(learn(&places, true, 10), None);
        assert_eq!(learn(&places, true, 20), None);
        assert_eq!(learn(&[], false, 30), None, "what cannot be seen is not gone");
        assert_eq!(learn(&places, true, 40), None);
        assert_eq!(learn(&places[..1], true, 50), Some((at(40), at(50))));
        assert_eq!(learn(&[], true, 60), None);
        assert_eq!(learn(&[], false, 65), None, "nor does it come back unseen");
        assert_eq!(learn(&places, true, 70), Some((at(50), at(70))));
    }

    #[test]
    fn they_are_loaded_again_once_for_each_time_they_are_gone() {
        let watch = Watch {
            every: Duration::from_secs(10),
            reapply: Some(Reapply::Here(Arc::new(|| Ok(())))),
        };
        let mut watched = Watched::new(watch, at(0));
        let place = [(Hook::Forward, true)];
        let look = |watched: &mut Watched, seen: &[Place]| {
            watched.learn(seen, |_| true, at(1));
            watched.mending().is_some()
        };
        assert!(!look(&mut watched, &place));
        assert!(look(&mut watched, &[]));
        assert!(!look(&mut watched, &[]));
        watched.not_mended("why");
        assert!(look(&mut watched, &[]));
        assert!(!look(&mut watched, &place));
    }

    #[test]
    fn that_loading_fails_is_said_once_for_each_time_they_are_gone() {
        let mut watched = Watched::new(Watch::default(), at(0));
        let place = [(Hook::Forward, true)];
        let learn = |watched: &mut Watched, seen: &[Place]| {
            watched.learn(seen, |_| true, at(1));
        };
        for _ in 0..2 {
            learn(&mut watched, &place);
            learn(&mut watched, &[]);
            assert!(watched.not_mended("no command"));
            learn(&mut watched, &[]);
            assert!(!watched.not_mended("no command"));
            assert!(watched.not_mended("refused"), "that is news");
        }
    }
}
