//! The command: configuration in, a session with each server, one line a state out, exit codes of sysexits.
//!
//! Puts the parts together and decides nothing about sessions.

use crate::args::Args;
use crate::asks;
use crate::client::{ClientError, Options};
use crate::config::{self, Files, Server, Settings};
use crate::credentials::{Login, Password, read_password};
use crate::event::Event;
use crate::notify::{self, Notifier};
use crate::servers::{Servers, Wanted, What};
use crate::status::{self, Ask, Askers, Door, DoorError, Reply, Request};
use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use nufw_common::exit::{Exit, Failure, OrExit as _, report};
use nufw_common::lifecycle::{Signal, Signals};
use nufw_common::{clock, logging, privileges};
use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// Questions that may wait.
const WAITING_ASKS: usize = 8;
/// How long sessions may take to end; one that waits for a password at the terminal hears nothing.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The command line, for its manual page.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Runs the command.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are what was asked for, not errors.
            let is_wrong = error.use_stderr();
            let _ = error.print();
            return if is_wrong {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    logging::init("warn");
    report(run(args))
}

fn run(mut args: Args) -> Result<(), Failure> {
    if let Some(asks) = args.asks.take() {
        return asks::run(asks);
    }
    status::check_instance(args.instance.as_deref())?;
    drop_privileges(&args)?;
    let files = Files::usual(args.config.clone());
    let settings = config::load(&args, &files)?;
    let given = given_password(&args)?;
    let mut wanted = Vec::new();
    for server in &settings.servers {
        wanted.push(wanted_of(server, &settings, &args, |user| {
            password(server, user, given.as_ref())
        })?);
    }
    notify::keep_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(Running { args, files, given }.serve(settings, wanted))
}

/// Root's other powers are not needed for looking at other users' processes and reading the files named here.
fn drop_privileges(args: &Args) -> Result<(), Failure> {
    use privileges::Capability::{CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE};
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    tracing::debug!(
        system = args.system,
        "keeping only what is needed to see whose a socket is"
    );
    privileges::keep_only(&[CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH])
        .context("cannot give up root's powers")
        .or_exit(Exit::OsErr)
}

/// What is wanted with a server; how to come by a password the caller knows.
fn wanted_of(
    server: &Server,
    settings: &Settings,
    args: &Args,
    password: impl FnOnce(&str) -> Result<Password, Failure>,
) -> Result<Wanted, Failure> {
    let login = match (&server.certificate, &server.user) {
        _ if server.kerberos => by_kerberos(server)?,
        (Some(_), user) => Login::Certificate { user: user.clone() },
        (None, Some(user)) => Login::Password {
            user: user.clone(),
            password: password(user)?,
        },
        (None, None) => {
            let error =
                anyhow!("who are you? Give --user NAME, or --certificate FILE and --key FILE, or --kerberos");
            return Err(Failure::new(Exit::Usage, error));
        }
    };
    if let Some(wanted) = args.mechanism
        && !login.mechanisms().contains(&wanted)
    {
        let error = anyhow!(
            "--mechanism {wanted} is not for the credentials of {}",
            server.label
        );
        return Err(Failure::new(Exit::Usage, error));
    }
    Ok(Wanted {
        label: server.label.clone(),
        options: Options {
            host: server.host.clone(),
            port: server.port,
            also: server.also.clone(),
            name: server.name.clone(),
            ca: server.ca.clone(),
            crl: server.crl.clone(),
            certificate: server.certificate.clone(),
            mechanism: args.mechanism,
            login,
            system_uid: args.uid.filter(|_| args.system),
            once: args.once,
            stay: settings.stay,
            ticket_file: server.ticket_file.clone(),
            hears_refusals: settings.notify.is_some(),
        },
    })
}

/// The server's principal has a name.
fn by_kerberos(server: &Server) -> Result<Login, Failure> {
    if !cfg!(feature = "kerberos") {
        let error = anyhow!("this nutcpc was built without Kerberos (feature \"kerberos\")");
        return Err(Failure::new(Exit::Config, error));
    }
    let host = server.name.as_ref().unwrap_or(&server.host);
    if host.parse::<IpAddr>().is_ok() {
        let error = anyhow!("Kerberos needs the name of the server, not the address {host}: give --name");
        return Err(Failure::new(Exit::Config, error));
    }
    Ok(Login::Kerberos {
        host: host.clone(),
        user: server.user.clone(),
    })
}

/// The password from a descriptor: it can be read once, and is for every server.
fn given_password(args: &Args) -> Result<Option<Password>, Failure> {
    let given = match args.password_fd {
        None => return Ok(None),
        Some(0) => read_password(std::io::stdin().lock(), Path::new("standard input")),
        Some(fd) => {
            let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
            let file = std::fs::File::open(&path)
                .with_context(|| format!("cannot read the password from descriptor {fd}"))
                .or_exit(Exit::Config)?;
            read_password(file, &path)
        }
    };
    given
        .map(|password| Some(Password::Given(password)))
        .or_exit(Exit::Config)
}

/// With a ticket the terminal is asked only when it turns out not to be good any more.
fn password(server: &Server, user: &str, given: Option<&Password>) -> Result<Password, Failure> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    if let Some(file) = &server.password_file {
        return Ok(Password::File(file.clone()));
    }
    let words = format!("Password of {user} on {}: ", server.host);
    if server.ticket_file.as_ref().is_some_and(|file| file.exists()) {
        return Ok(Password::Asked(words));
    }
    rpassword::prompt_password(words)
        .map(|password| Password::Given(Zeroizing::new(password)))
        .context("there is no terminal to ask for the password on: give --password-file or --password-fd")
        .or_exit(Exit::Usage)
}

/// What is kept while sessions run.
struct Running {
    args: Args,
    files: Files,
    given: Option<Password>,
}

/// Somebody waits until sessions have ended.
struct Leaving {
    servers: Vec<String>,
    answer: oneshot::Sender<Reply>,
}

impl Running {
    async fn serve(self, settings: Settings, wanted: Vec<Wanted>) -> Result<(), Failure> {
        let mut signals = Signals::new()
            .context("cannot receive signals")
            .or_exit(Exit::OsErr)?;
        let (mut asks, askers) = self.open_door()?;
        let mut servers = Servers::start(wanted);
        let mut notifier = Notifier::default();
        notifier.set_program(settings.notify);
        let mut leaving: Vec<Leaving> = Vec::new();
        let mut failure: Option<ClientError> = None;
        let mut stop_by = None;
        while servers.any_runs() {
            let stop = async {
                match stop_by {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (server, what) = servers.next() => match what {
                    What::Event(event) => {
                        self.print(&event, servers.are_several().then_some(server.as_str()));
                        notifier.show(&event, clock::mono());
                    }
                    What::Ended(result) => {
                        if let Err(error) = result {
                            if servers.are_several() {
                                tracing::error!("{server}: {error}");
                            }
                            failure.get_or_insert(error);
                        }
                        leaving = answer_those(leaving, &servers);
                    }
                },
                signal = signals.next() => match signal {
                    Signal::Terminate => {
                        servers.stop(None);
                        stop_by.get_or_insert_with(in_a_while);
                    }
                    Signal::Reload if stop_by.is_none() => {
                        if let Some(settings) = self.reload(&mut servers) {
                            notifier.set_program(settings.notify);
                            failure = None;
                        }
                    }
                    Signal::Reload => {}
                },
                Some(Ask { request, answer }) = asks.recv() => match request {
                    Request::Status => {
                        let _ = answer.send(Reply::Servers(servers.views()));
                    }
                    Request::Logout { server } => match meant(&servers, server.as_deref()) {
                        Ok(labels) => {
                            if server.is_none() {
                                stop_by.get_or_insert_with(in_a_while);
                            }
                            for label in &labels {
                                servers.stop(Some(label));
                            }
                            leaving.push(Leaving { servers: labels, answer });
                            leaving = answer_those(leaving, &servers);
                        }
                        Err(sentence) => {
                            let _ = answer.send(Reply::Error(sentence));
                        }
                    },
                },
                () = notifier.work() => {}
                () = stop => {
                    tracing::warn!("a session did not end in {} s: it is left behind", STOP_PATIENCE.as_secs());
                    break;
                }
            }
        }
        answer_those(leaving, &servers);
        askers.leave().await;
        match failure.filter(|_| stop_by.is_none()) {
            None => Ok(()),
            // Each message already names its cause.
            Some(error) => Err(Failure::new(error.exit(), anyhow!("{error}"))),
        }
    }

    /// The socket for `nutcpc status`, where there is a place for it.
    fn open_door(&self) -> Result<(mpsc::Receiver<Ask>, Askers), Failure> {
        let (sender, asks) = mpsc::channel(WAITING_ASKS);
        let askers = Askers::default();
        let Some(directory) = status::directory() else {
            tracing::debug!("without XDG_RUNTIME_DIR there is no place for nutcpc status to ask at");
            return Ok((asks, askers));
        };
        match Door::open(&directory, self.args.instance.as_deref()) {
            Ok(door) => {
                tokio::spawn(door.serve(sender, askers.clone()));
            }
            Err(error @ DoorError::Taken(_)) => return Err(Failure::new(Exit::CantCreate, error)),
            Err(error) => tracing::warn!("{error}"),
        }
        Ok((asks, askers))
    }

    /// Reads the configuration again. A mistake leaves everything as it is.
    fn reload(&self, servers: &mut Servers) -> Option<Settings> {
        let read = config::load(&self.args, &self.files).and_then(|settings| {
            let wanted = settings.servers.iter().map(|server| {
                wanted_of(server, &settings, &self.args, |user| {
                    // Nobody sits at the terminal for it: a password that was typed is the one that counts.
                    match servers.known_password(&server.label, user) {
                        Some(known) if server.password_file.is_none() => Ok(known),
                        _ => password_unasked(server, user, self.given.as_ref()),
                    }
                })
            });
            let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
            Ok((settings, wanted))
        });
        match read {
            Ok((settings, wanted)) => {
                servers.change(wanted);
                Some(settings)
            }
            Err(failure) => {
                tracing::error!("the configuration is not read again: {:#}", failure.error);
                None
            }
        }
    }

    /// One line on standard output. Nobody may be reading; that is no reason to log out.
    fn print(&self, event: &Event, server: Option<&str>) {
        if self.args.quiet {
            return;
        }
        let mut out = std::io::stdout().lock();
        let line = match (self.args.json, server) {
            (false, None) => event.to_string(),
            (false, Some(server)) => format!("{server}: {event}"),
            (true, server) => {
                let mut object = event.to_json();
                if let Some(server) = server {
                    object["at"] = server.into();
                }
                object.to_string()
            }
        };
        // What the server says reaches a terminal: control characters were refused on the wire.
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            tracing::debug!(%error, is_terminal = out.is_terminal(), "a line could not be printed");
        }
    }
}

fn in_a_while() -> tokio::time::Instant {
    tokio::time::Instant::from_std(clock::mono()) + STOP_PATIENCE
}

fn password_unasked(server: &Server, user: &str, given: Option<&Password>) -> Result<Password, Failure> {
    if server.password_file.is_none() && given.is_none() {
        let error = anyhow!(
            "the password of {user} on {} would have to be typed: name a password-file, or start nutcpc again",
            server.label
        );
        return Err(Failure::new(Exit::Config, error));
    }
    password(server, user, given)
}

/// Which servers are meant: all, or one by its name, whose port may be left out.
fn meant(servers: &Servers, name: Option<&str>) -> Result<Vec<String>, String> {
    let Some(name) = name else {
        return Ok(servers.labels().map(str::to_owned).collect());
    };
    let is_meant =
        |label: &&str| *label == name || label.rsplit_once(':').is_some_and(|(host, _)| host == name);
    let found: Vec<String> = servers.labels().filter(is_meant).map(str::to_owned).collect();
    match found.len() {
        1 => Ok(found),
        0 => Err(format!(
            "there is no server {name:?}: nutcpc status shows which there are"
        )),
        _ => Err(format!("there are several servers {name:?}: say which port")),
    }
}

/// Tells those whose servers have all ended, and gives back the others.
fn answer_those(leaving: Vec<Leaving>, servers: &Servers) -> Vec<Leaving> {
    let mut rest = Vec::new();
    for wait in leaving {
        if wait.servers.iter().any(|server| servers.runs(server)) {
            rest.push(wait);
        } else {
            // Whoever asked may have gone.
            let _ = wait.answer.send(Reply::LoggedOut(wait.servers));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_password_cannot_be_an_option() {
        for wrong in ["--password=x", "-P"] {
            assert!(
                Args::try_parse_from(["nutcpc", "-H", "x", "-U", "y", wrong]).is_err(),
                "{wrong}"
            );
        }
    }
}
