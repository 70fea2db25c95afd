//! The compiler that the tests of this crate start. The product's is `pelton compile-module`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pelton_sandbox::compile_stdin_to_stdout(std::env::args_os().skip(1))
}
