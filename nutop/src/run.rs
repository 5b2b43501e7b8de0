//! The loop around the model: reads, keys, signals and the time go in, a drawn screen comes out.
//!
//! Reading is a task of its own, so that a database that does not answer never holds a key up.

use crate::model::{Effect, Model};
use crate::terminal::{Input, Screen, inputs};
use crate::view::{self, Theme};
use nufw_common::clock;
use nufw_common::lifecycle::Signals;
use nufw_proto::Timestamp;
use nulog::{Live, Picture, StoreError};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// How often ages are drawn anew.
const TICK: Duration = Duration::from_secs(1);

/// A read, and when it was begun.
type Reading = (Result<Picture, StoreError>, Timestamp, Instant);

/// Shows the log until somebody ends it.
pub(crate) async fn watch(
    live: Live,
    model: Model,
    log: &str,
    limit: u32,
    interval: Duration,
    theme: Theme,
) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let (pause, paused) = watch::channel(false);
    let now = Arc::new(Notify::new());
    let (sender, readings) = mpsc::channel(1);
    let reader = tokio::spawn(read(live, limit, interval, paused, Arc::clone(&now), sender));
    let mut screen = Screen::take()?;
    let shown = show(
        &mut screen,
        &mut signals,
        model,
        log,
        theme,
        readings,
        &pause,
        &now,
    )
    .await;
    reader.abort();
    shown
}

#[expect(clippy::too_many_arguments, reason = "the ends of everything that meets here")]
async fn show(
    screen: &mut Screen,
    signals: &mut Signals,
    mut model: Model,
    log: &str,
    theme: Theme,
    mut readings: mpsc::Receiver<Reading>,
    pause: &watch::Sender<bool>,
    read_now: &Notify,
) -> io::Result<()> {
    let mut inputs = inputs();
    let mut tick = tokio::time::interval(TICK);
    loop {
        screen
            .terminal
            .draw(|frame| view::draw(frame, &mut model, log, clock::wall(), theme))?;
        tokio::select! {
            _ = signals.next() => return Ok(()),
            input = inputs.recv() => match input {
                None => return Ok(()),
                Some(Input::Resized) => {}
                Some(Input::Key(key)) => {
                    match model.press(key, clock::wall()) {
                        Effect::Quit => return Ok(()),
                        Effect::Read => read_now.notify_one(),
                        Effect::Nothing => {}
                    }
                    let paused = model.paused.is_some();
                    pause.send_if_modified(|before| std::mem::replace(before, paused) != paused);
                }
            },
            Some((read, at, mono)) = readings.recv() => match read {
                Ok(picture) => model.show(picture, at, mono),
                Err(error) => model.fail(error.to_string(), at),
            },
            _ = tick.tick() => {}
        }
    }
}

async fn read(
    mut live: Live,
    limit: u32,
    interval: Duration,
    mut paused: watch::Receiver<bool>,
    now: Arc<Notify>,
    readings: mpsc::Sender<Reading>,
) {
    loop {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        let (at, mono) = (clock::wall(), clock::mono());
        let read = live.read(limit).await;
        if readings.send((read, at, mono)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = now.notified() => {}
        }
    }
}
