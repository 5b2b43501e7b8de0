//! One run, from the first step to the report.
//!
//! At most half of the time is work: whoever else uses the log gets the rest. A signal ends the run after the step that is
//! under way.

use super::Settings;
use super::report::{Fate, Old, Report};
use super::worker::{Worker, verify};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::lifecycle::Signals;
use nufw_proto::{ConnId, Timestamp};
use nulog::{Aged, Upkeep, UpkeepDone};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest pause between two steps.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

struct Run<'a> {
    settings: &'a Settings,
    signals: Signals,
    began: Instant,
    told_to_end: bool,
    worker: Worker,
    report: Report,
}

/// Does it all.
pub(crate) async fn run(settings: &Settings) -> Result<Report, Failure> {
    let signals = Signals::new()
        .context("signals cannot be received")
        .or_exit(Exit::OsErr)?;
    let worker = Worker::find(settings).await?;
    let mut run = Run {
        settings,
        signals,
        began: clock::mono(),
        told_to_end: false,
        report: Report {
            log: settings.location.to_string(),
            through: worker.name(),
            dry_run: settings.dry_run,
            ..Report::default()
        },
        worker,
    };
    let done = run.everything().await;
    let Run {
        worker,
        mut report,
        told_to_end,
        began,
        ..
    } = run;
    report.finished = !told_to_end;
    report.seconds = clock::mono().saturating_duration_since(began).as_secs_f64();
    let closed = worker.close().await;
    done?;
    closed?;
    Ok(report)
}

impl Run<'_> {
    async fn everything(&mut self) -> Result<(), Failure> {
        let now = clock::wall();
        let dead_before = earlier(now, self.settings.grace);
        let total = match (self.settings.bar, self.settings.dry_run) {
            (true, false) => Some(self.count(dead_before).await?),
            _ => None,
        };
        let bar = bar(total);
        let moved = self.move_dead(dead_before, &bar).await;
        bar.finish_and_clear();
        moved?;
        if !self.told_to_end {
            self.doubt_old(earlier(now, self.settings.timeout)).await?;
        }
        Ok(())
    }

    async fn count(&mut self, before: Timestamp) -> Result<u64, Failure> {
        let step = |after| Upkeep::MoveDead {
            after,
            before,
            dry: true,
        };
        Ok(self.steps(step, |_| {}).await?.moved)
    }

    async fn move_dead(&mut self, before: Timestamp, bar: &ProgressBar) -> Result<(), Failure> {
        let dry = self.settings.dry_run;
        let step = |after| Upkeep::MoveDead { after, before, dry };
        let done = self.steps(step, |done| bar.inc(done.moved)).await?;
        self.report.moved = done.moved;
        self.report.held = done.held;
        self.report.held_ids = done.held_rows().map(|id: ConnId| id.get().to_string()).collect();
        Ok(())
    }

    /// Live rows that old may have lost their end: the kernel knows, or nobody does.
    async fn doubt_old(&mut self, before: Timestamp) -> Result<(), Failure> {
        let old = self.look(before).await?.aged;
        if old.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = old.keys().cloned().collect();
        let verified = verify(&self.settings.socket, names, self.settings.dry_run).await;
        let connected = |list: fn(&nufw_common::control::Verified) -> &Vec<String>, name: &String| {
            verified
                .as_ref()
                .is_some_and(|verified| list(verified).contains(name))
        };
        let mut fates: BTreeMap<String, Fate> = old
            .iter()
            .map(|(name, aged)| {
                let fate = if connected(|verified| &verified.asked, name) {
                    Fate::Verifying
                } else if connected(|verified| &verified.mute, name) {
                    Fate::Mute
                } else if aged.lost {
                    Fate::Closed
                } else if verified.is_some() {
                    Fate::Waiting
                } else {
                    Fate::Unasked
                };
                (name.clone(), fate)
            })
            .collect();
        self.watch(&old, &mut fates, before).await?;
        if self.told_to_end {
            return Ok(());
        }
        let spare: Vec<String> = fates
            .iter()
            .filter(|(_, fate)| **fate != Fate::Closed)
            .map(|(name, _)| name.clone())
            .collect();
        if spare.len() < fates.len() {
            let dry = self.settings.dry_run;
            let step = |after| Upkeep::CloseLost {
                after,
                before,
                spare: spare.clone(),
                dry,
            };
            self.report.closed = self.steps(step, |_| {}).await?.closed;
        }
        self.report.old = fates
            .into_iter()
            .map(|(name, fate)| {
                let rows = old.get(&name).map_or(0, |aged| aged.rows);
                (name, Old { rows, fate })
            })
            .collect();
        Ok(())
    }

    /// A clock that is wrong makes every heartbeat look old, but not stand still. Where the log is a file, the one server that
    /// could tell has been asked, or does not run.
    async fn watch(
        &mut self,
        old: &BTreeMap<String, Aged>,
        fates: &mut BTreeMap<String, Fate>,
        before: Timestamp,
    ) -> Result<(), Failure> {
        let beside_servers = matches!(self.worker, Worker::Database(_));
        if self.settings.dry_run || !beside_servers || fates.values().all(|fate| *fate != Fate::Closed) {
            return Ok(());
        }
        self.pause(self.settings.watch).await;
        if self.told_to_end {
            return Ok(());
        }
        let later = self.look(before).await?.aged;
        for (name, fate) in fates.iter_mut().filter(|(_, fate)| **fate == Fate::Closed) {
            let heartbeat = |aged: Option<&Aged>| aged.and_then(|aged| aged.last_heartbeat);
            let stands_still = heartbeat(later.get(name)) == heartbeat(old.get(name));
            if !stands_still {
                tracing::warn!(
                    gateway = name,
                    "a gateway whose heartbeat looks old is there: the clocks of this host and of the server differ"
                );
                *fate = Fate::Waiting;
            }
        }
        Ok(())
    }

    /// Old live rows, counted.
    async fn look(&mut self, before: Timestamp) -> Result<UpkeepDone, Failure> {
        let step = |after| Upkeep::CloseLost {
            after,
            before,
            spare: Vec::new(),
            dry: true,
        };
        self.steps(step, |_| {}).await
    }

    /// Does steps until there is nothing more to do, or a signal comes.
    async fn steps(
        &mut self,
        step: impl Fn(i64) -> Upkeep,
        tell: impl Fn(&UpkeepDone),
    ) -> Result<UpkeepDone, Failure> {
        let mut sum = UpkeepDone {
            more: true,
            ..UpkeepDone::default()
        };
        while sum.more && !self.told_to_end {
            let began = clock::mono();
            let done = self.worker.step(&step(sum.after), self.settings).await?;
            tell(&done);
            self.report.batches += u64::from(done.moved + done.closed > 0 && !self.settings.dry_run);
            sum.add(done);
            let took = clock::mono().saturating_duration_since(began);
            if sum.more {
                self.pause(took.min(LONGEST_PAUSE)).await;
            }
        }
        Ok(sum)
    }

    async fn pause(&mut self, time: Duration) {
        let late = self
            .settings
            .at_most
            .is_some_and(|most| clock::mono().saturating_duration_since(self.began) >= most);
        if late {
            self.told_to_end = true;
            return;
        }
        tokio::select! {
            biased;
            _ = self.signals.next() => self.told_to_end = true,
            () = tokio::time::sleep(time) => {}
        }
    }
}

fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(now.micros().saturating_sub(micros))
}

/// For whoever watches; without anybody it draws nothing.
fn bar(total: Option<u64>) -> ProgressBar {
    let Some(total) = total else {
        return ProgressBar::hidden();
    };
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} rows  {per_sec}  {eta}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
