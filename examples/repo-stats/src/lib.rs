//! Counts the events of each repository, in all and by kind, and emits the counts.
//!
//! The counts live in the handler's state, which is committed together with the position and the emitted event: each
//! event is counted once, whatever crashes in between.

use std::collections::BTreeMap;

use pelton_sdk::{Error, Event, Handler, NewEvent, emit, state};
use serde::{Deserialize, Serialize};

/// Where events without a repository are counted.
const NO_REPOSITORY: &str = "(none)";

/// What the state holds for a repository.
#[derive(Default, Serialize, Deserialize)]
struct Counts {
    total: u64,
    kinds: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts one event and returns how many of its kind there were.
    fn add(&mut self, kind: &str) -> u64 {
        self.total += 1;
        let count = self.kinds.entry(kind.to_owned()).or_default();
        *count += 1;
        *count
    }
}

#[derive(Serialize)]
struct Counted<'a> {
    repo: &'a str,
    total: u64,
    kind: &'a str,
    count: u64,
}

struct RepoStats;

impl Handler for RepoStats {
    fn handle(event: Event) -> Result<(), Error> {
        let repo = event.key.as_deref().unwrap_or(NO_REPOSITORY);
        let key = format!("repo/{repo}");

        let mut counts: Counts = state::get_json(&key)?.unwrap_or_default();
        let count = counts.add(&event.kind);
        state::set_json(&key, &counts)?;

        let counted = Counted { repo, total: counts.total, kind: &event.kind, count };
        emit("stats", NewEvent::json("repo.counted", &counted)?.key(repo))
    }
}

pelton_sdk::export!(RepoStats);
