//! `pelton run`: the daemon.

use tokio::signal::unix::{SignalKind, signal};
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
    let stop = async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
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
