//! `pelton dead-letters …`: what was set aside for a group, and what becomes of it.

mod dry_run;
mod edit;
mod export;
mod letter;
mod list;
mod pages;
mod request;
mod select;
mod show;
mod wait;

use pelton_core::LetterRequest;

use crate::cli::{Common, DeadLettersCommand};

pub(super) use letter::{parse_place, place};
pub(super) use pages::one;

/// Shows or settles the events that a group set aside.
///
/// # Errors
/// A configuration or store that cannot be read; a group, partition or dead letter that does not exist; whatever the
/// store refuses. Status 1 without an error: some are back or not done in time, or would fail again.
pub async fn dead_letters(common: &Common, command: &DeadLettersCommand) -> anyhow::Result<u8> {
    let (config, store) = super::open(common, false).await?;
    match command {
        DeadLettersCommand::List(args) => list::list(common, &*store, args).await?,
        DeadLettersCommand::Show(args) => show::show(common, &*store, args).await?,
        DeadLettersCommand::Export(args) => export::export(&*store, args).await?,
        DeadLettersCommand::Edit(args) => edit::edit(common, &*store, args).await?,
        DeadLettersCommand::Replay(args) if args.dry_run => {
            return dry_run::dry_run(common, &config, &store, args).await;
        }
        DeadLettersCommand::Replay(args) => {
            let (group, selected) = select::select(&*store, &args.group, &args.which, &args.narrowing).await?;
            return request::request(common, &*store, &group, &selected, LetterRequest::Replay, args.wait).await;
        }
        DeadLettersCommand::Discard(args) => {
            let (group, selected) = select::select(&*store, &args.group, &args.which, &args.narrowing).await?;
            return request::request(common, &*store, &group, &selected, LetterRequest::Discard, args.wait).await;
        }
    }
    Ok(0)
}
