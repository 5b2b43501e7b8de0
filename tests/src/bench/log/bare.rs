//! The limit: the same three statements by the same driver in a loop, a thousand rows each, one durable transaction a turn.
//!
//! Nothing sorts, waits, reports or acknowledges. As many rows are in flight as the journal is given.

use super::BATCH;
use super::journal::Outcome;
use super::life::{Lives, close, established};
use crate::wait::now;
use anyhow::Result;
use nufw_proto::ConnId;
use nulog::{Location, Store};
use std::time::Duration;

/// Runs the loop for `warm_up` and then for `time`.
pub(super) async fn run(location: &Location, warm_up: Duration, time: Duration) -> Result<Outcome> {
    let mut store = Store::open(location, 1).await?;
    let lives = Lives::new();
    let mut outcome = Outcome::default();
    let mut batches: [Vec<ConnId>; 2] = [Vec::new(), Vec::new()];
    let start = now();
    let (measured_from, end) = (start + warm_up, start + warm_up + time);
    let mut began_measuring = None;
    loop {
        let at = now();
        if at >= measured_from && began_measuring.is_none() {
            began_measuring = Some(at);
        }
        let over = at >= end;
        if over && outcome.took.is_zero() {
            outcome.took = at - began_measuring.unwrap_or(at);
        }
        let mut ids = Vec::with_capacity(BATCH);
        if !over {
            for _ in 0..BATCH {
                outcome.begun += 1;
                ids.push(ConnId::try_from((1 << 49) + outcome.begun)?);
            }
        }
        if over && batches.iter().all(Vec::is_empty) {
            break;
        }
        let opened = ids.iter().map(|id| lives.open(*id)).collect::<Result<Vec<_>>>()?;
        let established = batches[0]
            .iter()
            .map(|id| established(*id))
            .collect::<Result<Vec<_>>>()?;
        let closed = batches[1]
            .iter()
            .map(|id| close(*id))
            .collect::<Result<Vec<_>>>()?;
        let submitted = now();
        store.bare(&opened, &established, &closed).await?;
        if began_measuring.is_some() && !over {
            outcome.lives += closed.len() as u64;
            outcome.waits.push(submitted.elapsed());
        }
        batches = [ids, std::mem::take(&mut batches[0])];
    }
    store.close().await?;
    Ok(outcome)
}
