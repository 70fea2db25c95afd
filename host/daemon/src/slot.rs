//! A handler of `workers.toml` on this host: which versions of it are loaded, which answer, and what became of its file.
//!
//! What answers follows from the rollout, which all hosts share; a file only proposes. A version that did too much wrong
//! makes way here at once, before the store was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use pelton_core::{Filter, Found, Proposal, Rollout, Timestamp};
use pelton_sandbox::{Grants, HttpGrant, Limits, Module, Usage, World};
use pelton_store::{HandlerReport, HandlerState, StreamSpec};
use tokio::{sync::Notify, task::AbortHandle};
use tracing::{error, info, warn};

use crate::{
    config::{GroupConfig, HandlerConfig},
    files::Stamp,
    group::Versions,
    handler::{Calls, Version, WasmVersion},
    modules::{Fault, Fresh, Loaded, Loader, Order, Source, check_world, grants_of, groups_of, manual_groups},
};

/// The wait before a version that could not be loaded is tried again: at first, and at most.
const LOAD_AGAIN_MIN_MS: u64 = 1_000;
const LOAD_AGAIN_MAX_MS: u64 = 300_000;
/// The wait before a file is proved again that could not be for want of the store.
const PROVE_AGAIN_MS: u64 = 5_000;

/// A handler on this host. A module that is refused never replaces one that works.
pub(crate) struct HandlerSlot {
    name: String,
    config: HandlerConfig,
    /// Groups that want it to say itself when to commit.
    manual: Vec<String>,
    /// All groups that it serves: name, stream and filter.
    groups: Vec<(String, String, Filter)>,
    grants: Grants,
    calls: Arc<Calls>,
    usage: Arc<Usage>,
    /// Told when a version has done too much wrong.
    alarm: Arc<Notify>,
    /// What the store said last.
    rollout: Rollout,
    /// Modules that are loaded, by digest.
    ready: BTreeMap<String, Module>,
    /// Versions that did too much wrong, and what, until the rollout has done without them.
    condemned: BTreeMap<String, Guilt>,
    answering: Option<Answering>,
    /// Why the newest file was refused, if it was.
    refused: Option<String>,
    /// Why a version that is to answer could not be loaded here, by digest.
    unloadable: BTreeMap<String, Unloadable>,
    /// Versions that are being loaded from the store.
    loading: BTreeSet<String>,
    stamps: Option<Stamps>,
    /// How the file came to be as it is, as of the last look.
    found: Found,
    /// The digest of what lay in it then.
    file_digest: Option<String>,
    /// When the file is to be loaded again, if it is.
    load_again_at: Option<Timestamp>,
    /// The load from a file that was begun last; an older one that ends later does not count. 0 before the first.
    serial: u64,
    file_load: Option<AbortHandle>,
    /// Whether nothing has come of that load yet.
    file_loading: bool,
    /// What came of the first file is known.
    looked: bool,
    pending: Option<Pending>,
}

/// The module's file, and those of its self-test.
type Stamps = [Option<Stamp>; 3];

/// Whether a handler's file is to be loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    /// What is asked of it is something else now.
    SameFile,
    OtherFile,
}

/// A version that could not be loaded, and is tried again.
struct Unloadable {
    reason: String,
    tries: u32,
    again_at: Timestamp,
}

impl Unloadable {
    /// Once more after a second, and later ever more seldom: a store that was away comes back, a module that is none stays so.
    fn new(reason: String, tries: u32, now: Timestamp) -> Self {
        let wait_ms = LOAD_AGAIN_MIN_MS.saturating_mul(1 << tries.min(16)).min(LOAD_AGAIN_MAX_MS);
        Self { reason, tries: tries.saturating_add(1), again_at: now.plus_ms(wait_ms) }
    }

    /// Nothing but another grant helps.
    fn until_granted(reason: String) -> Self {
        Self { reason, tries: 0, again_at: Timestamp(u64::MAX) }
    }
}

/// What a version did wrong.
struct Guilt {
    reason: String,
    /// Whether the store was asked to take the version back, and has not answered yet.
    asked: bool,
}

/// What answers on this host.
struct Answering {
    versions: Versions,
    worlds: Vec<World>,
    /// Since when the live one does.
    since: Timestamp,
}

/// A proposal that the store has not answered yet.
pub(crate) struct Pending {
    pub(crate) proposal: Proposal,
    pub(crate) module: Arc<[u8]>,
    asked: bool,
}

impl HandlerSlot {
    pub(crate) fn new(name: &str, config: HandlerConfig, alarm: Arc<Notify>) -> Self {
        Self {
            name: name.into(),
            config,
            manual: Vec::new(),
            groups: Vec::new(),
            grants: Grants::nothing(name),
            calls: Arc::default(),
            usage: Arc::default(),
            alarm,
            rollout: Rollout::of(name),
            ready: BTreeMap::new(),
            condemned: BTreeMap::new(),
            answering: None,
            refused: None,
            unloadable: BTreeMap::new(),
            loading: BTreeSet::new(),
            stamps: None,
            found: Found::AtStart { alone: false },
            file_digest: None,
            load_again_at: None,
            serial: 0,
            file_load: None,
            file_loading: false,
            looked: false,
            pending: None,
        }
    }

    /// What the store said last of its versions.
    pub(crate) fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// The versions that answer.
    pub(crate) fn versions(&self) -> Option<&Versions> {
        self.answering.as_ref().map(|answering| &answering.versions)
    }

    /// The worlds of the versions that answer.
    pub(crate) fn worlds(&self) -> &[World] {
        self.answering.as_ref().map_or(&[], |answering| &answering.worlds)
    }

    /// Why the newest file was refused, or what is to answer cannot be loaded.
    pub(crate) fn refusal(&self) -> Option<&str> {
        // What is live, and what is tried.
        let answers = 1 + usize::from(self.rollout.trial.is_some());
        let unloadable = self.wanted().into_iter().take(answers).find_map(|digest| self.unloadable.get(&digest));
        self.refused.as_deref().or(unloadable.map(|unloadable| &*unloadable.reason))
    }

    /// Whether it is not known yet if the handler can work at all, and in which version.
    pub(crate) fn is_loading(&self) -> bool {
        self.answering.is_none() && (self.is_undecided() || !self.loading.is_empty())
    }

    /// Whether what comes of the first file may still change what is to answer.
    fn is_undecided(&self) -> bool {
        !self.looked || self.pending.is_some()
    }

    /// Takes over what `workers.toml` says, and whether the file has to be loaded again for it.
    pub(crate) fn reconfigure(
        &mut self,
        config: &HandlerConfig,
        groups: &BTreeMap<String, GroupConfig>,
        streams: &BTreeMap<String, StreamSpec>,
    ) -> Again {
        let grants = grants_of(&self.name, config, streams);
        let was_refused = self.refusal().is_some();
        let manual = manual_groups(&self.name, groups);
        self.groups = groups_of(&self.name, groups);
        let before = (mem::replace(&mut self.config, config.clone()), mem::replace(&mut self.manual, manual));
        let other_file = self.serial == 0 || before.0.module != config.module;
        let was_refused = was_refused && before != (self.config.clone(), self.manual.clone());
        if was_refused {
            self.unloadable.clear();
        }
        if self.grants != grants {
            self.grants = grants;
            self.regrant();
        }
        match (other_file, was_refused || before.0.digest != config.digest) {
            (true, _) => Again::OtherFile,
            (false, true) => Again::SameFile,
            (false, false) => Again::No,
        }
    }

    /// The same modules, allowed something else.
    fn regrant(&mut self) {
        let loaded = !self.ready.is_empty();
        for (digest, module) in mem::take(&mut self.ready) {
            // The stack is that of an engine: with another one it is loaded anew, and goes on with the old one until then.
            let stack_bytes = module.grants().limits.stack_bytes;
            let limits = Limits { stack_bytes, ..self.grants.limits };
            let grants = Grants { limits, ..self.grants.clone() };
            match module.regrant(grants.clone()) {
                Ok(module) => drop(self.ready.insert(digest, module)),
                Err(reason) => {
                    let reason = format!("version {digest}: {reason}");
                    error!(
                        handler = self.name,
                        reason, "what the handler is granted now does not suffice for it; it goes on without"
                    );
                    // What was taken away is gone at once, whatever becomes of the handler for it.
                    let denied = Grants { http: HttpGrant::Origins(Vec::new()), ..grants };
                    self.ready.extend(module.regrant(denied).ok().map(|module| (digest.clone(), module)));
                    self.unloadable.insert(digest, Unloadable::until_granted(reason));
                }
            }
        }
        if loaded {
            info!(handler = self.name, "handler has new grants and limits");
        }
    }

    /// Looks at its files, and starts loading the module if one is another than at the last look. A file that is gone
    /// changes nothing. Only another module is something that somebody wants; beside another self-test it is what it was.
    pub(crate) async fn look_at_file(&mut self, loader: &Loader) {
        let mut stamps = Stamps::default();
        for (stamp, path) in stamps.iter_mut().zip(files_of(&self.config.module)) {
            *stamp = Stamp::of(&path).await;
        }
        if stamps[0].is_some() && self.stamps.as_ref() != Some(&stamps) {
            if self.stamps.as_ref().is_none_or(|before| before[0] != stamps[0]) {
                self.found = Found::Changed;
            }
            self.stamps = Some(stamps);
            self.load_file(loader);
        }
    }

    /// The handler is new here, or its file is another one: how what lies there is to be taken.
    pub(crate) async fn meet_file(&mut self, found: Found, loader: &Loader) {
        for (stamp, path) in self.stamps.insert(Stamps::default()).iter_mut().zip(files_of(&self.config.module)) {
            *stamp = Stamp::of(&path).await;
        }
        self.found = found;
        self.load_file(loader);
    }

    /// Loads the file once more if it is time for that, and what else could not be loaded.
    pub(crate) fn try_again(&mut self, loader: &Loader, now: Timestamp) {
        if self.load_again_at.take_if(|at| *at <= now).is_some() {
            self.load_file(loader);
        }
    }

    /// Starts loading the file.
    pub(crate) fn load_file(&mut self, loader: &Loader) {
        let (serial, load) = loader.start(self.order(Source::File(self.found)));
        self.serial = serial;
        self.file_loading = true;
        if let Some(outdated) = self.file_load.replace(load) {
            outdated.abort();
        }
    }

    fn order(&self, source: Source) -> Order {
        Order {
            handler: self.name.clone(),
            config: self.config.clone(),
            grants: self.grants.clone(),
            manual: self.manual.clone(),
            usage: Arc::clone(&self.usage),
            source,
            rollout: self.rollout.clone(),
            ready: self.ready.clone(),
            groups: self.groups.clone(),
        }
    }

    // --- The rollout ----------------------------------------------------------------------------------------------

    /// Takes what the store says, unless something newer is known.
    pub(crate) fn take_rollout(&mut self, rollout: &Rollout) {
        if rollout.revision < self.rollout.revision {
            return;
        }
        if self.rollout.pinned && !rollout.pinned && self.refused.is_some() {
            // Perhaps for the pin.
            self.load_again_at = Some(Timestamp::default());
        }
        self.rollout = rollout.clone();
    }

    /// Takes what came of a load.
    pub(crate) fn take_loaded(&mut self, loaded: Loaded, host: &str, now: Timestamp) {
        let Loaded { serial, source, result, .. } = loaded;
        match source {
            Source::File(_) if serial != self.serial => {}
            Source::File(found) => self.take_file(result, found, host, now),
            Source::Stored(digest) => {
                self.loading.remove(&digest);
                match result {
                    Ok(fresh) => self.keep(fresh.module, "the store"),
                    Err(Fault { reason, .. }) => {
                        error!(
                            handler = self.name,
                            reason, "a version that is to answer cannot be loaded here; trying again"
                        );
                        let tries = self.unloadable.get(&digest).map_or(0, |before| before.tries);
                        self.unloadable.insert(digest, Unloadable::new(reason, tries, now));
                    }
                }
            }
        }
    }

    fn take_file(&mut self, result: Result<Fresh, Fault>, found: Found, host: &str, now: Timestamp) {
        (self.looked, self.file_loading) = (true, false);
        // What was asked of it may have changed while it was loaded.
        let result = result.and_then(|fresh| {
            check_world(fresh.module.world(), &self.manual)
                .map_err(|reason| Fault::from(format!("module {}: {reason}", self.config.module.display())))?;
            Ok(fresh)
        });
        // Whatever was to be proposed and was not: this file is newer.
        self.pending = self.pending.take().filter(|pending| pending.asked);
        let passes = result.as_ref().is_err_and(|fault| fault.passes);
        self.load_again_at = passes.then(|| now.plus_ms(PROVE_AGAIN_MS));
        if !passes {
            // It was taken note of. Whenever it is loaded again, it is what lies there, and no change.
            self.found = Found::AtStart { alone: false };
        }
        let Fresh { module, bytes, is_new } = match result {
            Ok(fresh) => fresh,
            Err(Fault { reason, .. }) => {
                self.file_digest = None;
                return self.refuse(reason);
            }
        };
        self.refused = None;
        self.file_digest = Some(module.digest().to_string());
        if is_new {
            let proposal = Proposal {
                digest: module.digest().to_string(),
                bytes: bytes.len() as u64,
                host: host.into(),
                canary: self.config.rollout.canary,
                found,
            };
            self.pending = Some(Pending { proposal, module: bytes, asked: false });
        }
        let file = self.config.module.display().to_string();
        self.keep(module, &file);
    }

    /// The newest file is not taken.
    pub(crate) fn refuse(&mut self, reason: String) {
        match self.versions() {
            Some(versions) => {
                let goes_on = versions.live.digest();
                error!(handler = self.name, reason, goes_on, "module refused; the old one goes on");
            }
            None => error!(handler = self.name, reason, "module refused; its groups wait for one that works"),
        }
        self.refused = Some(reason);
    }

    fn keep(&mut self, module: Module, from: &str) {
        if module.grants().limits.stack_bytes != self.grants.limits.stack_bytes {
            // It was changed while the module was loaded, which has the other one's engine: it is loaded once more.
            return;
        }
        let module = if **module.grants() == self.grants { Ok(module) } else { module.regrant(self.grants.clone()) };
        match module {
            Ok(module) => {
                let digest = module.digest().to_string();
                self.unloadable.remove(&digest);
                if !self.ready.contains_key(&digest) {
                    info!(handler = self.name, digest, from, "module loaded");
                }
                self.ready.insert(digest, module);
            }
            Err(reason) => warn!(handler = self.name, %reason, "what was granted changed while the module was loaded"),
        }
    }

    /// What is to be proposed and was not yet; it counts as asked from now on.
    pub(crate) fn next_proposal(&mut self) -> Option<(Proposal, Arc<[u8]>)> {
        let pending = self.pending.as_mut().filter(|pending| !pending.asked)?;
        pending.asked = true;
        Some((pending.proposal.clone(), Arc::clone(&pending.module)))
    }

    /// The store has answered a proposal, or not; then it is made once more.
    pub(crate) fn proposed(&mut self, digest: &str, is_answered: bool) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.proposal.digest == digest) {
            pending.asked = false;
            if is_answered {
                self.pending = None;
            }
        }
        if is_answered && self.file_digest.as_deref() != Some(digest) {
            // The file was changed while the store was asked: it is looked at as if just now.
            self.stamps = None;
        }
    }

    /// Whether a canary has had its time.
    pub(crate) fn is_trial_over(&self, now: Timestamp) -> bool {
        self.rollout.trial.as_ref().is_some_and(|trial| trial.until <= now)
    }

    /// Looks at what answers. A version that did too much wrong does not answer here any more, if there is another one.
    pub(crate) fn condemn(&mut self) {
        let Some(Answering { versions, .. }) = &self.answering else { return };
        for version in versions.each() {
            let is_free = self.config.digest.is_none() && !self.rollout.pinned;
            if let Some(reason) = version.calls().verdict().filter(|_| is_free) {
                let (digest, reason) = (version.digest().to_owned(), reason.to_owned());
                if !self.condemned.contains_key(&digest) {
                    warn!(handler = self.name, digest, reason, "a new version is taken back");
                    self.condemned.insert(digest, Guilt { reason, asked: false });
                }
            }
        }
    }

    /// A version that the store is to take back, and what it did; it counts as asked from now on.
    pub(crate) fn next_to_take_back(&mut self) -> Option<(String, String)> {
        let (digest, guilt) = self.condemned.iter_mut().find(|(_, guilt)| !guilt.asked)?;
        guilt.asked = true;
        Some((digest.clone(), guilt.reason.clone()))
    }

    /// The store did not answer: it is asked again.
    pub(crate) fn not_taken_back(&mut self, digest: &str) {
        if let Some(guilt) = self.condemned.get_mut(digest) {
            guilt.asked = false;
        }
    }

    /// It cannot be done without: nothing is there to go back to, or it is pinned.
    pub(crate) fn acquit(&mut self, digest: &str) {
        self.condemned.remove(digest);
    }

    // --- What answers ---------------------------------------------------------------------------------------------

    /// The digests that are needed here: what is live first, then what is tried, then what may be gone back to at once.
    fn wanted(&self) -> Vec<String> {
        if let Some(pinned) = &self.config.digest {
            return vec![pinned.clone()];
        }
        let Rollout { live, trial, .. } = &self.rollout;
        let previous = self.rollout.previous().map(|version| version.digest.clone());
        live.clone().into_iter().chain(trial.as_ref().map(|trial| trial.digest.clone())).chain(previous).collect()
    }

    /// Loads what is needed, and lets go of what is not. Then says what answers from now on, if that is something else.
    pub(crate) fn settle(&mut self, loader: &Loader, now: Timestamp) -> Option<Versions> {
        let wanted = self.wanted();
        let pending = self.pending.as_ref().map(|pending| pending.proposal.digest.clone());
        let answers = |digest: &str| {
            let mut answering = self.answering.iter().flat_map(|answering| answering.versions.each());
            answering.any(|version| version.digest() == digest)
        };
        // What answers goes on, and its groups with the settings that they have. Nothing else may take over that cannot do
        // what is asked.
        let fits = |digest: &str, module: &Module| check_world(module.world(), &self.manual).is_ok() || answers(digest);
        let is_wanted = |digest: &String| wanted.contains(digest) || pending.as_ref() == Some(digest);
        self.ready.retain(|digest, module| is_wanted(digest) && fits(digest, module));
        self.unloadable.retain(|digest, _| wanted.contains(digest));
        for digest in &wanted {
            let waits = self.unloadable.get(digest).is_some_and(|unloadable| unloadable.again_at > now);
            let stack_bytes = self.grants.limits.stack_bytes;
            let is_ready =
                self.ready.get(digest).is_some_and(|module| module.grants().limits.stack_bytes == stack_bytes);
            let known = is_ready || waits;
            // A file comes first at the start: mostly it is what is wanted.
            let may_come = !self.looked && self.answering.is_none();
            if !known && !may_come && self.loading.insert(digest.clone()) {
                loader.start(self.order(Source::Stored(digest.clone())));
            }
        }
        if self.lacks_what_is_pinned() {
            self.answering = None;
        }
        // What was replaced while no host ran is not called once more.
        if self.answering.is_none() && self.is_undecided() { None } else { self.answer(now) }
    }

    /// Whether these bytes or none are to answer, others do, and these are not to be had. While they are being loaded, what
    /// answered before goes on.
    fn lacks_what_is_pinned(&self) -> bool {
        let Some(pinned) = &self.config.digest else { return false };
        let others = self.versions().is_some_and(|versions| versions.live.digest() != pinned);
        others && self.unloadable.contains_key(pinned) && !self.ready.contains_key(pinned) && !self.file_loading
    }

    fn answer(&mut self, now: Timestamp) -> Option<Versions> {
        let Rollout { live, trial, .. } = &self.rollout;
        let trial = trial.as_ref().map(|trial| &trial.digest);
        self.condemned.retain(|digest, _| live.as_ref() == Some(digest) || trial == Some(digest));
        let live = self.config.digest.as_ref().or(self.rollout.live.as_ref())?;
        let guilty = |digest: &String| self.condemned.contains_key(digest);
        let back = self.rollout.previous().map(|version| &version.digest);
        let live = if guilty(live) { back.filter(|back| self.ready.contains_key(*back)).unwrap_or(live) } else { live };
        let trial = self.rollout.trial.as_ref().filter(|_| self.config.digest.is_none());
        let trial = trial.filter(|trial| !guilty(&trial.digest));

        let live = self.ready.get(live)?.clone();
        let trial = trial.and_then(|trial| Some((trial.partitions, self.ready.get(&trial.digest)?.clone())));
        let worlds = [Some(&live), trial.as_ref().map(|(_, module)| module)];
        let worlds = worlds.into_iter().flatten().map(Module::world).collect();
        let trial = trial.map(|(partitions, module)| (partitions, self.version(module, now)));
        let live = self.version(live, now);

        let before = self.answering.as_ref();
        let same = |one: &Arc<dyn Version>, other: &Arc<dyn Version>| Arc::ptr_eq(one, other);
        let unchanged = before.is_some_and(|before| {
            let trials = match (&before.versions.trial, &trial) {
                (Some((before, one)), Some((now, other))) => before == now && same(one, other),
                (None, None) => true,
                _ => false,
            };
            trials && same(&before.versions.live, &live)
        });
        if unchanged {
            return None;
        }
        // The same module with other grants is a new version to the pumps, but not to who asks since when it answers.
        let goes_on = before.filter(|before| before.versions.live.digest() == live.digest());
        let since = goes_on.map_or(now, |before| before.since);
        let versions = Versions { live, trial };
        self.answering = Some(Answering { versions: versions.clone(), worlds, since });
        Some(versions)
    }

    /// The version that answers already for this very module, or one that begins now: it is watched for as long as it is
    /// new, whenever this host began to call it.
    fn version(&self, module: Module, now: Timestamp) -> Arc<dyn Version> {
        let known = self.versions().into_iter().flat_map(Versions::each).find(|version| version.is_of(&module));
        let newcomer = self.rollout.newcomer().filter(|(digest, _)| **digest == **module.digest());
        let watched = self.config.rollout.tolerance.zip(newcomer).and_then(|(tolerance, (_, since))| {
            // A canary is new all the while, and once more when it is live.
            let since = self.rollout.trial.as_ref().map_or(since, |trial| trial.until);
            let until = since.plus_ms(tolerance.watch_ms);
            Some((tolerance, until.0.checked_sub(now.0)?))
        });
        if let Some(known) = known {
            watched.into_iter().for_each(|(_, left_ms)| known.calls().watch_for(left_ms));
            return Arc::clone(known);
        }
        let calls = Calls::of_version(Arc::clone(&self.calls), watched, Arc::clone(&self.alarm));
        Arc::new(WasmVersion::new(module, Arc::from(&*self.name), Arc::new(calls)))
    }

    /// What others are told of it.
    pub(crate) fn report(&self, host: &str) -> HandlerReport {
        let (calls, failures) = self.calls.read();
        let answering = self.answering.as_ref();
        let digest = |version: &Arc<dyn Version>| version.digest().to_owned();
        let refusal = self.refusal().map(Into::into);
        HandlerReport {
            handler: self.name.clone(),
            host: host.into(),
            digest: answering.map_or_else(String::new, |answering| digest(&answering.versions.live)),
            since: answering.map_or_else(Timestamp::default, |answering| answering.since),
            state: if refusal.is_some() { HandlerState::Refused } else { HandlerState::Live },
            error: refusal,
            calls,
            failures,
            by_class: self.calls.by_class(),
            trial: answering
                .and_then(|answering| answering.versions.trial.as_ref())
                .map(|(_, version)| digest(version)),
            usage: self.usage.read().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }
}

/// The module's file, and the events and effects of its self-test beside it.
pub(crate) fn files_of(module: &std::path::Path) -> [std::path::PathBuf; 3] {
    [module.into(), module.with_extension("events.ndjson"), module.with_extension("expected.ndjson")]
}
