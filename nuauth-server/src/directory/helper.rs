//! The helper process: started before the server confines itself, it starts and ends the workers that ask back-ends.
//!
//! It runs no foreign code and parses nothing but what its server and its workers say. It ends when its server does.

use super::calls::Calls;
use super::kerberos::{KEYTAB, REPLAY_CACHE};
use super::wire::{self, Answered, Call, Reply, Settings, ToHelper};
use super::worker::Kind;
use anyhow::Context as _;
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::privileges;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, Semaphore};

/// A worker that has ended is started again after so long at the earliest.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How much longer than its own time limits a worker may take before it is taken for hanging.
const MARGIN: Duration = Duration::from_secs(2);
/// Operations that one question to LDAP may need: connect, begin TLS, bind, search, and bind as the user.
const OPERATIONS: u32 = 5;

/// How the helper is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// This program.
    pub program: PathBuf,
    /// Whom workers become, where the server was started as root.
    pub user: Option<String>,
    /// Whom workers of `users.system` become instead.
    pub system_user: Option<String>,
    /// What the kernel holds workers of `users.ldap` and `users.kerberos` to, in the words of `privileges.sandbox`.
    pub sandbox: String,
}

/// A helper that was started.
pub struct Helper {
    child: std::process::Child,
    stream: StdStream,
}

impl Helper {
    /// Starts it; without a runtime.
    pub fn start(launch: &Launch) -> io::Result<Self> {
        let (stream, theirs) = StdStream::pair()?;
        let mut command = std::process::Command::new(&launch.program);
        command.arg("directory-helper").args(launch.arguments());
        if let Some(user) = &launch.system_user {
            command.args(["--system-user", user]);
        }
        let child = command
            // What a terminal tells the server is not for its helper.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, stream })
    }

    /// Begins to ask it, within the runtime, with these settings.
    pub async fn connect(self, settings: Settings) -> io::Result<Calls> {
        self.stream.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(self.stream)?.into_split();
        let (calls, driving) = Calls::over(reader, writer);
        calls.set(settings).await;
        let mut child = self.child;
        tokio::spawn(async move {
            if let Ok(why) = driving.await {
                tracing::error!(
                    why,
                    "the helper process that asks directories has ended: until the server is restarted nobody can log in \
                     by them"
                );
            }
            let _ = child.try_wait();
        });
        Ok(calls)
    }
}

impl Launch {
    fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["--sandbox", self.sandbox.as_str()];
        if let Some(user) = &self.user {
            arguments.extend(["--user", user]);
        }
        arguments
    }
}

/// Runs the helper, on the socket that is its standard input.
pub(crate) fn run(launch: Launch) -> Result<(), Failure> {
    // Root is kept for those alone who are to become somebody else than the server.
    if launch.system_user.is_none() {
        match &launch.user {
            Some(user) => drop(privileges::become_user(user, &[])?),
            None => privileges::keep_only(&[]).or_exit(Exit::OsErr)?,
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the helper cannot start its runtime")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let stream = standard_input().or_exit(Exit::OsErr)?;
        // What ends it is the end of its server, and nobody is left to tell.
        serve(stream, launch).await.or_exit(Exit::IoErr)
    })
}

/// The socket that a helper or worker was given.
pub(super) fn standard_input() -> io::Result<UnixStream> {
    let stream = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// What all kinds of questions need.
struct State {
    launch: Launch,
    settings: Settings,
    places: Arc<Semaphore>,
    ldap: Mutex<Option<Worker>>,
    kerberos: Mutex<Option<Worker>>,
}

/// A worker that lives on.
struct Worker {
    calls: Calls,
    ended: Arc<std::sync::atomic::AtomicBool>,
    started: Instant,
    /// Ends with this value.
    _child: Arc<Child>,
}

async fn serve(stream: UnixStream, launch: Launch) -> io::Result<()> {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    let mut state: Option<Arc<State>> = None;
    loop {
        match wire::read::<ToHelper>(&mut reader).await? {
            None => return Ok(()),
            Some(ToHelper::Settings(settings)) => {
                // Questions on their way keep the worker that they were given to.
                state = Some(Arc::new(State {
                    launch: launch.clone(),
                    places: Arc::new(Semaphore::new(
                        settings.system.as_ref().map_or(1, |s| s.processes),
                    )),
                    settings: *settings,
                    ldap: Mutex::new(None),
                    kerberos: Mutex::new(None),
                }));
            }
            Some(ToHelper::Call(call)) => {
                let (state, writer) = (state.clone(), Arc::clone(&writer));
                tokio::spawn(async move {
                    let id = call.id;
                    let reply = match state {
                        Some(state) => answer(&state, call).await,
                        None => Reply::CannotSay("its helper was asked before it was told how".to_owned()),
                    };
                    let mut writer = writer.lock().await;
                    let _ = wire::write(&mut *writer, &Answered { id, reply }).await;
                    let _ = writer.flush().await;
                });
            }
        }
    }
}

async fn answer(state: &State, call: Call) -> Reply {
    match call.of {
        Kind::Ldap => match &state.settings.ldap {
            Some(ldap) => lasting(state, &state.ldap, ldap.timeout * OPERATIONS, call).await,
            None => Reply::CannotSay("there is no section users.ldap".to_owned()),
        },
        Kind::Kerberos => match &state.settings.kerberos {
            Some(kerberos) => lasting(state, &state.kerberos, kerberos.timeout, call).await,
            None => Reply::CannotSay("there is no section users.kerberos".to_owned()),
        },
        Kind::System => system(state, call).await,
    }
}

/// Asks a worker that lives on, and starts it where it does not run.
async fn lasting(state: &State, place: &Mutex<Option<Worker>>, limit: Duration, call: Call) -> Reply {
    let kind = call.of;
    let calls = {
        let mut worker = place.lock().await;
        let is_over = |w: &Worker| w.ended.load(std::sync::atomic::Ordering::Relaxed);
        if let Some(old) = worker.as_ref().filter(|w| is_over(w)) {
            if clock::mono() < old.started + RESTART_PAUSE {
                return Reply::CannotSay("the process that asks it has just ended".to_owned());
            }
            *worker = None;
        }
        if worker.is_none() {
            match start(&state.launch, kind, &state.settings).await {
                Ok(started) => *worker = Some(started),
                Err(error) => {
                    return Reply::CannotSay(format!("the process that asks it cannot be started: {error}"));
                }
            }
        }
        match worker.as_ref() {
            Some(worker) => worker.calls.clone(),
            None => return Reply::CannotSay("the process that asks it does not run".to_owned()),
        }
    };
    let limit = limit + MARGIN;
    let asked = calls.ask(kind, call.ask, call.secret);
    if let Ok(reply) = tokio::time::timeout(limit, asked).await {
        return reply;
    }
    // Its own limits did not end it, so nothing else will.
    let process = kind.name();
    tracing::warn!(process, "a process that asks a directory hangs and is ended");
    *place.lock().await = None;
    Reply::CannotSay(format!("no answer within {} s", limit.as_secs()))
}

/// Starts a worker that lives on, and tells it its own settings alone.
async fn start(launch: &Launch, kind: Kind, settings: &Settings) -> io::Result<Worker> {
    let (child, stream) = spawn(launch, kind, settings)?;
    let (reader, writer) = stream.into_split();
    let (calls, driving) = Calls::over(reader, writer);
    calls.set(settings.only(kind)).await;
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = Arc::clone(&ended);
    tokio::spawn(async move {
        if let Ok(why) = driving.await {
            let process = kind.name();
            tracing::debug!(process, why, "a process that asks a directory is over");
        }
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    Ok(Worker {
        calls,
        ended,
        started: clock::mono(),
        _child: Arc::new(child),
    })
}

/// One process for one question: a module that hangs, crashes or leaves something behind does so to nobody else.
async fn system(state: &State, call: Call) -> Reply {
    let Some(settings) = &state.settings.system else {
        return Reply::CannotSay("there is no section users.system".to_owned());
    };
    let seconds = settings.timeout.as_secs_f32();
    let place = tokio::time::timeout(settings.timeout, Arc::clone(&state.places).acquire_owned()).await;
    let Ok(Ok(_place)) = place else {
        return Reply::CannotSay(format!(
            "{} logins have been asking it for {seconds} s, which is the most at one time",
            settings.processes
        ));
    };
    let (mut child, mut stream) = match spawn(&state.launch, Kind::System, &state.settings) {
        Ok(spawned) => spawned,
        Err(error) => {
            return Reply::CannotSay(format!("the process that asks it cannot be started: {error}"));
        }
    };
    let own = state.settings.only(Kind::System);
    let asked = async {
        wire::write(&mut stream, &ToHelper::Settings(Box::new(own))).await?;
        wire::write(&mut stream, &ToHelper::Call(call)).await?;
        wire::read::<Answered>(&mut stream).await
    };
    let answered = tokio::time::timeout(settings.timeout, asked).await;
    // With what the module has started and left running, save what has made a session of its own.
    if let Some(group) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().await;
    match answered {
        Ok(Ok(Some(answered))) => answered.reply,
        Ok(Ok(None) | Err(_)) => {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Reply::CannotSay(format!(
                "the process that asked it ended without an answer ({status})"
            ))
        }
        Err(_) => Reply::CannotSay(format!(
            "no answer within {seconds} s; the process that asked it was killed"
        )),
    }
}

/// Starts a worker, which talks on its standard input.
fn spawn(launch: &Launch, kind: Kind, settings: &Settings) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut own = launch.clone();
    if kind == Kind::System && own.system_user.is_some() {
        own.user.clone_from(&launch.system_user);
    }
    let mut command = Command::new(&launch.program);
    if let (Kind::Kerberos, Some(kerberos)) = (kind, &settings.kerberos) {
        let (variable, none) = REPLAY_CACHE;
        command.env(variable, none).env(KEYTAB, &kerberos.keytab);
    }
    let child = command
        .arg("directory-worker")
        .arg(kind.name())
        .args(own.arguments())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}
