//! `pelton dead-letters list`

use std::io::{self, Write};

use pelton_store::{LetterInfo, Store};

use super::{
    letter::{LetterLine, brief, id_of, notes},
    pages::Pages,
    select::look,
};
use crate::{
    cli::{Common, ListArgs},
    output, time,
};

/// How many a person is shown who does not say.
const SHOWN_MAX: u64 = 100;

/// Prints a table, or an array of JSON as it is read.
pub(super) async fn list(common: &Common, store: &dyn Store, args: &ListArgs) -> anyhow::Result<()> {
    let (group, query) = look(store, &args.group, &args.looking).await?;
    let is_narrowed = query != Default::default();
    let mut pages = Pages::new(store, &group.name, query);
    if common.json {
        let mut left = args.count.unwrap_or(u64::MAX);
        let mut separator: &[u8] = b"[";
        while left > 0
            && let Some(info) = pages.next().await?
        {
            put(separator, &LetterLine::of(&group.name, &group.stream, &info))?;
            output::end_if_closed()?;
            (separator, left) = (b",", left - 1);
        }
        output::Out.write_all(if separator == b"[" { b"[]\n" } else { b"]\n" })?;
        return Ok(());
    }
    let most = args.count.unwrap_or(if args.looking.all { u64::MAX } else { SHOWN_MAX });
    let (mut rows, mut more) = (Vec::new(), false);
    while let Some(info) = pages.next().await? {
        if rows.len() as u64 == most {
            more = true;
            break;
        }
        rows.push(row(&info));
    }
    let heading = ["id", "event", "key", "kind", "class", "attempts", "last", "reason", "note"];
    let empty = match is_narrowed {
        true => format!("no dead letter of group {} is of this kind", group.name),
        false => format!("group {} has no dead letters", group.name),
    };
    output::table(heading, rows, &empty)?;
    if more {
        output::line(format_args!("and more: -n N shows more of them, --all every one"))?;
    }
    Ok(())
}

fn put(separator: &[u8], line: &LetterLine<'_>) -> io::Result<()> {
    output::Out.write_all(separator)?;
    serde_json::to_writer(&mut output::Out, line)?;
    Ok(())
}

fn row(info: &LetterInfo) -> [String; 9] {
    let (event, failure) = (&info.letter.event, &info.letter.failure);
    [
        id_of(info),
        event.id.clone(),
        event.key.clone().unwrap_or_default(),
        event.kind.clone(),
        failure.class.as_str().into(),
        failure.attempts.to_string(),
        time::show(failure.last),
        brief(&failure.reason),
        notes(info),
    ]
}
