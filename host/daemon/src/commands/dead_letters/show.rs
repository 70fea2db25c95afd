//! `pelton dead-letters show`

use pelton_sandbox::split_backtrace;
use pelton_store::{LetterInfo, LetterQuery, Store};

use super::{
    letter::{LetterLine, id_of, notes},
    select::by_id,
};
use crate::{
    cli::{Common, ShowArgs},
    commands::groups::find,
    output, time,
};

/// Prints all that is known of one.
pub(super) async fn show(common: &Common, store: &dyn Store, args: &ShowArgs) -> anyhow::Result<()> {
    let group = find(store, &args.group).await?;
    let info = by_id(store, &group.name, &args.id, &LetterQuery::default()).await?;
    if common.json {
        output::json_line(&LetterLine::of(&group.name, &group.stream, &info))?;
    } else {
        print(&group.name, &group.stream, &info)?;
    }
    Ok(())
}

fn print(group: &str, stream: &str, info: &LetterInfo) -> std::io::Result<()> {
    let (event, failure) = (&info.letter.event, &info.letter.failure);
    let (reason, backtrace) = split_backtrace(&failure.reason);
    output::line(format_args!("dead letter {} of group {group}, from stream {stream}", id_of(info)))?;
    let field = |name: &str, value: &str| match value {
        "" => Ok(()),
        value => output::line(format_args!("{name:<9} {}", output::visible(value).replace('\n', "\n          "))),
    };
    field("event", &output::in_one_line(&event.id))?;
    field("key", &output::in_one_line(event.key.as_deref().unwrap_or_default()))?;
    field("kind", &output::in_one_line(&event.kind))?;
    field("appended", &time::show(event.time))?;
    for (name, value) in &event.headers {
        field("header", &output::in_one_line(&format!("{name}: {value}")))?;
    }
    field("note", &notes(info))?;
    field("class", failure.class.as_str())?;
    if failure.attempts > 0 {
        field("attempts", &failure.attempts.to_string())?;
        field("first", &time::show(failure.first))?;
        field("last", &time::show(failure.last))?;
    } else {
        field("since", &time::show(failure.first))?;
    }
    field("module", info.letter.digest.as_deref().unwrap_or_default())?;
    field("reason", reason)?;
    let frames: Vec<_> = backtrace.unwrap_or_default().lines().map(str::trim).collect();
    field("backtrace", &frames.join("\n"))?;
    field("payload", &payload(&event.payload))
}

fn payload(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => text.trim_end().to_owned(),
        _ => format!("{} bytes that are no text; --json shows them", bytes.len()),
    }
}
