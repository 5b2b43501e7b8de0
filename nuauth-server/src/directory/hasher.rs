//! Threads that check passwords: as many as may be checked at one time, at a low priority, apart from everything else.
//!
//! A storm of logins makes logins wait, and nothing else.

use rustix::process::setpriority_process;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// Whatever decides and logs goes before: where a processor is short, the kernel gives such a thread about a tenth of what it
/// gives each of the others (sched(7)). At the lowest priority, which is 19, nobody could log in to a busy gateway.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads.
pub struct Hasher {
    jobs: mpsc::Sender<Job>,
    threads: usize,
}

impl Hasher {
    /// Starts so many threads. Jobs wait without bound here: whoever brings them waits in a line before.
    pub fn start(threads: usize) -> std::io::Result<Arc<Self>> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = threads.max(1);
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(move || work(&waiting))?;
        }
        Ok(Arc::new(Self { jobs, threads }))
    }

    /// How many jobs run at one time.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs a job when its turn has come; `None` when the server ends before that.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = move || {
            // Whoever waited may have gone; what is expensive is not done for nobody.
            if !done.is_closed() {
                let _ = done.send(job());
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        result.await.ok()
    }
}

fn work(waiting: &Mutex<mpsc::Receiver<Job>>) {
    // On Linux a thread has its own. Where it may not be lowered, the scheduler's usual fairness must do.
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::debug!(%error, "passwords are checked at the usual priority");
    }
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn as_many_as_there_are_threads_run_at_one_time_and_at_a_low_priority() {
        let hasher = Hasher::start(1).unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let mut jobs = Vec::new();
        for _ in 0..50 {
            let (hasher, running) = (Arc::clone(&hasher), Arc::clone(&running));
            jobs.push(tokio::spawn(async move {
                hasher
                    .run(move || {
                        let at_once = running.fetch_add(1, Ordering::SeqCst) + 1;
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        let priority = rustix::process::getpriority_process(None).unwrap();
                        (at_once, priority)
                    })
                    .await
            }));
        }
        for job in jobs {
            assert_eq!(job.await.unwrap(), Some((1, NICE)));
        }
    }

    #[tokio::test]
    async fn nothing_is_computed_for_those_who_have_gone() {
        let hasher = Hasher::start(1).unwrap();
        let (release, hold) = mpsc::channel::<()>();
        let (started, has_started) = oneshot::channel();
        let holding = {
            let hasher = Arc::clone(&hasher);
            tokio::spawn(async move {
                let hold = move || {
                    let _ = started.send(());
                    hold.recv().is_ok()
                };
                hasher.run(hold).await
            })
        };
        has_started.await.unwrap();
        let computed = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let computed = Arc::clone(&computed);
            let gone = hasher.run(move || computed.fetch_add(1, Ordering::SeqCst));
            assert!(
                tokio::time::timeout(std::time::Duration::ZERO, gone)
                    .await
                    .is_err()
            );
        }
        release.send(()).unwrap();
        assert_eq!(holding.await.unwrap(), Some(true));
        assert_eq!(hasher.run(|| 7).await, Some(7));
        assert_eq!(computed.load(Ordering::SeqCst), 0);
    }
}
