//! The crate `tracing`, of which only the core is needed to listen to it.

use alloc::string::String;
use core::fmt::{self, Write};

use tracing_core::dispatcher::{Dispatch, set_global_default};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Metadata, Subscriber};

use super::Level;
use crate::host;

struct ToHost;

impl Subscriber for ToHost {
    /// Which lines are kept is for the host to say. Without spans there is nothing to remember.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing_core::Level::TRACE => Level::Trace,
            tracing_core::Level::DEBUG => Level::Debug,
            tracing_core::Level::INFO => Level::Info,
            tracing_core::Level::WARN => Level::Warn,
            tracing_core::Level::ERROR => Level::Error,
        };
        let mut line = Line::default();
        event.record(&mut line);
        line.message.push_str(&line.fields);
        host::log(level, metadata.target(), line.message.trim_start());
    }

    /// Not called, since no span is enabled; the number has to be one.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message, whichever place it has among the fields, and the fields, each after a space.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A text can be written to without failing.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }
}

pub(super) fn install() {
    // Refused if there is one already.
    let _ = set_global_default(Dispatch::new(ToHost));
}
