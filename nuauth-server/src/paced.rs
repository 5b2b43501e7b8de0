//! Work that is long for one step, such as a TLS handshake's arithmetic, a few steps at a time.
//!
//! A thousand peers that come at once are a thousand such steps. Were they all ready to run, a packet's question would stand
//! behind them in the runtime's queue; so most of them wait outside of it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::ready;
use tokio::sync::Semaphore;

/// How many steps are made at one time: half of the threads that the runtime has.
pub(crate) fn steps() -> Semaphore {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((threads / 2).max(1))
}

/// Drives a future to its end, taking one of `steps` each time that it goes on. While it waits for its peer it has none.
pub(crate) async fn paced<F: Future>(steps: &Semaphore, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut acquiring = None;
    poll_fn(|context| {
        let step = ready!(
            acquiring
                .get_or_insert_with(|| Box::pin(steps.acquire()))
                .as_mut()
                .poll(context)
        );
        acquiring = None;
        let polled = future.as_mut().poll(context);
        drop(step);
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::Duration;

    /// Is polled so many times, waking itself, and counts how many are polled at one time.
    async fn many_polls(left: usize, inside: Arc<AtomicUsize>) -> usize {
        let mut left = left;
        let mut most = 0;
        poll_fn(|context| {
            most = most.max(1 + inside.fetch_add(1, Ordering::SeqCst));
            std::thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            left -= 1;
            if left == 0 {
                return Poll::Ready(most);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn as_many_go_on_at_one_time_as_there_are_steps_and_all_come_to_their_end() {
        let (steps, inside) = (Arc::new(Semaphore::new(2)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (steps, inside) = (Arc::clone(&steps), Arc::clone(&inside));
                tokio::spawn(async move { paced(&steps, many_polls(20, inside)).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap() <= 2);
        }
        assert_eq!(steps.available_permits(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_its_peer_keeps_nobody_from_going_on() {
        let steps = Semaphore::new(1);
        let silent = paced(&steps, std::future::pending::<()>());
        let quick = paced(&steps, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            7
        });
        tokio::select! {
            biased;
            () = silent => unreachable!(),
            said = quick => assert_eq!(said, 7),
        }
        assert_eq!(steps.available_permits(), 1);
    }
}
