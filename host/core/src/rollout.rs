//! Which version of a handler answers: one row in the store that all hosts go by, and what may be done to it.
//!
//! A *proposal* is an edge, not a level: a file that changes proposes its module once. What lies in a file for long asks for
//! nothing, or two hosts with different files would overrule each other for ever, and what was rolled back would come
//! back. Every change makes a new row from an old one; a store takes it only over the revision it was made from.

#[cfg(test)]
mod tests;

use crate::Timestamp;

/// Versions of a handler that are remembered.
pub const VERSIONS_MAX: usize = 50;

/// Of how many versions that answered before the present one the module itself is kept, for going back.
pub const MODULES_KEPT: usize = 5;

/// Which version of a handler answers, and which ones did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The handler.
    pub handler: String,
    /// Grows by one with every change; 0 before the first.
    pub revision: u64,
    /// The digest of the version that answers; `None` before the first one was loaded.
    pub live: Option<String>,
    /// A version that is tried in some partitions before it is live.
    pub trial: Option<Trial>,
    /// Whether somebody has pinned what is live: nothing is proposed until it is unpinned.
    pub pinned: bool,
    /// What is known of versions, the one that was proposed last at the end; each digest once.
    pub versions: Vec<VersionRecord>,
}

/// A canary: a version that answers in some partitions until a time, and everywhere after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its digest.
    pub digest: String,
    /// Since when.
    pub since: Timestamp,
    /// It is live from then on, unless it is rolled back before.
    pub until: Timestamp,
    /// In how many partitions of each group, from 0 on.
    pub partitions: u32,
}

/// What is known of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRecord {
    /// The digest of its module: `sha256:…`.
    pub digest: String,
    /// The size of its module, in bytes.
    pub bytes: u64,
    /// Which host proposed it.
    pub host: String,
    /// When it was proposed last.
    pub proposed_at: Timestamp,
    /// Since when it is live, or was last; `None` if it never was.
    pub live_at: Option<Timestamp>,
    /// What became of it.
    pub fate: Fate,
    /// Why it was rolled back, if it was.
    pub reason: Option<String>,
    /// Whether the module itself is kept, for going back. What was let go of comes back only with a file.
    pub kept: bool,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It answers.
    Live,
    /// It is tried in some partitions.
    Trial,
    /// Another one took its place.
    Superseded,
    /// It was taken back. No file brings it back; somebody may, by hand.
    RolledBack,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 4] = [Self::Live, Self::Trial, Self::Superseded, Self::RolledBack];

    /// Its name, in tables and in stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Trial => "canary",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled-back",
        }
    }

    /// The fate of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fate| fate.as_str() == name)
    }
}

/// How a new version is tried before it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// In how many partitions of each group; at least 1.
    pub partitions: u32,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// A module that a host has loaded and found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its digest.
    pub digest: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Who proposes it.
    pub host: String,
    /// How it is tried first, if at all. What is the handler's first version is live at once.
    pub canary: Option<Canary>,
    /// What made the host look at the file.
    pub found: Found,
}

/// How a module file came to be proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The file changed while the host ran: somebody wants what is in it.
    Changed,
    /// It was there when the host started. What was superseded is taken for an old copy, unless no other host is there
    /// that could have newer.
    AtStart {
        /// Whether no other host is there.
        alone: bool,
    },
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is as asked already.
    #[error("it is so already")]
    Already,
    /// It was taken back before.
    #[error(
        "{digest} was rolled back ({reason}) and is not taken from a file again; `pelton handler rollback {handler} --to {digest}` brings it back all the same"
    )]
    RolledBack {
        /// Whose.
        handler: String,
        /// Which.
        digest: String,
        /// Why it was.
        reason: String,
    },
    /// Another one is pinned.
    #[error("{live} is pinned; `pelton handler pin {handler} --off` lets new versions in")]
    Pinned {
        /// Whose.
        handler: String,
        /// Which one is.
        live: String,
    },
    /// An old copy.
    #[error(
        "{digest} was superseded by {live}, which other hosts run; `pelton handler rollback {handler} --to {digest}` goes back to it"
    )]
    Superseded {
        /// Whose.
        handler: String,
        /// Which.
        digest: String,
        /// By which.
        live: String,
    },
    /// Nothing of this digest.
    #[error(
        "no version {digest} of handler {handler:?} is known; `pelton handler history {handler}` shows those that are"
    )]
    Unknown {
        /// Whose.
        handler: String,
        /// Which.
        digest: String,
    },
    /// Several begin like this.
    #[error("several versions of handler {handler:?} begin with {digest}; give more of it")]
    Ambiguous {
        /// Whose.
        handler: String,
        /// What was given.
        digest: String,
    },
    /// Its module was let go of.
    #[error("the module of {digest} is not kept any more; put its file back instead")]
    NotKept {
        /// Which.
        digest: String,
    },
    /// Nothing to go back to.
    #[error("handler {handler:?} has no version before this one to go back to")]
    NoneBefore {
        /// Whose.
        handler: String,
    },
}

impl Rollout {
    /// A handler of which no version is known.
    #[must_use]
    pub fn of(handler: &str) -> Self {
        Self { handler: handler.into(), ..Self::default() }
    }

    /// The digest that answers in a partition.
    #[must_use]
    pub fn version_for(&self, partition: u32) -> Option<&str> {
        match &self.trial {
            Some(trial) if partition < trial.partitions => Some(&trial.digest),
            _ => self.live.as_deref(),
        }
    }

    /// What is known of a version.
    #[must_use]
    pub fn version(&self, digest: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.digest == digest)
    }

    /// The version to go back to: of those that were live and not taken back, the one that was so last.
    #[must_use]
    pub fn previous(&self) -> Option<&VersionRecord> {
        let may_come_back = |version: &&VersionRecord| version.fate == Fate::Superseded && version.kept;
        let before = self.versions.iter().filter(may_come_back).filter(|version| version.live_at.is_some());
        before.max_by_key(|version| version.live_at)
    }

    /// The version that is new, and since when it answers: a trial, or what is live if it was proposed last of all and
    /// another one is there to go back to. One that was gone back to has proved itself before, and what is pinned stays.
    #[must_use]
    pub fn newcomer(&self) -> Option<(&str, Timestamp)> {
        if let Some(trial) = &self.trial {
            return Some((&trial.digest, trial.since));
        }
        let last = self.versions.last().filter(|last| last.fate == Fate::Live && !self.pinned)?;
        self.previous()?;
        Some((&last.digest, last.live_at?))
    }

    /// The digests of which the module is kept: what answers, and what may be gone back to.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        self.versions.iter().filter(|version| version.kept).map(|version| &*version.digest)
    }

    /// The version whose digest is this, or begins so; with or without `sha256:`.
    ///
    /// # Errors
    /// If there is none, or several.
    pub fn find(&self, digest: &str) -> Result<&VersionRecord, Refusal> {
        let (handler, digits) = (self.handler.clone(), digest.strip_prefix("sha256:").unwrap_or(digest));
        let begins = |version: &&VersionRecord| {
            version.digest.strip_prefix("sha256:").unwrap_or(&version.digest).starts_with(digits)
        };
        let mut found = self.versions.iter().filter(begins);
        match (found.next(), found.next()) {
            (Some(version), None) if !digits.is_empty() => Ok(version),
            (Some(_), Some(_)) => Err(Refusal::Ambiguous { handler, digest: digest.into() }),
            _ => Err(Refusal::Unknown { handler, digest: digest.into() }),
        }
    }

    /// Whether a file with this module may be proposed: what costs nothing to know before it is compiled.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, digest: &str, found: Found) -> Result<(), Refusal> {
        let (handler, digest) = (self.handler.clone(), digest.to_owned());
        let Some(live) = &self.live else { return Ok(()) };
        if self.trial.as_ref().is_some_and(|trial| trial.digest == digest) {
            return Err(Refusal::Already);
        }
        if *live == digest {
            // Who puts the old file back does not want what is tried.
            let ends_trial = self.trial.is_some() && found == Found::Changed && !self.pinned;
            return if ends_trial { Ok(()) } else { Err(Refusal::Already) };
        }
        let known = self.version(&digest);
        if let Some(version) = known.filter(|version| version.fate == Fate::RolledBack) {
            let reason = version.reason.clone().unwrap_or_default();
            return Err(Refusal::RolledBack { handler, digest, reason });
        }
        if self.pinned {
            return Err(Refusal::Pinned { handler, live: live.clone() });
        }
        if known.is_some() && found == (Found::AtStart { alone: false }) {
            return Err(Refusal::Superseded { handler, digest, live: live.clone() });
        }
        Ok(())
    }

    /// A host proposes a version.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn propose(&self, proposal: &Proposal, now: Timestamp) -> Result<Self, Refusal> {
        self.admits(&proposal.digest, proposal.found)?;
        let mut next = self.next();
        next.end_trial(Fate::Superseded, None);
        if self.live.as_ref() == Some(&proposal.digest) {
            next.let_go();
            return Ok(next);
        }
        next.versions.retain(|version| version.digest != proposal.digest);
        let before = self.version(&proposal.digest);
        next.versions.push(VersionRecord {
            digest: proposal.digest.clone(),
            bytes: proposal.bytes,
            host: proposal.host.clone(),
            proposed_at: now,
            live_at: before.and_then(|version| version.live_at),
            fate: Fate::Superseded,
            reason: None,
            kept: true,
        });
        match proposal.canary.filter(|_| self.live.is_some()) {
            Some(Canary { partitions, for_ms }) => {
                next.settle(&proposal.digest, Fate::Trial, None);
                let until = Timestamp(now.0.saturating_add(for_ms));
                next.trial = Some(Trial { digest: proposal.digest.clone(), since: now, until, partitions });
            }
            None => next.make_live(&proposal.digest, now),
        }
        next.forget_oldest();
        next.let_go();
        Ok(next)
    }

    /// A trial that is over makes its version live; `None` if there is none that is.
    #[must_use]
    pub fn promote(&self, now: Timestamp) -> Option<Self> {
        let trial = self.trial.as_ref().filter(|trial| trial.until <= now)?;
        let mut next = self.next();
        next.trial = None;
        next.make_live(&trial.digest, now);
        next.let_go();
        Some(next)
    }

    /// Takes a version back that misbehaves: a trial ends, and what is live makes way for the one before it.
    ///
    /// # Errors
    /// If it does not answer any more, is pinned, or nothing is there to go back to.
    pub fn take_back(&self, digest: &str, reason: &str, now: Timestamp) -> Result<Self, Refusal> {
        let handler = self.handler.clone();
        let mut next = self.next();
        if self.trial.as_ref().is_some_and(|trial| trial.digest == digest) {
            next.end_trial(Fate::RolledBack, Some(reason));
            next.let_go();
            return Ok(next);
        }
        if self.live.as_deref() != Some(digest) {
            return Err(Refusal::Already);
        }
        if self.pinned {
            return Err(Refusal::Pinned { handler, live: digest.into() });
        }
        let previous = self.previous().ok_or(Refusal::NoneBefore { handler })?.digest.clone();
        next.make_live(&previous, now);
        next.settle(digest, Fate::RolledBack, Some(reason));
        next.let_go();
        Ok(next)
    }

    /// Somebody goes back to a version, or to the one before: what answered is taken back, whatever was pinned.
    ///
    /// # Errors
    /// If there is no such version, its module is not there any more, or it is live and nothing is tried beside it.
    pub fn go_back(&self, to: Option<&str>, now: Timestamp) -> Result<Self, Refusal> {
        let handler = self.handler.clone();
        let by_hand = Some("by hand");
        let to = match to {
            Some(digest) => self.find(digest)?,
            // Without a name, what is tried is what is meant.
            None if self.trial.is_some() => match self.live.as_deref().and_then(|live| self.version(live)) {
                Some(live) => live,
                None => return Err(Refusal::NoneBefore { handler }),
            },
            None => self.previous().ok_or(Refusal::NoneBefore { handler })?,
        };
        let to = to.digest.clone();
        if self.live.as_ref() == Some(&to) && self.trial.is_none() {
            return Err(Refusal::Already);
        }
        if self.version(&to).is_none_or(|version| !version.kept) {
            return Err(Refusal::NotKept { digest: to });
        }
        let mut next = self.next();
        if self.trial.as_ref().is_some_and(|trial| trial.digest == to) {
            next.trial = None;
        } else {
            next.end_trial(Fate::RolledBack, by_hand);
        }
        if let Some(live) = self.live.as_ref().filter(|live| **live != to) {
            next.make_live(&to, now);
            next.settle(live, Fate::RolledBack, by_hand);
        }
        next.let_go();
        Ok(next)
    }

    /// Somebody pins what is live, or a version that is live from now on; or takes the pin away.
    ///
    /// # Errors
    /// As [`Self::go_back`].
    pub fn pin(&self, to: Option<&str>, pinned: bool, now: Timestamp) -> Result<Self, Refusal> {
        let handler = self.handler.clone();
        let Some(live) = &self.live else { return Err(Refusal::NoneBefore { handler }) };
        let digest = to.map(|to| self.find(to)).transpose()?.map_or(live, |version| &version.digest);
        let mut next = match self.go_back(Some(digest), now) {
            Ok(next) => next,
            Err(Refusal::Already) if self.pinned == pinned => return Err(Refusal::Already),
            Err(Refusal::Already) => self.next(),
            Err(refusal) => return Err(refusal),
        };
        next.pinned = pinned;
        Ok(next)
    }

    fn next(&self) -> Self {
        Self { revision: self.revision + 1, ..self.clone() }
    }

    fn make_live(&mut self, digest: &str, now: Timestamp) {
        if let Some(live) = self.live.take().filter(|live| live != digest) {
            self.settle(&live, Fate::Superseded, None);
        }
        self.settle(digest, Fate::Live, None);
        // Whoever's clock it is, what comes later is later: the order says what to go back to.
        let last = self.versions.iter().filter_map(|version| version.live_at).max();
        let now = last.map_or(now, |last| now.max(last.plus_ms(1)));
        if let Some(version) = self.versions.iter_mut().find(|version| version.digest == digest) {
            version.live_at = Some(now);
        }
        self.live = Some(digest.into());
    }

    fn end_trial(&mut self, fate: Fate, reason: Option<&str>) {
        if let Some(trial) = self.trial.take() {
            self.settle(&trial.digest, fate, reason);
        }
    }

    fn settle(&mut self, digest: &str, fate: Fate, reason: Option<&str>) {
        if let Some(version) = self.versions.iter_mut().find(|version| version.digest == digest) {
            version.fate = fate;
            version.reason = reason.map(Into::into);
        }
    }

    /// Lets go of the modules of versions that so many others come before.
    fn let_go(&mut self) {
        let rests = |version: &&mut VersionRecord| matches!(version.fate, Fate::Superseded | Fate::RolledBack);
        let mut before: Vec<_> = self.versions.iter_mut().filter(rests).filter(|version| version.kept).collect();
        // What may be gone back to without a word stays longest; then what was live, and what came last.
        before.sort_by_key(|version| {
            std::cmp::Reverse((version.fate == Fate::Superseded, version.live_at, version.proposed_at))
        });
        before.into_iter().skip(MODULES_KEPT).for_each(|version| version.kept = false);
    }

    fn forget_oldest(&mut self) {
        while self.versions.len() > VERSIONS_MAX {
            let rests = |version: &VersionRecord| matches!(version.fate, Fate::Superseded | Fate::RolledBack);
            let Some(oldest) = self.versions.iter().position(rests) else { return };
            self.versions.remove(oldest);
        }
    }
}

/// What a new version may do wrong, in each host's own eyes, before the one before it comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Calls that the sandbox had to end: traps, time-outs, too much memory or output. So many are too many; 0 for any
    /// number.
    pub traps: u32,
    /// Failed calls among all, 0 to 1, that are too many; above 1 none ever are.
    pub errors: f64,
    /// Calls before `errors` is looked at.
    pub calls: u32,
    /// For how long it is watched, in milliseconds.
    pub watch_ms: u64,
}

impl Default for Tolerance {
    /// 3 traps, or half of at least 20 calls, within 10 minutes.
    fn default() -> Self {
        Self { traps: 3, errors: 0.5, calls: 20, watch_ms: 600_000 }
    }
}

/// What a host saw of a version since it took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events handled, and calls that failed.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Of these, those that the sandbox had to end.
    pub traps: u64,
}

impl Tolerance {
    /// Why a version has to go, if it has.
    #[must_use]
    pub fn exceeded(&self, seen: Seen) -> Option<String> {
        let Seen { calls, failures, traps } = seen;
        if self.traps > 0 && traps >= u64::from(self.traps) {
            return Some(format!("{traps} of its first {calls} calls ended in a trap, a time-out or at a limit"));
        }
        let share = failures as f64 / calls.max(1) as f64;
        let many = calls >= u64::from(self.calls.max(1)) && share >= self.errors;
        many.then(|| format!("{failures} of its first {calls} calls failed"))
    }
}
