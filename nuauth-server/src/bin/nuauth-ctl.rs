//! `nuauth-ctl`, the administrator's hand on a running server.

use std::process::ExitCode;

fn main() -> ExitCode {
    nuauth_server::ctl::main()
}
