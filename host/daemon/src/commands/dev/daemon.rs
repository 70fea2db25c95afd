//! The daemon beside: `pelton run`, on the store of the command that started it.

use std::{
    env, io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// What is told if `PELTON_LOG` does not say: what the handler logs and does, and what goes wrong.
const LOG: &str = "warn,guest=trace,effects=trace";
/// How long it is given to finish its batch before it is ended.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);

pub(super) struct Daemon {
    child: Child,
    /// Held, and not written to. Apart from the child: to wait for its end would close it.
    _stdin: Option<ChildStdin>,
}

impl Daemon {
    pub(super) fn start(config: &Path, store: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe().context("find the program of this process")?);
        command.arg("run").arg("--while-stdin-is-open").arg("--config").arg(config).env("PELTON_STORE", store);
        // The other end closes with this process, whatever ends it.
        command.stdin(Stdio::piped());
        for (name, value) in [("PELTON_LOG", LOG), ("PELTON_LOG_FORMAT", "text")] {
            if env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        // A group of its own: a Ctrl-C on the terminal is for the command that started it, which passes it on.
        let mut child = command.process_group(0).kill_on_drop(true).spawn().context("start `pelton run`")?;
        Ok(Self { _stdin: child.stdin.take(), child })
    }

    /// Waits until it ended by itself.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to stop, and ends it if it does not.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // It may have ended in between.
            let _ = kill_process(id, Signal::TERM);
        }
        if timeout(STOP_TIME_MAX, self.child.wait()).await.is_err() {
            self.child.kill().await.context("end `pelton run`")?;
        }
        Ok(())
    }
}
