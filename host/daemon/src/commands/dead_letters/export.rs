//! `pelton dead-letters export`

use std::io::{self, BufWriter, Write};

use pelton_store::Store;

use super::{letter::LetterLine, pages::Pages, select::look};
use crate::{cli::ExportArgs, output};

/// Prints dead letters in full, one a line, as they are read: any number of them needs the same memory.
pub(super) async fn export(store: &dyn Store, args: &ExportArgs) -> anyhow::Result<()> {
    let (group, query) = look(store, &args.group, &args.looking).await?;
    let mut pages = Pages::new(store, &group.name, query);
    let mut out = BufWriter::new(output::Out);
    while let Some(info) = pages.next().await? {
        put(&mut out, &LetterLine::of(&group.name, &group.stream, &info))?;
        output::end_if_closed()?;
    }
    Ok(out.flush()?)
}

fn put(out: &mut impl Write, line: &LetterLine<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
