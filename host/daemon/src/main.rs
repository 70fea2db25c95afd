//! The command `pelton`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pelton::cli::main()
}
