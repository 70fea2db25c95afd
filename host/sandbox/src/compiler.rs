//! Compiling in a process of its own. A small component may take any amount of memory and time to compile, and a compiler
//! cannot be stopped from outside while it is one's own thread. A process can be limited, and killed.

use std::{ffi::OsString, os::unix::process::ExitStatusExt, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{compile_command::EXIT_INVALID, error::LoadError, text};

/// What the compiled code may have, in bytes. An interpreter has 60 MiB.
const CODE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What is kept of what the compiler says.
const WORDS_BYTES_MAX: u64 = 16 * 1024;

/// How Rust ends a process that got no more memory, on standard error.
const NO_MEMORY: &str = "memory allocation of ";

/// A program that compiles, see [`compile_stdin_to_stdout`](crate::compile_stdin_to_stdout).
#[derive(Clone, Debug)]
pub struct CompilerProgram {
    /// What to start. It must be of the same version as this process, or what it compiles does not load.
    pub program: PathBuf,
    /// What to start it with. Two more arguments follow: the bytes of memory and the seconds of processor time that it
    /// may use.
    pub args: Vec<OsString>,
    /// How long it may take.
    pub timeout: Duration,
    /// The memory that it may use, in bytes.
    pub memory_bytes_max: u64,
}

impl CompilerProgram {
    /// One that may take 120 s and 4 GiB.
    #[must_use]
    pub fn new(program: PathBuf, args: Vec<OsString>) -> Self {
        Self { program, args, timeout: Duration::from_secs(120), memory_bytes_max: 4 << 30 }
    }

    /// Compiles a component. The process is killed when this takes too long, and when the future is dropped.
    pub(crate) async fn compile(&self, module: &[u8]) -> Result<Vec<u8>, LoadError> {
        let mut child = self.command().spawn().map_err(|error| {
            LoadError::Compiler(format!("the compiler ({}) does not start: {error}", self.program.display()))
        })?;
        match timeout(self.timeout, converse(&mut child, module)).await {
            Ok(Ok(said)) => self.understand(said),
            Ok(Err(error)) => Err(LoadError::Compiler(error.to_string())),
            // Dropping the child kills it.
            Err(_) => Err(LoadError::TooCostly { limit: format!("{:?}", self.timeout) }),
        }
    }

    /// All its threads may run all the time; it is a bound for a compiler whose parent is gone.
    fn processor_secs(&self) -> u64 {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        self.timeout.as_secs().saturating_add(1).saturating_mul(threads)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .args([self.memory_bytes_max.to_string(), self.processor_secs().to_string()])
            // It needs nothing of what this process was told, secrets least of all.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn understand(&self, said: Said) -> Result<Vec<u8>, LoadError> {
        let Said { code, words, exit } = said;
        let Some(exit) = exit else {
            return Err(LoadError::TooCostly { limit: format!("{CODE_BYTES_MAX} bytes of compiled code") });
        };
        if exit.success() {
            return Ok(code);
        }
        if exit.code() == Some(EXIT_INVALID) {
            return Err(LoadError::Invalid(words));
        }
        if words.contains(NO_MEMORY) {
            return Err(LoadError::TooCostly { limit: format!("{} bytes of memory", self.memory_bytes_max) });
        }
        match exit.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => {
                return Err(LoadError::TooCostly { limit: format!("{} s of processor time", self.processor_secs()) });
            }
            // Nobody else kills it: it offers itself to the system to be the first that goes.
            Some(Signal::KILL) => {
                return Err(LoadError::TooCostly { limit: "the memory that this machine had left".into() });
            }
            _ => {}
        }
        Err(LoadError::Compiler(if words.is_empty() { exit.to_string() } else { format!("{exit}: {words}") }))
    }
}

/// What came of a compiler: without an exit status it put out too much and was left.
struct Said {
    code: Vec<u8>,
    words: String,
    exit: Option<std::process::ExitStatus>,
}

async fn converse(child: &mut Child, module: &[u8]) -> std::io::Result<Said> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let hand_over = async move {
        if let Some(mut stdin) = stdin {
            // One that ends early does not listen to the end. How it ended tells more than that.
            let _ = stdin.write_all(module).await;
        }
    };
    let ((), code, words) = tokio::join!(hand_over, read(stdout, CODE_BYTES_MAX + 1), read(stderr, WORDS_BYTES_MAX));
    let (code, words) = (code?, words?);
    let words = text::bounded(String::from_utf8_lossy(&words).trim(), 4096).into_owned();
    let exit = if code.len() as u64 > CODE_BYTES_MAX { None } else { Some(child.wait().await?) };
    Ok(Said { code, words, exit })
}

async fn read(from: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    if let Some(from) = from {
        from.take(bytes_max).read_to_end(&mut read).await?;
    }
    Ok(read)
}
