//! How a program ends: the exit codes of `sysexits.h` and one way to say why.
//!
//! Only `main` functions print here; a library returns its error and lets its caller choose the code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes of `sysexits.h`, so that a service manager or a script can tell causes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command line is wrong.
    Usage = 64,
    /// Input data is wrong.
    DataErr = 65,
    /// An input file is missing or unreadable.
    NoInput = 66,
    /// Something needed is not there: a server, a kernel feature.
    Unavailable = 69,
    /// A fault in the program itself.
    Software = 70,
    /// A system call failed that should not.
    OsErr = 71,
    /// An output file cannot be made.
    CantCreate = 73,
    /// Reading or writing failed.
    IoErr = 74,
    /// It failed, but may work later.
    TempFail = 75,
    /// A capability or permission is missing, or credentials were refused.
    NoPerm = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a program ends, with the code that it ends with.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The cause, with its context.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with this code and cause.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }
}

/// Gives an error its exit code.
pub trait OrExit<T> {
    /// Turns the error into a [`Failure`] with this code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}

/// Ends a program: prints the failure, if there is one, on standard error as `program: context: cause`.
pub fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be closed; there is nobody left to tell then.
            let _ = std::io::stderr()
                .lock()
                .write_all(render(&program(), &failure.error).as_bytes());
            failure.exit.into()
        }
    }
}

fn program() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .and_then(|path| Path::new(path).file_name())
        .map_or_else(|| "nufw".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// One line a message line, each with the program's name, so that several configuration errors stay readable.
fn render(program: &str, error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<String> = text.lines().map(|line| format!("{program}: {line}")).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_chain_is_one_line() {
        let error = Err::<(), _>(std::io::Error::other("disk on fire"))
            .context("cannot open /var/lib/nufw/nulog.db")
            .unwrap_err();
        assert_eq!(
            render("nuauth-server", &error),
            "nuauth-server: cannot open /var/lib/nufw/nulog.db: disk on fire\n"
        );
    }

    #[test]
    fn every_line_of_several_errors_names_the_program() {
        let error = anyhow::anyhow!("a.toml:1: one\na.toml:2: two");
        assert_eq!(render("x", &error), "x: a.toml:1: one\nx: a.toml:2: two\n");
    }

    #[test]
    fn the_codes_are_those_of_sysexits() {
        assert_eq!(Exit::Usage as u8, 64);
        assert_eq!(Exit::Config as u8, 78);
        let failure = Err::<(), _>(std::io::Error::other("x"))
            .or_exit(Exit::NoPerm)
            .unwrap_err();
        assert_eq!(failure.exit, Exit::NoPerm);
    }
}
