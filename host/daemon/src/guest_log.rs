//! What handlers log, as tracing events that say where they come from.

use std::sync::Arc;

use crate::logging::one_line;
use pelton_sandbox::{LogLevel, LogLine, LogSink, Place};

/// Forwards a handler's lines with its name, group, stream, partition and the offset of the event in hand.
pub(crate) struct GuestLog {
    handler: Arc<str>,
    group: Arc<str>,
    stream: Arc<str>,
    partition: u32,
}

impl GuestLog {
    pub(crate) fn new(handler: Arc<str>, place: &Place) -> Self {
        let Place { group, stream, partition } = place;
        Self { handler, group: Arc::clone(group), stream: Arc::clone(stream), partition: *partition }
    }
}

impl LogSink for GuestLog {
    fn log(&self, line: LogLine<'_>) {
        // A tracing event's level is part of its static description, hence a macro for five of them.
        macro_rules! at {
            ($level:ident) => {
                tracing::event!(
                    target: "guest",
                    tracing::Level::$level,
                    handler = %self.handler,
                    group = %self.group,
                    stream = %self.stream,
                    partition = self.partition,
                    offset = line.offset.map(|offset| offset.0),
                    context = (!line.context.is_empty()).then_some(line.context),
                    "{}", one_line(line.message)
                )
            };
        }
        match line.level {
            LogLevel::Trace => at!(TRACE),
            LogLevel::Debug => at!(DEBUG),
            LogLevel::Info => at!(INFO),
            LogLevel::Warn => at!(WARN),
            LogLevel::Error | LogLevel::Critical => at!(ERROR),
        }
    }
}
