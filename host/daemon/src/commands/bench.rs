//! A module at work on single events with nothing around it: what it does shows, and is stored nowhere.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use pelton_core::{Emit, Event, Invocation};
use pelton_sandbox::{Interrupt, LogLine, LogSink, Module, Place, StateReader, Worker};
use serde_json::{Value, json};

use crate::{
    event_json::{headers, json as payload_json},
    output,
};

/// A handler whose effects are held back. What it writes to its state it reads back.
pub(super) struct Bench {
    worker: Worker,
    memory: Arc<Memory>,
}

/// The state and the log of a handler on the bench.
#[derive(Default)]
struct Memory {
    /// What was there before.
    stored: Option<Arc<dyn StateReader>>,
    /// What was written here; `None` where it was deleted.
    written: Mutex<BTreeMap<String, Option<Vec<u8>>>>,
    logs: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl StateReader for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let written = locked(&self.written).get(key).cloned();
        match (written, &self.stored) {
            (Some(value), _) => Ok(value),
            (None, Some(stored)) => stored.get(key).await,
            (None, None) => Ok(None),
        }
    }
}

impl LogSink for Memory {
    fn log(&self, line: LogLine<'_>) {
        let level = line.level.name();
        let context = if line.context.is_empty() { String::new() } else { format!(" [{}]", line.context) };
        locked(&self.logs).push(format!("{level}{context} {}", line.message));
    }
}

impl Bench {
    /// A handler that finds this state, or none.
    pub(super) fn new(module: &Module, place: Place, stored: Option<Arc<dyn StateReader>>) -> Self {
        let memory = Arc::new(Memory { stored, ..Memory::default() });
        let state: Arc<dyn StateReader> = Arc::<Memory>::clone(&memory);
        let logs: Arc<dyn LogSink> = Arc::<Memory>::clone(&memory);
        Self { worker: module.worker(place, state, logs, Interrupt::default()), memory }
    }

    /// Hands it an event, and tells what came of it: a line of `pelton test`.
    pub(super) async fn call(&mut self, event: &Event, attempt: u32) -> Value {
        let began = Instant::now();
        let invocation = self.worker.call(std::slice::from_ref(event), attempt, false).await;
        let micros = began.elapsed().as_micros() as u64;
        let Invocation { outcome, effects, .. } = invocation;
        let state: BTreeMap<&String, Value> =
            effects.state.iter().map(|(key, value)| (key, text(value.as_deref()))).collect();
        let result = json!({
            "event": event.id,
            "outcome": outcome.class(),
            "reason": Some(outcome.reason()).filter(|reason| !reason.is_empty()),
            "emitted": effects.emits.iter().map(emitted).collect::<Vec<_>>(),
            "state": state,
            "logs": std::mem::take(&mut *locked(&self.memory.logs)),
            "micros": micros,
        });
        locked(&self.memory.written).extend(effects.state);
        result
    }
}

/// Whether the handler returned successfully.
pub(super) fn is_done(result: &Value) -> bool {
    result["outcome"] == "done"
}

fn emitted(emit: &Emit) -> Value {
    let Emit { stream, event } = emit;
    let mut line = json!({
        "stream": &**stream,
        "id": event.id,
        "key": event.key,
        "kind": event.kind,
        "headers": headers(&event.headers),
    });
    match payload_json(&event.payload).and_then(|json| serde_json::from_str::<Value>(json.get()).ok()) {
        Some(payload) => line["payload"] = payload,
        None => line["payload_base64"] = BASE64_STANDARD.encode(&event.payload).into(),
    }
    line
}

/// A value of state: as text if it is some, else as base64; null if it was deleted.
fn text(value: Option<&[u8]>) -> Value {
    match value.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => json!({ "base64": BASE64_STANDARD.encode(value.unwrap_or_default()) }),
    }
}

/// Prints what came of an event for people.
pub(super) fn print(name: &str, result: &Value) -> std::io::Result<()> {
    let word = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
    output::line(format_args!("{name}  {}  {} µs  {}", word("outcome"), result["micros"], word("reason")))?;
    for log in result["logs"].as_array().into_iter().flatten() {
        output::line(format_args!("    log    {}", log.as_str().unwrap_or_default()))?;
    }
    for emit in result["emitted"].as_array().into_iter().flatten() {
        let payload = if emit["payload_base64"].is_string() { &emit["payload_base64"] } else { &emit["payload"] };
        let (stream, kind) = (emit["stream"].as_str().unwrap_or_default(), emit["kind"].as_str().unwrap_or_default());
        output::line(format_args!("    emit   {stream}  {kind}  {payload}"))?;
    }
    for (key, value) in result["state"].as_object().into_iter().flatten() {
        output::line(format_args!("    state  {key} = {value}"))?;
    }
    Ok(())
}
