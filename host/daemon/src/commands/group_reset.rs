//! `pelton group reset`: moves positions by hand; shows what that means before it does it.

use std::collections::BTreeMap;

use anyhow::bail;
use pelton_core::{Offset, Timestamp};
use pelton_store::{GroupInfo, GroupPartition, Reset, Store, StoreError, StreamPartition};
use serde_json::{Value, json};

use super::{group_export::Positions, groups::find};
use crate::{
    cli::{Common, ResetArgs, StateChoice},
    output, time,
};

/// What `--to` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The first event that is still there.
    Earliest,
    /// The head.
    Latest,
    /// This offset.
    Offset(u64),
    /// The first event appended then or later.
    Time(Timestamp),
}

/// Reads `earliest`, `latest`, an offset or a time.
///
/// # Errors
/// What was expected.
pub fn parse_to(text: &str) -> Result<To, String> {
    let expected = || "expected earliest, latest, an offset or a time such as 2026-01-31T12:00:00Z".to_owned();
    match text {
        "earliest" => Ok(To::Earliest),
        "latest" => Ok(To::Latest),
        _ => {
            let offset = text.parse().ok().map(To::Offset);
            offset.or_else(|| time::parse(text).map(To::Time)).ok_or_else(expected)
        }
    }
}

/// One partition, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    partition: u32,
    from: Offset,
    to: Offset,
    /// A shift would have led past the first event or the head, and ends there.
    clamped: Option<Clamped>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clamped {
    First,
    Head,
}

impl Move {
    /// To one end or the other of `bounds`, where a shift leads past it.
    fn shifted(at: &GroupPartition, by: i64, bounds: StreamPartition) -> Self {
        let asked = i128::from(at.committed.0) + i128::from(by);
        let (to, clamped) = match asked {
            _ if asked < i128::from(bounds.first.0) => (bounds.first, Some(Clamped::First)),
            _ if asked > i128::from(bounds.head.0) => (bounds.head, Some(Clamped::Head)),
            _ => (Offset(asked as u64), None),
        };
        Self { partition: at.partition, from: at.committed, to, clamped }
    }

    /// How many events are handed out a second time.
    fn again(&self) -> u64 {
        self.from.since(self.to)
    }

    /// How many events are never handed out.
    fn passed_over(&self) -> u64 {
        self.to.since(self.from)
    }

    /// Signed: negative is back.
    fn events(&self) -> i128 {
        i128::from(self.to.0) - i128::from(self.from.0)
    }

    fn row(&self) -> [String; 5] {
        let meaning = match self.events() {
            0 => "stays",
            1.. => "passed over",
            _ => "handled again",
        };
        let meaning = match self.clamped {
            None => meaning.to_owned(),
            Some(Clamped::First) => format!("{meaning}; no further back: the first event that is there"),
            Some(Clamped::Head) => format!("{meaning}; no further on: the head"),
        };
        let Self { partition, from, to, .. } = self;
        let events = if from == to { "0".to_owned() } else { format!("{:+}", self.events()) };
        [partition.to_string(), from.to_string(), to.to_string(), events, meaning]
    }
}

/// What a reset would do, and what stands against it.
struct Plan {
    moves: Vec<Move>,
    /// Members that are at work.
    active: Vec<String>,
    has_state: bool,
    /// Dead letters that stand in the way, in the store's words.
    letters: Option<String>,
    /// What the person should know besides.
    notes: Vec<String>,
}

/// Shows what a reset means; does it with `--execute`.
///
/// # Errors
/// An offset where there is no event and will be none next; with `--execute`, active members without `--force`, and state
/// without `--state`.
pub async fn reset(common: &Common, store: &dyn Store, args: &ResetArgs) -> anyhow::Result<()> {
    let group = find(store, &args.group).await?;
    let plan = plan(store, &group, args).await?;
    if args.execute {
        store.reset(&request(&plan.moves, args)).await?;
    }
    if common.json {
        output::json_line(&plan.json(&group, args))?;
    } else {
        plan.print(&group, args)?;
    }
    Ok(())
}

/// Whether any partition of a group holds state.
pub(super) async fn holds_state(store: &dyn Store, group: &GroupInfo) -> Result<bool, StoreError> {
    has_state(store, group, |_| true).await
}

/// A store says so when it is asked to check a reset that says nothing about state: one to the head, where no dead letters
/// are in the way.
async fn has_state(store: &dyn Store, group: &GroupInfo, is_meant: impl Fn(u32) -> bool) -> Result<bool, StoreError> {
    let meant = group.partitions.iter().filter(|at| is_meant(at.partition));
    let to = meant.map(|at| (at.partition, at.head)).collect();
    let check = Reset { group: group.name.clone(), to, clear_state: None, force: true, dry_run: true };
    match store.reset(&check).await {
        Ok(()) => Ok(false),
        Err(StoreError::HasState { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

fn request(moves: &[Move], args: &ResetArgs) -> Reset {
    Reset {
        group: args.group.clone(),
        to: targets(moves),
        clear_state: args.state.map(|choice| choice == StateChoice::Clear),
        force: args.force,
        dry_run: false,
    }
}

fn targets(moves: &[Move]) -> BTreeMap<u32, Offset> {
    moves.iter().map(|one| (one.partition, one.to)).collect()
}

async fn plan(store: &dyn Store, group: &GroupInfo, args: &ResetArgs) -> anyhow::Result<Plan> {
    let (moves, notes) = moves(store, group, args).await?;
    // The store knows best where there are events: it refuses here what it would refuse then.
    let check = Reset { clear_state: Some(false), force: true, dry_run: true, ..request(&moves, args) };
    let letters = match store.reset(&check).await {
        Err(error @ StoreError::HasLetters { .. }) => Some(error.to_string()),
        checked => checked.map(|()| None)?,
    };
    let has_state = has_state(store, group, |partition| moves.iter().any(|one| one.partition == partition)).await?;
    let active = group.consumers.iter().filter(|consumer| consumer.active).map(|consumer| consumer.host.clone());
    Ok(Plan { moves, active: active.collect(), has_state, letters, notes })
}

async fn moves(store: &dyn Store, group: &GroupInfo, args: &ResetArgs) -> anyhow::Result<(Vec<Move>, Vec<String>)> {
    let partitions = group.partitions.len() as u32;
    if let Some(partition) = args.partition.filter(|partition| *partition >= partitions) {
        let what = format!("group {:?}", group.name);
        return Err(StoreError::UnknownPartition { what, partition, partitions }.into());
    }
    let wanted = group.partitions.iter().filter(|at| args.partition.is_none_or(|partition| partition == at.partition));
    let wanted: Vec<&GroupPartition> = wanted.collect();
    if let Some(file) = &args.target.to_file {
        return from_file(&Positions::read(file, group)?, group, &wanted);
    }
    let streams = store.streams().await?;
    let bounds = streams.iter().find(|stream| stream.spec.name == group.stream).map(|stream| &*stream.partitions);
    let bounds = bounds.unwrap_or_default();
    let mut moves = Vec::new();
    for at in wanted {
        // A group has a position in every partition of its stream; at worst nothing is there.
        let nothing = StreamPartition { first: at.committed, head: at.head };
        let bounds = bounds.get(at.partition as usize).copied().unwrap_or(nothing);
        let to = match (args.target.to, args.target.shift_by) {
            (_, Some(by)) => {
                moves.push(Move::shifted(at, by, bounds));
                continue;
            }
            (Some(To::Latest), None) => bounds.head,
            (Some(To::Offset(offset)), None) => Offset(offset),
            (Some(To::Time(time)), None) => store.offset_at(&group.stream, at.partition, time).await?,
            (Some(To::Earliest) | None, None) => bounds.first,
        };
        moves.push(Move { partition: at.partition, from: at.committed, to, clamped: None });
    }
    Ok((moves, Vec::new()))
}

fn from_file(
    positions: &Positions,
    group: &GroupInfo,
    wanted: &[&GroupPartition],
) -> anyhow::Result<(Vec<Move>, Vec<String>)> {
    let (mut moves, mut missing) = (Vec::new(), Vec::new());
    for at in wanted {
        match positions.partitions.iter().find(|position| position.partition == at.partition) {
            Some(position) => {
                let to = position.committed();
                moves.push(Move { partition: at.partition, from: at.committed, to, clamped: None });
            }
            None => missing.push(at.partition.to_string()),
        }
    }
    if moves.is_empty() {
        bail!("the file has no position for any of the partitions to reset: {}", missing.join(", "));
    }
    let mut notes = Vec::new();
    if positions.group != group.name {
        notes.push(format!("the file has the positions of group {:?}, which reads the same stream", positions.group));
    }
    if !missing.is_empty() {
        notes.push(format!("not in the file, and so left where they are: partitions {}", missing.join(", ")));
    }
    Ok((moves, notes))
}

impl Plan {
    fn again(&self) -> u64 {
        self.moves.iter().map(Move::again).sum()
    }

    fn passed_over(&self) -> u64 {
        self.moves.iter().map(Move::passed_over).sum()
    }

    /// Why `--execute` would be refused.
    fn refusals(&self, args: &ResetArgs) -> Vec<String> {
        let mut refusals = Vec::new();
        if !self.active.is_empty() && !args.force {
            let members = self.active.join(", ");
            refusals.push(format!("members are active ({members}): stop them first, or say --force"));
        }
        if self.has_state && args.state.is_none() {
            refusals.push("these partitions hold state: say --state keep or --state clear".into());
        }
        refusals.extend(self.letters.clone());
        refusals
    }

    fn json(&self, group: &GroupInfo, args: &ResetArgs) -> Value {
        let moved = |one: &Move| {
            json!({
                "partition": one.partition,
                "from": one.from.0,
                "to": one.to.0,
                "events": one.events() as i64,
                "clamped": one.clamped.is_some(),
            })
        };
        json!({
            "group": group.name,
            "stream": group.stream,
            "executed": args.execute,
            "partitions": self.moves.iter().map(moved).collect::<Vec<_>>(),
            "again": self.again(),
            "passed_over": self.passed_over(),
            "active": self.active,
            "has_state": self.has_state,
            "state": args.state.map(state_word),
            "notes": self.notes,
            "refusals": if args.execute { Vec::new() } else { self.refusals(args) },
        })
    }

    fn print(&self, group: &GroupInfo, args: &ResetArgs) -> std::io::Result<()> {
        let heading = ["partition", "from", "to", "events", "meaning"];
        output::table(heading, self.moves.iter().map(Move::row), "no partitions")?;
        output::line("")?;
        let GroupInfo { name, stream, .. } = group;
        let (again, passed_over) = (self.again(), self.passed_over());
        output::line(format_args!(
            "group {name} on {stream}: {again} events handled again, {passed_over} passed over"
        ))?;
        for note in self.notes.iter().cloned().chain(self.meaning(args)) {
            output::line(format_args!("- {note}"))?;
        }
        if args.execute {
            return output::line("done: the group goes on from the new positions");
        }
        let refusals = self.refusals(args);
        for refusal in &refusals {
            output::line(format_args!("- {refusal}"))?;
        }
        match refusals.is_empty() {
            true => output::line("nothing was moved; --execute does it"),
            false => output::line("nothing was moved, and --execute would be refused as long as this is so"),
        }
    }

    /// What it means for state, and for members at work.
    fn meaning(&self, args: &ResetArgs) -> Vec<String> {
        let mut meaning = Vec::new();
        match args.state {
            _ if !self.has_state => {}
            Some(StateChoice::Keep) if self.again() > 0 => {
                meaning.push("state is kept: events that are handled again meet the state they already made".into());
            }
            Some(StateChoice::Keep) => meaning.push("state is kept".into()),
            Some(StateChoice::Clear) => meaning.push("state of these partitions is cleared".into()),
            None => {}
        }
        if args.force && !self.active.is_empty() {
            let members = self.active.join(", ");
            meaning.push(format!("members at work ({members}) are fenced: what they have in hand is not committed"));
        }
        meaning
    }
}

fn state_word(choice: StateChoice) -> &'static str {
    match choice {
        StateChoice::Keep => "keep",
        StateChoice::Clear => "clear",
    }
}

#[cfg(test)]
mod tests {
    use pelton_core::{Membership, NewEvent};
    use pelton_store::{GroupSpec, MemoryStore, Registration, Start, StreamSpec, system_clock};

    use super::*;
    use crate::cli::ResetTarget;

    /// A stream with one partition that has ten events, and a group at its head.
    async fn store() -> MemoryStore {
        let store = MemoryStore::new(system_clock());
        let spec = StreamSpec { name: "in".into(), partitions: 1, payload_bytes_max: 1024, retention_ms: None };
        store.declare_stream(&spec).await.expect("declared");
        let event = |n: u32| NewEvent {
            id: n.to_string(),
            key: None,
            kind: String::new(),
            headers: Vec::new(),
            payload: b"1".to_vec(),
        };
        store.append("in", (0..10).map(event).collect()).await.expect("appended");
        let (name, stream, handler) = ("work".into(), "in".into(), "h".into());
        store.declare_group(&GroupSpec { name, stream, handler, start: Start::Latest }).await.expect("declared");
        store
    }

    fn args(to: Option<To>, shift_by: Option<i64>) -> ResetArgs {
        ResetArgs {
            group: "work".into(),
            target: ResetTarget { to, shift_by, to_file: None },
            partition: None,
            state: None,
            execute: false,
            force: false,
        }
    }

    async fn planned(store: &MemoryStore, args: &ResetArgs) -> anyhow::Result<Plan> {
        let group = find(store, "work").await?;
        plan(store, &group, args).await
    }

    async fn target(to: Option<To>, shift_by: Option<i64>) -> (u64, Option<Clamped>) {
        let plan = planned(&store().await, &args(to, shift_by)).await.expect("planned");
        let [one] = plan.moves[..] else { panic!("{} moves", plan.moves.len()) };
        assert_eq!(one.from, Offset(10));
        (one.to.0, one.clamped)
    }

    #[test]
    fn a_target_is_a_word_an_offset_or_a_time() {
        assert_eq!(parse_to("earliest"), Ok(To::Earliest));
        assert_eq!(parse_to("latest"), Ok(To::Latest));
        assert_eq!(parse_to("120"), Ok(To::Offset(120)));
        assert_eq!(parse_to("2026-01-31T12:00:00Z"), Ok(To::Time(Timestamp(1_769_860_800_000))));
        for bad in ["", "-1", "yesterday", "1.5", "2026-01-31"] {
            assert!(parse_to(bad).is_err(), "{bad:?} passed");
        }
    }

    #[tokio::test]
    async fn every_target_leads_to_an_offset() {
        assert_eq!(target(Some(To::Earliest), None).await, (0, None));
        assert_eq!(target(Some(To::Latest), None).await, (10, None));
        assert_eq!(target(Some(To::Offset(3)), None).await, (3, None));
        assert_eq!(target(Some(To::Time(Timestamp(0))), None).await, (0, None));
        assert_eq!(target(Some(To::Time(Timestamp(u64::MAX))), None).await, (10, None));
    }

    #[tokio::test]
    async fn a_shift_ends_at_the_first_event_and_at_the_head() {
        assert_eq!(target(None, Some(-4)).await, (6, None));
        assert_eq!(target(None, Some(0)).await, (10, None));
        assert_eq!(target(None, Some(-11)).await, (0, Some(Clamped::First)));
        assert_eq!(target(None, Some(1)).await, (10, Some(Clamped::Head)));
        assert_eq!(target(None, Some(i64::MIN)).await, (0, Some(Clamped::First)));
        assert_eq!(target(None, Some(i64::MAX)).await, (10, Some(Clamped::Head)));
    }

    #[tokio::test]
    async fn an_offset_past_the_head_is_refused_with_the_range() {
        let error =
            planned(&store().await, &args(Some(To::Offset(11)), None)).await.err().expect("refused").to_string();
        assert!(error.contains("offset 11 lies outside 0 to 10"), "{error}");
    }

    #[tokio::test]
    async fn a_plan_moves_nothing_and_says_what_stands_against_it() {
        let store = store().await;
        let (group, session_timeout_ms, partitions_max) = ("work".into(), 30_000, 0);
        let memberships = vec![Membership { group, session_timeout_ms, partitions_max }];
        let host = Registration { host: "worker-1".into(), memberships, ..Registration::default() };
        store.register(&host).await.expect("registered");
        let mut args = args(Some(To::Earliest), None);
        let plan = planned(&store, &args).await.expect("planned");
        assert_eq!((plan.again(), plan.passed_over(), plan.has_state), (10, 0, false));
        assert_eq!(plan.refusals(&args), ["members are active (worker-1): stop them first, or say --force"]);
        args.force = true;
        assert_eq!(plan.refusals(&args), [""; 0]);
        assert_eq!(
            plan.meaning(&args),
            ["members at work (worker-1) are fenced: what they have in hand is not committed"]
        );
        let group = find(&store, "work").await.expect("there");
        assert_eq!(group.partitions[0].committed, Offset(10));
    }
}
