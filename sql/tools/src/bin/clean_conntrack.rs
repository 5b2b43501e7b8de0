//! Moves dead rows from the live table to the archive.

use std::process::ExitCode;

fn main() -> ExitCode {
    nulog_tools::clean::main()
}
