//! Tells which user is behind a connection.

use std::process::ExitCode;

fn main() -> ExitCode {
    nu_sso::main()
}
