//! The authentication server's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    nuauth_server::main()
}
