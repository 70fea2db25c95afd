//! `pelton group export`, and the file it makes.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, bail};
use pelton_core::Offset;
use pelton_store::{GroupInfo, Store, StoreError, system_clock};
use serde::{Deserialize, Serialize};

use crate::{output, time::show};

/// The positions of a group, as a file keeps them. Fields that a later version adds are passed over.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Positions {
    /// The group they were taken from.
    pub(super) group: String,
    stream: String,
    /// By number.
    pub(super) partitions: Vec<Position>,
    exported_at: Option<String>,
}

/// The position in one partition.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Position {
    pub(super) partition: u32,
    committed: u64,
}

impl Position {
    pub(super) fn committed(&self) -> Offset {
        Offset(self.committed)
    }
}

/// Prints the positions of a group.
///
/// # Errors
/// A group that does not exist.
pub async fn export(store: &dyn Store, group: &str) -> anyhow::Result<()> {
    let group = super::groups::find(store, group).await?;
    output::json_line(&Positions::of(&group))?;
    Ok(())
}

impl Positions {
    fn of(group: &GroupInfo) -> Self {
        let partitions = group.partitions.iter();
        Self {
            group: group.name.clone(),
            stream: group.stream.clone(),
            partitions: partitions.map(|at| Position { partition: at.partition, committed: at.committed.0 }).collect(),
            exported_at: Some(show(system_clock()())),
        }
    }

    /// Reads a file and checks that its positions mean something to this group.
    pub(super) fn read(file: &Path, group: &GroupInfo) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        Self::parse(&text, group).with_context(|| shown.to_string())
    }

    fn parse(text: &str, group: &GroupInfo) -> anyhow::Result<Self> {
        let positions: Self =
            serde_json::from_str(text).context("not positions as `pelton group export` prints them")?;
        let (name, reads) = (&group.name, &group.stream);
        if positions.stream != *reads {
            let of = &positions.stream;
            bail!(
                "these are positions in stream {of:?}, and group {name:?} reads {reads:?}; export those of a group that reads {reads:?}"
            );
        }
        let partitions = group.partitions.len() as u32;
        let mut seen = BTreeSet::new();
        for partition in positions.partitions.iter().map(|position| position.partition) {
            if partition >= partitions {
                return Err(
                    StoreError::UnknownPartition { what: format!("group {name:?}"), partition, partitions }.into()
                );
            }
            if !seen.insert(partition) {
                bail!("partition {partition} comes twice; leave one of its positions");
            }
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupInfo {
        let at = |partition| pelton_store::GroupPartition {
            partition,
            committed: Offset(7 + u64::from(partition)),
            position: Offset(9),
            head: Offset(20),
            owner: None,
            epoch: Default::default(),
            mark: Default::default(),
            control: Default::default(),
            committed_at: None,
            letters: 0,
            skipped: 0,
            given_up_in_row: 0,
        };
        let (name, stream, handler) = ("work".into(), "in".into(), "h".into());
        GroupInfo { name, stream, handler, partitions: vec![at(0), at(1)], consumers: Vec::new() }
    }

    #[test]
    fn what_was_exported_is_read_back() {
        let text = serde_json::to_string(&Positions::of(&group())).expect("serializable");
        let positions = Positions::parse(&text, &group()).expect("its own output");
        let read: Vec<_> = positions.partitions.iter().map(|at| (at.partition, at.committed().0)).collect();
        assert_eq!(read, [(0, 7), (1, 8)]);
    }

    #[test]
    fn what_means_nothing_to_the_group_is_refused() {
        let refusal = |text: &str| format!("{:#}", Positions::parse(text, &group()).expect_err("refused"));
        let with = |stream: &str, partitions: &str| {
            refusal(&format!(r#"{{"group":"work","stream":"{stream}","partitions":[{partitions}]}}"#))
        };
        assert!(refusal("[]").starts_with("not positions as `pelton group export` prints them: "));
        assert_eq!(
            with("out", ""),
            r#"these are positions in stream "out", and group "work" reads "in"; export those of a group that reads "in""#
        );
        let one = |partition: u32| format!(r#"{{"partition":{partition},"committed":1}}"#);
        assert_eq!(with("in", &one(2)), r#"group "work" has no partition 2; it has 2, numbered from 0"#);
        assert_eq!(with("in", &[one(1), one(1)].join(",")), "partition 1 comes twice; leave one of its positions");
        assert!(with("in", r#"{"partition":0,"committed":-1}"#).contains("-1"));
    }
}
