//! The other side of [`compiler`](crate::compiler): what a program does that was started to compile.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use crate::engine;

/// The component is not valid; standard error says why. Other failures have other statuses.
pub(crate) const EXIT_INVALID: i32 = 65;

/// Something else is wrong; standard error says what.
const EXIT_BROKEN: u8 = 70;

/// Everything else goes before this, on every system.
const NICE: i32 = 10;

/// Reads a component on standard input and writes it compiled to standard output, as a
/// [`CompilerProgram`](crate::CompilerProgram) does. `args` are the two that follow its own: the bytes of memory and the
/// seconds of processor time that this process may use from now on. To be called first of all in a process that does
/// nothing else: it takes limits upon itself that it cannot get rid of.
#[must_use]
pub fn compile_stdin_to_stdout(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match limit(args).and_then(|()| compile()) {
        Ok(status) => status,
        Err(fault) => {
            say(&fault);
            ExitCode::from(EXIT_BROKEN)
        }
    }
}

fn limit(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let expected = "expected two numbers, bytes of memory and seconds of processor time; this is no command for people";
    let numbers: Option<Vec<u64>> = args.into_iter().map(|arg| arg.to_str()?.parse().ok()).collect();
    let Some([memory_bytes, processor_secs]) = numbers.as_deref() else { return Err(expected.into()) };
    // Private memory that can be written to. Address space that is only set aside does not count, nor do files.
    set(Resource::Data, *memory_bytes, *memory_bytes)?;
    // The first one is told with a signal of its own, the second one kills.
    set(Resource::Cpu, *processor_secs, processor_secs.saturating_add(5))?;
    // What it works on is nobody's business.
    set(Resource::Core, 0, 0)?;
    // These two help others, not this process; where they are not to be had it compiles all the same.
    let _ = nice(NICE);
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Where this process is limited more tightly already, it stays so.
fn set(resource: Resource, first: u64, last: u64) -> Result<(), String> {
    let already = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    setrlimit(resource, Rlimit { current: Some(first.min(already)), maximum: Some(last.min(already)) })
        .map_err(|error| format!("cannot limit itself ({resource:?} to {first}): {error}"))
}

fn compile() -> Result<ExitCode, String> {
    let mut module = Vec::new();
    io::stdin().lock().read_to_end(&mut module).map_err(|error| format!("cannot read the component: {error}"))?;
    let engine = engine::compiling().map_err(|error| format!("WebAssembly engine does not start: {error:#}"))?;
    match engine.precompile_component(&module) {
        Ok(code) => {
            let mut out = io::stdout().lock();
            let written = out.write_all(&code).and_then(|()| out.flush());
            written.map_err(|error| format!("cannot write the compiled component: {error}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&format!("{error:#}"));
            Ok(ExitCode::from(EXIT_INVALID as u8))
        }
    }
}

/// Nobody may be listening any more, which `eprintln!` would panic at.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}
