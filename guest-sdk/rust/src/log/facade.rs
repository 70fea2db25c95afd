//! The crate `log`.

use ::log::{LevelFilter, Log, Metadata, Record, set_logger, set_max_level};

use super::Level;

struct ToHost;

impl Log for ToHost {
    /// Which lines are kept is for the host to say.
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            ::log::Level::Trace => Level::Trace,
            ::log::Level::Debug => Level::Debug,
            ::log::Level::Info => Level::Info,
            ::log::Level::Warn => Level::Warn,
            ::log::Level::Error => Level::Error,
        };
        super::log(level, record.target(), *record.args());
    }

    fn flush(&self) {}
}

pub(super) fn install() {
    if set_logger(&ToHost).is_ok() {
        set_max_level(LevelFilter::Trace);
    }
}
