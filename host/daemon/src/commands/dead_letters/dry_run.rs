//! `pelton dead-letters replay --dry-run`: what the present handler would do, with its effects held back.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::anyhow;
use pelton_core::LetterRequest;
use pelton_sandbox::{Module, Place, StateReader};
use pelton_store::{GroupInfo, LetterInfo, LetterQuery, Store};
use serde_json::{Value, json};

use super::{
    letter::{id_of, place},
    pages::Pages,
    select::{reached, select},
};
use crate::{
    bench::Bench,
    cli::{Common, ReplayArgs},
    commands::{
        bench,
        replay::{grants_for, handler_of},
        sandbox,
    },
    config::Config,
    modules::load_now,
    output,
    state::PartitionState,
};

/// Hands the selected letters to the handler of the configuration, partition by partition in order. Each sees the stored
/// state, under what those before it wrote here; nothing is stored or asked for.
pub(super) async fn dry_run(
    common: &Common,
    config: &Config,
    store: &Arc<dyn Store>,
    args: &ReplayArgs,
) -> anyhow::Result<u8> {
    let (group, selected) = select(&**store, &args.group, &args.which, &args.narrowing).await?;
    let places = reached(&**store, &group.name, &selected.query, LetterRequest::Replay).await?;
    let (name, handler) = handler_of(config, &group)?;
    let sandbox = sandbox()?;
    let module =
        load_now(&sandbox, handler, grants_for(config, name, handler), &[]).await.map_err(|reason| anyhow!(reason))?;
    let around = LetterQuery {
        partition: selected.query.partition,
        key: selected.query.key.clone().or_else(|| selected.one.and_then(|one| one.letter.event.key)),
        ..LetterQuery::default()
    };
    let mut pages = Pages::new(&**store, &group.name, around);
    let mut stage = Stage { module, store, group: &group, bench: None, failed_keys: BTreeMap::new() };
    let (mut done, mut failed) = (0, 0);
    while let Some(info) = pages.next().await? {
        if !places.contains(&info) {
            continue;
        }
        let result = stage.try_out(&info).await;
        if is_done(&result) {
            done += 1
        } else {
            failed += 1
        }
        if common.json {
            output::json_line(&result)?;
        } else {
            bench::print(&format!("{}  {}", id_of(&info), info.letter.event.id), &result)?;
        }
    }
    if !common.json {
        output::line(format_args!("{done} done, {failed} failed; nothing was stored, and nothing is asked for"))?;
    }
    Ok(u8::from(failed > 0))
}

/// The partition in hand.
struct Stage<'a> {
    module: Module,
    store: &'a Arc<dyn Store>,
    group: &'a GroupInfo,
    bench: Option<(u32, Bench)>,
    /// Parked keys of this partition whose letters would be back, each with the one that failed.
    failed_keys: BTreeMap<String, String>,
}

impl Stage<'_> {
    async fn try_out(&mut self, info: &LetterInfo) -> Value {
        let (event, id) = (&info.letter.event, id_of(info));
        if self.bench.as_ref().is_none_or(|(partition, _)| *partition != info.partition) {
            self.bench = Some((info.partition, self.bench_for(info.partition)));
            self.failed_keys.clear();
        }
        let key = event.key.as_ref().filter(|_| info.letter.parks);
        let ahead = key.and_then(|key| self.failed_keys.get(key));
        let mut result = match (ahead, &mut self.bench) {
            (None, Some((_, bench))) => bench.call(event, info.letter.failure.attempts.saturating_add(1)).await.json(),
            (ahead, _) => waits_behind(&event.id, ahead.map_or("", String::as_str)),
        };
        if let Some(key) = key.filter(|_| !is_done(&result)) {
            self.failed_keys.entry(key.clone()).or_insert_with(|| place(info.partition, event.offset));
        }
        result["id"] = id.into();
        result
    }

    fn bench_for(&self, partition: u32) -> Bench {
        let (group, stream): (Arc<str>, Arc<str>) =
            (self.group.name.as_str().into(), self.group.stream.as_str().into());
        let stored = PartitionState::new(Arc::clone(self.store), Arc::clone(&group), partition);
        let stored: Arc<dyn StateReader> = Arc::new(stored);
        Bench::new(&self.module, Place { group, stream, partition }, Some(stored))
    }
}

fn is_done(result: &Value) -> bool {
    result["outcome"] == "done"
}

/// An event that would not be tried: an earlier one of its key would fail and be back, and with it all that waits.
fn waits_behind(event: &str, failed: &str) -> Value {
    json!({
        "event": event,
        "outcome": "parked",
        "reason": format!("waits behind {failed}, which fails"),
        "emitted": [],
        "state": {},
        "logs": [],
        "micros": 0,
    })
}
