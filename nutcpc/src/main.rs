//! `nutcpc`, the user's client.

use std::process::ExitCode;

fn main() -> ExitCode {
    nutcpc::main()
}
