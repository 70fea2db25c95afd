//! The imports through which a handler acts and reports: emitting, telling progress, and log lines.

use pelton_core::NewEvent;

use crate::{
    bindings::imports::{
        pelton::worker::{checkpoint, outbox, progress},
        wasi::logging::logging,
    },
    host::Host,
    log::LogLevel,
};

impl outbox::Host for Host {
    /// Whatever a store could refuse is refused here, so that a commit cannot fail because of one handler's data.
    fn emit(&mut self, stream: String, event: outbox::NewEvent) -> wasmtime::Result<Result<(), String>> {
        let (stream, payload_bytes_max) = match self.shared.grants.emit_to(&stream) {
            Ok(granted) => granted,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some(base) = self.ledger.base() else {
            return Ok(Err("no event is in hand while the handler starts".into()));
        };
        let id = self.emit_id(event.id.as_deref(), base);
        let outbox::NewEvent { id: given, key, kind, headers, payload } = event;
        let event = NewEvent { id, key, kind, headers, payload };
        if given.as_deref() == Some("") {
            return Ok(Err("id is empty; give one, or leave it out and the host makes one".into()));
        }
        if let Err(fault) = event.check(payload_bytes_max) {
            return Ok(Err(fault.to_string()));
        }
        let limit = self.shared.grants.limits.output_bytes;
        self.ledger.emit(stream, event, limit)?;
        Ok(Ok(()))
    }
}

impl checkpoint::Host for Host {
    /// Without effect, as `wit/worker.wit` says, under every other commit strategy: nobody asks the ledger then.
    fn commit(&mut self) -> wasmtime::Result<()> {
        self.ledger.checkpoint();
        Ok(())
    }
}

impl progress::Host for Host {
    fn handled(&mut self, count: u32) -> wasmtime::Result<()> {
        if self.shared.takes_progress {
            self.ledger.handled(usize::try_from(count).unwrap_or(usize::MAX));
            self.shared.moment.handled(self.ledger.told().unwrap_or(0));
            self.shared.console.turn_to(self.ledger.in_hand());
        }
        Ok(())
    }
}

impl logging::Host for Host {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error => LogLevel::Error,
            logging::Level::Critical => LogLevel::Critical,
        };
        self.shared.console.log(level, &context, &message);
        Ok(())
    }
}
