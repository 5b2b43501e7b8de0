//! The gateway agent; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nufw_agent::main()
}
