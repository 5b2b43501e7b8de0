//! Looks connections up, in the live table and the archive.

use std::process::ExitCode;

fn main() -> ExitCode {
    nulog_tools::search::main()
}
