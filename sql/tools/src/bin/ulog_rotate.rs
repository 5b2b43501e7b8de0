//! Keeps the archive bounded.

use std::process::ExitCode;

fn main() -> ExitCode {
    nulog_tools::rotate::main()
}
