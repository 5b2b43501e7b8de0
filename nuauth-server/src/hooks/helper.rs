//! The process that runs hooks: jobs in, what became of them out, a line each.
//!
//! Knows nothing of the server but its end of a socket, and ends with it when what waits is done or its time is over.

use super::{Event, HookSettings, Job, Outcome};
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::lifecycle::Signals;
use nufw_common::privileges;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a running program is looked at: at first, and after a while.
const LOOKS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// The whole process; standard input is the socket.
pub(crate) fn main() -> Result<(), Failure> {
    privileges::keep_only(&[]).or_exit(Exit::OsErr)?;
    // The service manager's word is for the server, which closes the socket when it ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_exit(Exit::OsErr)?;
    let _signals = runtime.block_on(async { Signals::new() }).or_exit(Exit::OsErr)?;
    let socket: OwnedFd = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .or_exit(Exit::OsErr)?;
    serve(UnixStream::from(socket));
    Ok(())
}

/// Runs what comes until the socket ends.
pub(crate) fn serve(socket: UnixStream) {
    let Ok(reader) = socket.try_clone() else { return };
    let mut lines = BufReader::new(reader).lines();
    let Some(settings) = lines
        .next()
        .and_then(Result::ok)
        .and_then(|line| serde_json::from_str::<HookSettings>(&line).ok())
    else {
        return;
    };
    let settings = Arc::new(settings);
    let answers = Arc::new(Mutex::new(socket));
    let workers: Vec<(SyncSender<Job>, std::thread::JoinHandle<()>)> = (0..settings.parallel)
        .map(|_| {
            let (sender, jobs) = sync_channel(settings.queue.div_ceil(settings.parallel));
            let (settings, answers) = (Arc::clone(&settings), Arc::clone(&answers));
            (
                sender,
                std::thread::spawn(move || work(&jobs, &settings, &answers)),
            )
        })
        .collect();
    for line in lines.map_while(Result::ok) {
        let Ok(job) = serde_json::from_str::<Job>(&line) else {
            continue;
        };
        // A session keeps to its lane, so that its end is not told before its begin.
        let lane = usize::try_from(job.session).unwrap_or_default() % workers.len().max(1);
        if let Some(Err(TrySendError::Full(_))) = workers.get(lane).map(|(sender, _)| sender.try_send(job)) {
            answer(&answers, &Outcome::LeftOut);
        }
    }
    // The server is gone: what waits gets the time of one run.
    let deadline = clock::mono() + settings.timeout;
    let workers: Vec<_> = workers.into_iter().map(|(_, worker)| worker).collect();
    while clock::mono() < deadline && workers.iter().any(|worker| !worker.is_finished()) {
        std::thread::sleep(LOOKS[1]);
    }
}

fn answer(answers: &Mutex<UnixStream>, outcome: &Outcome) {
    let mut line = serde_json::to_vec(outcome).unwrap_or_default();
    line.push(b'\n');
    // The server may be gone.
    let _ = answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .write_all(&line);
}

fn work(jobs: &Receiver<Job>, settings: &HookSettings, answers: &Mutex<UnixStream>) {
    for job in jobs {
        let program = match job.event {
            Event::Login => &settings.login,
            Event::Logout => &settings.logout,
        };
        if let Some(program) = program {
            answer(answers, &run(program, &job, settings.timeout));
        }
    }
}

fn run(program: &Path, job: &Job, timeout: Duration) -> Outcome {
    let failed = |error: std::io::Error| Outcome::Failed(format!("{}: {error}", program.display()));
    let child = Command::new(program)
        .args(&job.args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .env("NUFW_EVENT", job.event.word())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Killed with what it has started.
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    let began: Instant = clock::mono();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Outcome::Done,
            Ok(Some(status)) => return Outcome::Failed(format!("{}: {status}", program.display())),
            Ok(None) => {}
            Err(error) => return failed(error),
        }
        let age = clock::mono().saturating_duration_since(began);
        if age >= timeout {
            break;
        }
        let look = if age < LOOKS[1] { LOOKS[0] } else { LOOKS[1] };
        std::thread::sleep(look.min(timeout.saturating_sub(age)));
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    Outcome::TimedOut
}
