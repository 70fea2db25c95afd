//! A module at work on single events with nothing around it: what it does is told, and stored nowhere.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use pelton_core::{Effects, Emit, Event, Invocation, Outcome};
use pelton_sandbox::{Interrupt, LogLine, LogSink, Module, Place, StateReader, Worker};
use serde_json::{Value, json};

use crate::event_json::{headers, json as payload_json};

/// What an entry of state costs in memory beyond its key and value.
const ENTRY_BYTES: usize = 64;

/// A handler whose effects are held back. What it writes to its state it reads back.
pub(crate) struct Bench {
    worker: Worker,
    memory: Arc<Memory>,
    /// Whether `checkpoint.commit` means something.
    manual: bool,
}

/// What came of one event, or of several that were handled in one call.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) event: String,
    /// Those handled in the same call, after that one.
    others: Vec<String>,
    pub(crate) outcome: Outcome,
    /// None, if it failed.
    pub(crate) effects: Effects,
    pub(crate) logs: Vec<String>,
    pub(crate) took: Duration,
    /// The handler said that all so far may be committed, in a group that commits at its word.
    checkpoint: bool,
}

/// Keys of state with their values, `None` where there is known to be none, and how much memory they take.
#[derive(Default)]
pub(crate) struct Held {
    values: BTreeMap<String, Option<Vec<u8>>>,
    bytes: usize,
}

/// The state and the log of a handler on the bench.
#[derive(Default)]
struct Memory {
    /// What was there before.
    stored: Option<Arc<dyn StateReader>>,
    written: Mutex<Held>,
    logs: Mutex<Vec<String>>,
}

/// Nothing panics while it holds one of these locks; a poisoned one is as good as any.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    pub(crate) fn get(&self, key: &str) -> Option<&Option<Vec<u8>>> {
        self.values.get(key)
    }

    pub(crate) fn put(&mut self, key: String, value: Option<Vec<u8>>) {
        let bytes = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let (key_bytes, new_bytes) = (key.len(), bytes(&value));
        match self.values.insert(key, value) {
            Some(old) => self.bytes -= bytes(&old),
            None => self.bytes += ENTRY_BYTES + key_bytes,
        }
        self.bytes += new_bytes;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
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
    pub(crate) fn new(module: &Module, place: Place, stored: Option<Arc<dyn StateReader>>) -> Self {
        let memory = Arc::new(Memory { stored, ..Memory::default() });
        let state: Arc<dyn StateReader> = Arc::<Memory>::clone(&memory);
        let logs: Arc<dyn LogSink> = Arc::<Memory>::clone(&memory);
        Self { worker: module.worker(place, state, logs, Interrupt::default()), memory, manual: false }
    }

    /// One for a group that commits at the handler's word.
    pub(crate) fn with_manual_commits(self, manual: bool) -> Self {
        Self { manual, ..self }
    }

    /// Hands it several events in one call, and what is left of them in further ones: an event that failed is passed over,
    /// and where it is not known which one failed, each is tried alone.
    pub(crate) async fn call_all(&mut self, events: &[Event]) -> Vec<Tried> {
        let mut tried = Vec::new();
        let mut rest = events;
        let mut together = rest.len();
        while let [first, ..] = rest {
            let now = &rest[..together.min(rest.len())];
            let began = Instant::now();
            let invocation = self.worker.call(now, 1, self.manual).await;
            let Invocation { handled, outcome, located, checkpoint, effects } = invocation;
            if outcome != Outcome::Done && !located && now.len() > 1 {
                self.take_logs();
                together = 1;
                continue;
            }
            self.note(&effects);
            let mut common = Tried::new(first, Outcome::Done, self.take_logs(), began.elapsed());
            common.others = now.iter().take(handled).skip(1).map(|event| event.id.clone()).collect();
            (common.effects, common.checkpoint) = (effects, checkpoint);
            let failed = (outcome != Outcome::Done).then(|| now.get(handled)).flatten();
            rest = &rest[(handled + usize::from(failed.is_some())).max(1)..];
            let logs = if handled > 0 {
                tried.push(common);
                Vec::new()
            } else {
                common.logs
            };
            tried.extend(failed.map(|event| Tried::new(event, outcome, logs, began.elapsed())));
        }
        tried
    }

    fn note(&self, effects: &Effects) {
        let mut written = locked(&self.memory.written);
        for (key, value) in &effects.state {
            written.put(key.clone(), value.clone());
        }
    }

    fn take_logs(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.memory.logs))
    }

    /// Hands it an event, and tells what came of it.
    pub(crate) async fn call(&mut self, event: &Event, attempt: u32) -> Tried {
        let began = Instant::now();
        let invocation = self.worker.call(std::slice::from_ref(event), attempt, self.manual).await;
        let took = began.elapsed();
        let Invocation { outcome, effects, checkpoint, .. } = invocation;
        self.note(&effects);
        Tried { effects, checkpoint, ..Tried::new(event, outcome, self.take_logs(), took) }
    }

    /// A value of its state as it would find it now.
    pub(crate) async fn state(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.memory.get(key).await
    }

    /// How much memory its writes take.
    pub(crate) fn held_bytes(&self) -> usize {
        locked(&self.memory.written).bytes()
    }
}

impl Tried {
    pub(crate) fn new(event: &Event, outcome: Outcome, logs: Vec<String>, took: Duration) -> Self {
        let (event, effects) = (event.id.clone(), Effects::default());
        Self { event, others: Vec::new(), outcome, effects, logs, took, checkpoint: false }
    }

    /// Whether the handler returned successfully.
    pub(crate) fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }

    /// As a line of `pelton test`.
    pub(crate) fn json(&self) -> Value {
        let reason = Some(self.outcome.reason()).filter(|reason| !reason.is_empty());
        let state: BTreeMap<&String, Value> =
            self.effects.state.iter().map(|(key, value)| (key, text(value.as_deref()))).collect();
        let mut line = json!({
            "event": self.event,
            "outcome": self.outcome.class(),
            "reason": reason,
            "emitted": self.effects.emits.iter().map(emitted).collect::<Vec<_>>(),
            "state": state,
            "logs": self.logs,
            "micros": self.took.as_micros() as u64,
        });
        // Only where they say something: what was expected of a line before there were these goes on to be the whole of it.
        if !self.others.is_empty() {
            line["with"] = self.others.clone().into();
        }
        if self.checkpoint {
            line["checkpoint"] = true.into();
        }
        line
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_once_for_each_key() {
        let mut held = Held::default();
        held.put("k".into(), Some(vec![0; 100]));
        held.put("k".into(), Some(vec![0; 10]));
        assert_eq!(held.bytes(), ENTRY_BYTES + 1 + 10);
        held.put("k".into(), None);
        assert_eq!((held.bytes(), held.get("k")), (ENTRY_BYTES + 1, Some(&None)));
    }
}
