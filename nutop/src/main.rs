//! Shows who is connected to what.

use std::process::ExitCode;

fn main() -> ExitCode {
    nutop::main()
}
