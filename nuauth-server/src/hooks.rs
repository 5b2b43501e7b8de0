//! Programs that are run when sessions begin and end.
//!
//! The server itself may start nothing: a process of its own, made before the sandbox closes, does it. What is told to it is
//! bounded; a program that hangs is killed, and one that fails is counted. No session waits for any of this.

mod helper;

pub(crate) use helper::main as helper_main;
#[cfg(test)]
use helper::serve as serve_helper;

use crate::engine::SessionWord;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// The word on the command line that makes the program the helper.
pub(crate) const HELPER: &str = "run-hooks";

/// What is run, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSettings {
    /// The program for a session that begins.
    pub login: Option<PathBuf>,
    /// The program for one that ended.
    pub logout: Option<PathBuf>,
    /// A program that takes longer is killed.
    pub timeout: Duration,
    /// Programs at one time; those of one session come one after the other.
    pub parallel: usize,
    /// Runs that wait; a further one is left out and counted.
    pub queue: usize,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Job {
    event: Event,
    /// User, id, address, session, reason.
    args: Vec<String>,
    session: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Login,
    Logout,
}

impl Event {
    fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Logout => "logout",
        }
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    /// With a sentence.
    Failed(String),
    TimedOut,
    LeftOut,
}

/// What became of runs since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookState {
    /// Runs that ended well.
    pub done: u64,
    /// Runs that ended badly or could not begin.
    pub failed: u64,
    /// Runs that took too long.
    pub timed_out: u64,
    /// Runs for which there was no room.
    pub left_out: u64,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    left_out: AtomicU64,
}

impl Counts {
    fn add(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => &self.done,
            Outcome::Failed(_) => &self.failed,
            Outcome::TimedOut => &self.timed_out,
            Outcome::LeftOut => &self.left_out,
        }
        .fetch_add(1, Ordering::Relaxed);
    }
}

/// The helper, before the runtime.
pub(crate) struct Helper {
    stream: StdStream,
    settings: HookSettings,
}

impl Helper {
    /// Starts it, if anything is to be run: as the user of this process, before the sandbox closes.
    pub(crate) fn start(settings: Option<&HookSettings>) -> anyhow::Result<Option<Self>> {
        let Some(settings) = settings else { return Ok(None) };
        let (stream, other) = StdStream::pair().context("no socket for the process that runs hooks")?;
        let program = std::env::current_exe().context("the program's own file cannot be found")?;
        Command::new(program)
            .arg(HELPER)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            .current_dir("/")
            .spawn()
            .context("the process that runs hooks cannot be started")?;
        Ok(Some(Self {
            stream,
            settings: settings.clone(),
        }))
    }
}

/// Tells the helper of sessions.
pub(crate) struct Hooks {
    jobs: mpsc::Sender<Job>,
    counts: Arc<Counts>,
    has: [bool; 2],
}

/// Reads what became of the runs.
#[derive(Clone, Default)]
pub(crate) struct HookCounts(Arc<Counts>);

impl HookCounts {
    pub(crate) fn state(&self) -> HookState {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HookState {
            done: read(&self.0.done),
            failed: read(&self.0.failed),
            timed_out: read(&self.0.timed_out),
            left_out: read(&self.0.left_out),
        }
    }
}

impl Hooks {
    /// Begins to talk to the helper; within the runtime.
    pub(crate) fn serve(helper: Helper) -> io::Result<(Self, HookCounts)> {
        let Helper { stream, settings } = helper;
        stream.set_nonblocking(true)?;
        let (reader, mut writer) = UnixStream::from_std(stream)?.into_split();
        let (jobs, mut waiting) = mpsc::channel::<Job>(settings.queue);
        let counts = Arc::new(Counts::default());
        let has = [settings.login.is_some(), settings.logout.is_some()];
        tokio::spawn(async move {
            let mut line = serde_json::to_vec(&settings).unwrap_or_default();
            loop {
                line.push(b'\n');
                if writer.write_all(&line).await.is_err() {
                    return;
                }
                let Some(job) = waiting.recv().await else { return };
                line = serde_json::to_vec(&job).unwrap_or_default();
            }
        });
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            let mut complained = false;
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(outcome) = serde_json::from_str::<Outcome>(&line) else {
                    continue;
                };
                counted.add(&outcome);
                // Each is counted; a script that always fails is told of once, until one succeeds.
                match outcome {
                    Outcome::Done => complained = false,
                    outcome if !complained => {
                        complained = true;
                        tracing::warn!(
                            ?outcome,
                            "a hook did not end well; further ones are counted until one does"
                        );
                    }
                    _ => {}
                }
            }
            tracing::warn!(
                "the process that runs hooks has ended: none is run until the server is started again"
            );
        });
        let shared = HookCounts(Arc::clone(&counts));
        Ok((Self { jobs, counts, has }, shared))
    }

    pub(crate) fn tell(&self, word: &SessionWord) {
        let event = if word.end.is_some() {
            Event::Logout
        } else {
            Event::Login
        };
        let [login, logout] = self.has;
        if (event == Event::Login && !login) || (event == Event::Logout && !logout) {
            return;
        }
        let job = Job {
            event,
            args: vec![
                word.user.name.to_string(),
                word.user.id.to_string(),
                word.address.to_string(),
                word.session.0.to_string(),
                word.end.unwrap_or(word.quality.word()).to_owned(),
            ],
            session: word.session.0,
        };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.counts.add(&Outcome::LeftOut),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.counts.add(&Outcome::Failed(
                    "the process that runs hooks has ended".to_owned(),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Quality;
    use nufw_proto::SessionId;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    struct Lab {
        hooks: Hooks,
        counts: HookCounts,
        dir: tempfile::TempDir,
    }

    fn script(path: &Path, text: &str) {
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn lab(login: &str, logout: &str, change: impl FnOnce(&mut HookSettings)) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            script(&path, &text.replace("OUT", &out.display().to_string()));
            Some(path)
        };
        let mut settings = HookSettings {
            login: file("login", login),
            logout: file("logout", logout),
            timeout: Duration::from_secs(30),
            parallel: 2,
            queue: 8,
        };
        change(&mut settings);
        let (stream, other) = StdStream::pair().unwrap();
        std::thread::spawn(move || serve_helper(other));
        let (hooks, counts) = Hooks::serve(Helper { stream, settings }).unwrap();
        Lab { hooks, counts, dir }
    }

    impl Lab {
        fn tell(&self, session: u64, end: Option<&'static str>) {
            self.hooks.tell(&SessionWord {
                session: SessionId(session),
                user: nulog::User {
                    id: 7,
                    name: "al ice".into(),
                },
                address: "2001:db8::7".parse().unwrap(),
                quality: Quality::Password,
                end,
            });
        }

        async fn until(&self, what: impl Fn(HookState) -> bool) {
            let waiting = async {
                while !what(self.counts.state()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
            assert!(waited.is_ok(), "{:?}", self.counts.state());
        }
    }

    #[tokio::test]
    async fn a_hook_has_its_arguments_and_nothing_of_our_environment() {
        let show = "{ printf '%s|' \"$@\"; env | sort | tr '\\n' '|'; pwd; } >> OUT";
        let lab = lab(show, show, |_| {});
        lab.tell(9, None);
        lab.tell(9, Some("logout"));
        lab.until(|state| state.done == 2).await;
        let text = std::fs::read_to_string(lab.dir.path().join("out")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "al ice|7|2001:db8::7|9|password|LANG=C|NUFW_EVENT=login|PATH=/usr/sbin:/usr/bin:/sbin:/bin|PWD=/|/",
                "al ice|7|2001:db8::7|9|logout|LANG=C|NUFW_EVENT=logout|PATH=/usr/sbin:/usr/bin:/sbin:/bin|PWD=/|/",
            ],
            "those of one session come in their order"
        );
    }

    #[tokio::test]
    async fn a_hook_that_never_returns_is_killed_with_its_children_and_the_others_run() {
        let lab = lab(
            "[ \"$4\" != 1 ] || { sleep 600 & echo $! > OUT; wait; }",
            "exit 3",
            |settings| {
                settings.timeout = Duration::from_millis(500);
            },
        );
        lab.tell(1, None);
        lab.tell(2, None);
        lab.tell(2, Some("lost"));
        lab.until(|state| (state.done, state.failed, state.timed_out) == (1, 1, 1))
            .await;
        let child = std::fs::read_to_string(lab.dir.path().join("out")).unwrap();
        let status = format!("/proc/{}/stat", child.trim());
        let gone = || std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(" Z "));
        let waiting = async {
            while gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_finds_no_room_is_left_out_and_counted() {
        let lab = lab("sleep 600", "true", |settings| {
            settings.timeout = Duration::from_secs(2);
            settings.queue = 2;
            settings.parallel = 1;
        });
        for session in 0..50 {
            lab.tell(session, None);
        }
        lab.until(|state| state.left_out > 40).await;
    }

    #[tokio::test]
    async fn a_hook_that_is_not_there_is_a_failure_and_no_more() {
        let lab = lab("true", "true", |settings| {
            settings.login = Some("/nowhere/at/all".into());
        });
        lab.tell(1, None);
        lab.tell(1, Some("idle"));
        lab.until(|state| (state.failed, state.done) == (1, 1)).await;
    }
}
