//! `pelton handler …`: finds the row that all hosts go by, and changes it.

use std::{cell::RefCell, collections::BTreeSet};

use anyhow::bail;
use pelton_core::{Refusal, Rollout, Timestamp};
use pelton_store::{Store, system_clock};
use serde_json::{Value, json};

use crate::{
    cli::{Common, HandlerCommand},
    commands::{handler_history, handler_pin, handler_rollback},
    config::Config,
    output,
    rollouts::{self, ChangeError},
    time::show,
};

/// Enough of a digest to tell versions apart.
const DIGITS_SHOWN: usize = 12;

/// Shows or changes which version of a handler answers.
///
/// # Errors
/// A configuration or store that cannot be read, a handler that does not exist; whatever the rollout refuses.
pub async fn handler(common: &Common, command: &HandlerCommand) -> anyhow::Result<()> {
    let (config, store) = super::open(common, false).await?;
    match command {
        HandlerCommand::History(args) => handler_history::history(common, &config, &*store, args).await,
        HandlerCommand::Rollback(args) => handler_rollback::rollback(common, &config, &*store, args).await,
        HandlerCommand::Pin(args) => handler_pin::pin(common, &config, &*store, args).await,
    }
}

/// What is stored of a handler: nothing yet, if hosts or the configuration name it and no version was loaded.
pub(super) async fn find(config: &Config, store: &dyn Store, name: &str) -> anyhow::Result<Rollout> {
    let rollouts = store.rollouts().await?;
    let mut known: BTreeSet<String> = rollouts.iter().map(|rollout| rollout.handler.clone()).collect();
    if let Some(rollout) = rollouts.into_iter().find(|rollout| rollout.handler == name) {
        return Ok(rollout);
    }
    known.extend(config.handlers.keys().cloned());
    known.extend(store.handlers().await?.into_iter().map(|report| report.handler));
    if known.contains(name) {
        return Ok(Rollout::of(name));
    }
    let names: Vec<_> = known.iter().map(|name| format!("{name:?}")).collect();
    match &names[..] {
        [] => bail!("handler {name:?} does not exist; there are no handlers yet"),
        names => bail!("handler {name:?} does not exist; known handlers: {}", names.join(", ")),
    }
}

/// A change of a rollout that is stored.
pub(super) struct Changed {
    before: Rollout,
    after: Rollout,
}

/// Changes a rollout as it is when it is stored: what a host did in between counts.
pub(super) async fn change(
    config: &Config,
    store: &dyn Store,
    name: &str,
    change: impl Fn(&Rollout, Timestamp) -> Result<Rollout, Refusal>,
) -> anyhow::Result<Changed> {
    find(config, store, name).await?;
    let now = system_clock()();
    let seen = RefCell::default();
    let changing = |rollout: &Rollout| {
        seen.replace(rollout.clone());
        change(rollout, now)
    };
    match rollouts::change(store, name, None, None, changing).await {
        Ok(after) => Ok(Changed { before: seen.into_inner(), after }),
        Err(ChangeError::Refused(refusal)) => Err(refusal.into()),
        Err(error) => Err(error.into()),
    }
}

impl Changed {
    /// What made way: the version that was live, or the canary.
    fn from(&self) -> Option<&str> {
        let Self { before, after } = self;
        if before.live == after.live { self.canary_ended() } else { before.live.as_deref() }
    }

    /// The canary that was taken back with it.
    fn canary_ended(&self) -> Option<&str> {
        let Self { before, after } = self;
        let canary = before.trial.as_ref().filter(|_| after.trial.is_none()).map(|trial| &trial.digest);
        canary.filter(|canary| after.live.as_ref() != Some(canary)).map(String::as_str)
    }

    pub(super) fn live(&self) -> Option<&str> {
        self.after.live.as_deref()
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.after.pinned
    }

    /// Prints what was done.
    pub(super) fn tell(&self, common: &Common, done: &str) -> std::io::Result<()> {
        let Self { after, .. } = self;
        if common.json {
            return output::json_line(&json!({
                "handler": after.handler,
                "from": self.from(),
                "to": after.live,
                "canary_ended": self.canary_ended(),
                "pinned": after.pinned,
                "done": done,
            }));
        }
        let (handler, to) = (&after.handler, after.live.as_deref().map(short).unwrap_or_default());
        let Some(from) = self.from() else { return Ok(()) };
        output::line(format_args!("handler {handler} goes from {} to {to}", short(from)))?;
        if let Some(canary) = self.canary_ended().filter(|canary| *canary != from) {
            output::line(format_args!("- the canary of {} ends with it", short(canary)))?;
        }
        output::line("- hosts follow within a second or two; `pelton handlers` shows which did")?;
        output::line(format_args!(
            "- no file brings {} back; `pelton handler rollback {handler} --to {}` does",
            short(from),
            short(from)
        ))
    }
}

/// The beginning of a digest.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + DIGITS_SHOWN).collect()
}

/// The version that is tried, for programs.
pub(super) fn canary_json(rollout: &Rollout) -> Value {
    rollout.trial.as_ref().map_or(Value::Null, |trial| {
        json!({
            "digest": trial.digest,
            "partitions": trial.partitions,
            "since": show(trial.since),
            "until": show(trial.until),
        })
    })
}

/// The version that is tried, for people.
pub(super) fn canary_note(rollout: &Rollout) -> Option<String> {
    let trial = rollout.trial.as_ref()?;
    let partitions = match trial.partitions {
        1 => "1 partition".to_owned(),
        many => format!("{many} partitions"),
    };
    Some(format!("canary {} in {partitions} until {}", short(&trial.digest), show(trial.until)))
}
