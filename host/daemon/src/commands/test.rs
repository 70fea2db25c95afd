//! `pelton test`: events through a module, with no store.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, bail};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use pelton_core::{Emit, Event, Invocation, NewEvent, Offset, Timestamp};
use pelton_sandbox::{
    EmitGrant, Grants, Interrupt, Limits, LogLine, LogSink, Place, Sandbox, SandboxOptions, StateReader, Worker,
};
use serde_json::{Value, json};

use crate::{
    cli::{Common, TestArgs},
    config::Config,
    event_json::{headers, json as payload_json},
    lines::{Fields, Lines},
    modules::grants_of,
    output,
};

/// The group and stream that a handler sees here.
const NAME: &str = "test";
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
const REUSE_CALLS: u64 = 10_000;
/// Fields of a line that differ from run to run: they are printed, and not compared.
const NOT_COMPARED: [&str; 2] = ["micros", "logs"];

/// Hands the events of a file to a module, one at a time, and prints what came of each.
///
/// # Errors
/// A module or file that cannot be read. What differs from the expectation is printed and gives status 1.
pub async fn test(common: &Common, args: &TestArgs) -> anyhow::Result<u8> {
    let mut bench = Bench::new(common, args).await?;
    let mut lines = Lines::open(&args.events, args.format, Fields::default())?.with_numbers_as_ids();
    let (mut results, mut failed) = (Vec::new(), 0);
    while let Some((_, event)) = lines.next()? {
        let result = bench.run(event).await;
        failed += usize::from(result["outcome"] != "done");
        if common.json {
            output::json_line(&result)?;
        } else {
            print(&result)?;
        }
        results.push(result);
    }
    let done = results.len() - failed;
    match &args.expect {
        Some(file) if args.update => {
            write_expected(file, &results)?;
            summary(common, format_args!("{} written with {} lines", file.display(), results.len()))?;
            Ok(0)
        }
        Some(file) => compare(common, file, &results),
        None => {
            summary(common, format_args!("{done} done, {failed} failed"))?;
            Ok(u8::from(failed > 0))
        }
    }
}

fn summary(common: &Common, text: impl std::fmt::Display) -> std::io::Result<()> {
    if common.json { Ok(()) } else { output::line(text) }
}

/// A handler with a state of its own and nothing around it.
struct Bench {
    worker: Worker,
    memory: Arc<Memory>,
    offset: u64,
}

/// The state and the log of a handler under test.
#[derive(Default)]
struct Memory {
    state: Mutex<BTreeMap<String, Vec<u8>>>,
    logs: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl StateReader for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(locked(&self.state).get(key).cloned())
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
    async fn new(common: &Common, args: &TestArgs) -> anyhow::Result<Self> {
        let file = args.module.display();
        let bytes = std::fs::read(&args.module).with_context(|| format!("cannot read module {file}"))?;
        let sandbox = Sandbox::new(SandboxOptions::default())?;
        let grants = grants(common, &args.module)?;
        let module = sandbox.load(bytes, grants).await.with_context(|| format!("module {file}"))?;
        let memory = Arc::new(Memory::default());
        let place = Place { group: NAME.into(), stream: NAME.into(), partition: 0 };
        let state: Arc<dyn StateReader> = Arc::<Memory>::clone(&memory);
        let logs: Arc<dyn LogSink> = Arc::<Memory>::clone(&memory);
        Ok(Self { worker: module.worker(place, state, logs, Interrupt::default()), memory, offset: 0 })
    }

    async fn run(&mut self, event: NewEvent) -> Value {
        let NewEvent { id, key, kind, headers, payload } = event;
        // No clock: a run is to give the same output every time.
        let time = Timestamp(0);
        let event = Event { offset: Offset(self.offset), id, key, kind, time, headers, payload };
        self.offset += 1;
        let began = Instant::now();
        let invocation = self.worker.call(std::slice::from_ref(&event), 1).await;
        let micros = began.elapsed().as_micros() as u64;
        let Invocation { outcome, effects, .. } = invocation;
        for (key, value) in &effects.state {
            match value {
                Some(value) => drop(locked(&self.memory.state).insert(key.clone(), value.clone())),
                None => drop(locked(&self.memory.state).remove(key)),
            }
        }
        let state: BTreeMap<&String, Value> =
            effects.state.iter().map(|(key, value)| (key, text(value.as_deref()))).collect();
        json!({
            "event": event.id,
            "outcome": outcome.class(),
            "reason": Some(outcome.reason()).filter(|reason| !reason.is_empty()),
            "emitted": effects.emits.iter().map(emitted).collect::<Vec<_>>(),
            "state": state,
            "logs": std::mem::take(&mut *locked(&self.memory.logs)),
            "micros": micros,
        })
    }
}

/// What the configuration grants the handler of this module, if there is one; else every stream and the usual limits.
fn grants(common: &Common, module: &Path) -> anyhow::Result<Grants> {
    let module = std::path::absolute(module)?;
    let config = if common.config.exists() { Some(Config::load(&common.config)?) } else { None };
    let declared = config.as_ref().and_then(|config| {
        let (name, handler) = config.handlers.iter().find(|(_, handler)| handler.module == module)?;
        Some(grants_of(name, handler, &config.streams))
    });
    Ok(declared.unwrap_or_else(|| Grants {
        handler: NAME.into(),
        emit: EmitGrant::Any { payload_bytes_max: PAYLOAD_BYTES_MAX },
        config: Vec::new(),
        limits: Limits::default(),
        reuse_calls: REUSE_CALLS,
    }))
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

fn print(result: &Value) -> std::io::Result<()> {
    let word = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
    output::line(format_args!("{}  {}  {} µs  {}", word("event"), word("outcome"), result["micros"], word("reason")))?;
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

fn compared(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(fields) = result.as_object_mut() {
        fields.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
    }
    result
}

fn write_expected(file: &Path, results: &[Value]) -> anyhow::Result<()> {
    let lines: String = results.iter().map(|result| format!("{}\n", compared(result))).collect();
    std::fs::write(file, lines).with_context(|| format!("cannot write {}", file.display()))
}

fn compare(common: &Common, file: &Path, results: &[Value]) -> anyhow::Result<u8> {
    let name = file.display();
    let expected = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}; --update writes it"))?;
    let mut lines = Vec::new();
    for (index, line) in expected.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Value =
            serde_json::from_str(line).with_context(|| format!("{name}, line {}: not JSON", index + 1))?;
        lines.push(compared(&line));
    }
    if lines.len() != results.len() {
        bail!("{name} expects {} events, found {}; --update writes it anew", lines.len(), results.len());
    }
    let differing: Vec<_> = lines.iter().zip(results).filter(|(line, result)| **line != compared(result)).collect();
    for (expected, found) in &differing {
        eprintln!("event {} differs:\n  expected {expected}\n  found    {}", found["event"], compared(found));
    }
    let same = results.len() - differing.len();
    summary(common, format_args!("{same} as expected, {} differ", differing.len()))?;
    Ok(u8::from(!differing.is_empty()))
}
