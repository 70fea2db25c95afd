//! `pelton replay`: recorded events through a module with its effects held back, beside the running version or alone.

mod one;
mod print;
mod range;
mod versions;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use pelton_core::Offset;
use pelton_store::{GroupInfo, Store, StreamInfo};

use super::{dead_letters::parse_place, groups::find};
use crate::{
    cli::{Common, RecordedArgs},
    config::Config,
    history::{Reader, Run, Totals, Versions},
    output,
};
use print::Printer;

pub(super) use versions::{grants_for, handler_of, running};

/// Reads `PARTITION/OFFSET`.
///
/// # Errors
/// What was expected.
pub fn parse_event(text: &str) -> Result<(u32, Offset), String> {
    parse_place(text).ok_or_else(|| "expected a partition and an offset, such as 0/120".into())
}

/// What is to be replayed, and for whom.
struct Task<'a> {
    common: &'a Common,
    args: &'a RecordedArgs,
    store: Arc<dyn Store>,
    group: GroupInfo,
    stream: StreamInfo,
    reader: Reader,
    /// That of the new version.
    file: PathBuf,
    versions: Versions,
}

/// Runs recorded events of a group through a module and prints what came of them. Status 1 if the versions differ or if
/// nothing was compared and, with one alone, if an event fails.
///
/// # Errors
/// A group, partition, event or module that does not exist; history that is not complete, where state is to be rebuilt.
pub async fn replay(common: &Common, args: &RecordedArgs) -> anyhow::Result<u8> {
    let (config, store) = super::open(common, false).await?;
    let group = find(&*store, &args.group).await?;
    let streams = store.streams().await?;
    let stream = streams.into_iter().find(|stream| stream.spec.name == group.stream);
    let stream =
        stream.with_context(|| format!("stream {:?} of group {:?} does not exist", group.stream, group.name))?;
    // What cannot be replayed is told before anything is compiled.
    range::check(&stream, args)?;
    let (file, versions) = versions(&config, &*store, &group, args).await?;
    let filter = config.groups.get(&group.name).map(|group| group.settings.filter.clone()).unwrap_or_default();
    let reader = Reader { group: group.name.as_str().into(), stream: group.stream.as_str().into(), filter };
    let task = Task { common, args, store, group, stream, reader, file, versions };
    match args.event {
        Some((partition, offset)) => one::replay(&task, partition, offset).await,
        None => many(&task).await,
    }
}

async fn versions(
    config: &Config,
    store: &dyn Store,
    group: &GroupInfo,
    args: &RecordedArgs,
) -> anyhow::Result<(PathBuf, Versions)> {
    let (name, handler) = handler_of(config, group)?;
    let sandbox = super::sandbox()?;
    let grants = grants_for(config, name, handler);
    let file = args.module.as_ref().unwrap_or(&handler.module);
    let new = versions::from_file(&sandbox, file, grants.clone()).await?;
    let old = if args.diff { Some(running(&sandbox, store, name, handler, grants).await?) } else { None };
    if let Some(old) = old.as_ref().filter(|old| old.digest() == new.digest()) {
        let (file, digest) = (file.display(), old.digest());
        if args.module.is_none() {
            bail!(
                "{file} holds the running version {digest} of handler {name:?}, which would be compared with itself; name the new one with --module"
            );
        }
        eprintln!("note: {file} is the version that is live ({digest}): it is compared with itself");
    }
    Ok((file.clone(), Versions { old, new }))
}

async fn many(task: &Task<'_>) -> anyhow::Result<u8> {
    let Task { common, args, store, reader, versions, .. } = task;
    let plan = range::plan(&**store, &task.group, &task.stream, args).await?;
    let bar = if common.json { indicatif::ProgressBar::hidden() } else { output::progress(Some(plan.events())) };
    bar.set_message("of the events replayed");
    let mut totals = Totals::default();
    let mut printer = Printer::new(common.json, args.diff);
    let mut run =
        Run::new(Arc::clone(store), reader.clone(), plan.base, versions.clone(), plan.spans.clone(), bar.clone());
    let done = loop {
        match run.next().await {
            Ok(None) => break Ok(()),
            Ok(Some(step)) => {
                totals.count(&step);
                if printer.shows(&step)
                    && let Err(error) = bar.suspend(|| printer.step(&step))
                {
                    break Err(error.into());
                }
            }
            Err(error) => break Err(error),
        }
    };
    bar.finish_and_clear();
    done?;
    printer.summary(task, &plan, &totals)?;
    // A comparison is asked for to be gone by: one of nothing shows nothing, and must not let a version pass.
    let failed = if args.diff { totals.differing > 0 || totals.compared == 0 } else { totals.new.errors > 0 };
    Ok(u8::from(failed))
}
