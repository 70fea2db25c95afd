//! `pelton run`: the daemon.

use tokio::{
    io::{AsyncReadExt, stdin},
    signal::unix::{SignalKind, signal},
};
use tracing::{info, warn};

use crate::{
    cli::{Common, RunArgs, STOPPED},
    config::Config,
    host::{self, Ended, RunOptions},
};

/// Runs until SIGTERM or SIGINT, or until every lag is 0. A second signal ends the process at once.
///
/// # Errors
/// Whatever keeps the daemon from starting.
pub async fn run(common: &Common, args: &RunArgs) -> anyhow::Result<u8> {
    let config = Config::load(&common.config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = end_of_stdin(args.while_stdin_is_open);
    let stop = async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = ended => "the end of standard input",
        };
        info!(signal = name, "asked to stop");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            warn!("asked again: ending at once; what was not committed is handled again");
            std::process::exit(1);
        });
    };
    let options = RunOptions { until_idle: args.until_idle, compile_apart: true };
    Ok(match host::run(&common.config, config, options, stop).await? {
        Ended::Cleanly => 0,
        Ended::Stuck => 1,
        Ended::Stopped => STOPPED,
    })
}

/// Waits until standard input ends; for ever if that is not asked for.
async fn end_of_stdin(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let mut part = [0; 64];
    // An error is an end, too.
    while stdin().read(&mut part).await.is_ok_and(|bytes| bytes > 0) {}
}
