//! The crates `log` and `tracing`, led to the host.
#![cfg(all(feature = "log", feature = "tracing"))]

use pelton_sdk::log::Level;
use pelton_sdk::mock::Host;

fn lines(code: fn()) -> Vec<(Level, String, String)> {
    let mut host = Host::new();
    host.call(|| {
        code();
        Ok(())
    })
    .expect("succeeds");
    host.logs().iter().map(|line| (line.level, line.context.clone(), line.message.clone())).collect()
}

fn line(level: Level, context: &str, message: &str) -> (Level, String, String) {
    (level, context.to_owned(), message.to_owned())
}

#[test]
fn log_keeps_level_and_target() {
    let lines = lines(|| {
        ::log::trace!("a {}", 1);
        ::log::debug!(target: "billing", "b");
        ::log::info!("c");
        ::log::warn!("d");
        ::log::error!("e");
    });
    assert_eq!(
        lines,
        [
            line(Level::Trace, "logging", "a 1"),
            line(Level::Debug, "billing", "b"),
            line(Level::Info, "logging", "c"),
            line(Level::Warn, "logging", "d"),
            line(Level::Error, "logging", "e"),
        ]
    );
}

#[test]
fn tracing_keeps_level_target_and_fields() {
    let lines = lines(|| {
        let _span = tracing::info_span!("passed over", order = 1).entered();
        tracing::trace!("a {}", 1);
        tracing::debug!(target: "billing", amount = 5, customer = "Ada Lovelace", "b");
        tracing::info!(vat = ?Some(19), currency = %"EUR");
        tracing::warn!(ok = true, "d");
        tracing::error!("e");
    });
    assert_eq!(
        lines,
        [
            line(Level::Trace, "logging", "a 1"),
            line(Level::Debug, "billing", "b amount=5 customer=\"Ada Lovelace\""),
            line(Level::Info, "logging", "vat=Some(19) currency=EUR"),
            line(Level::Warn, "logging", "d ok=true"),
            line(Level::Error, "logging", "e"),
        ]
    );
}
