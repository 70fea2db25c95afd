//! A handler of `workers.toml`: the module that answers for it, and the newest file if that was refused.

use std::{collections::BTreeMap, sync::Arc};

use pelton_core::Timestamp;
use pelton_sandbox::{Grants, World};
use pelton_store::{HandlerReport, HandlerState, StreamSpec};
use tracing::{error, info};

use crate::{
    config::HandlerConfig,
    handler::{Calls, Version, WasmVersion},
    modules::{Loaded, Loader, Stamp, grants_of},
};

/// A handler on this host. A module that is refused never replaces one that works.
pub(crate) struct HandlerSlot {
    config: HandlerConfig,
    /// Groups that want it to say itself when to commit.
    manual: Vec<String>,
    calls: Arc<Calls>,
    live: Option<Live>,
    refused: Option<String>,
    stamp: Option<Stamp>,
    /// The load begun last; an older one that ends later does not count. 0 before the first.
    serial: u64,
}

/// The module that answers.
struct Live {
    version: Arc<dyn Version>,
    grants: Arc<Grants>,
    world: World,
    since: Timestamp,
}

impl HandlerSlot {
    pub(crate) fn new(config: HandlerConfig) -> Self {
        Self { config, manual: Vec::new(), calls: Arc::default(), live: None, refused: None, stamp: None, serial: 0 }
    }

    /// The version that answers.
    pub(crate) fn live(&self) -> Option<Arc<dyn Version>> {
        self.live.as_ref().map(|live| Arc::clone(&live.version))
    }

    /// The world of the version that answers.
    pub(crate) fn world(&self) -> Option<World> {
        self.live.as_ref().map(|live| live.world)
    }

    /// Why the newest file was refused, if it was.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Whether it is not known yet what comes of the first file.
    pub(crate) fn is_loading(&self) -> bool {
        self.live.is_none() && self.refused.is_none()
    }

    /// Takes over what `workers.toml` says. True if the module has to be loaded (again) for it.
    pub(crate) fn reconfigure(&mut self, config: &HandlerConfig, manual: Vec<String>) -> bool {
        let changed = self.config != *config || self.manual != manual || self.serial == 0;
        (self.config, self.manual) = (config.clone(), manual);
        changed
    }

    /// Whether the file is another one than at the last look. A file that is gone changes nothing.
    pub(crate) async fn file_changed(&mut self) -> bool {
        let stamp = Stamp::of(&self.config.module).await;
        let changed = stamp.is_some() && stamp != self.stamp;
        if changed {
            self.stamp = stamp;
        }
        changed
    }

    /// Starts loading the module with what the configuration grants it.
    pub(crate) fn load(&mut self, name: &str, streams: &BTreeMap<String, StreamSpec>, loader: &Loader) {
        let grants = grants_of(name, &self.config, streams);
        self.serial = loader.start(name, &self.config, grants, &self.manual);
    }

    /// Takes what came of a load. The new version, if there is one that is to answer from now on.
    pub(crate) fn take(&mut self, loaded: Loaded, now: Timestamp) -> Option<Arc<dyn Version>> {
        if loaded.serial != self.serial {
            return None;
        }
        let handler = loaded.handler;
        let module = match loaded.module {
            Ok(module) => module,
            Err(reason) => {
                match self.live() {
                    Some(live) => {
                        error!(handler, reason, goes_on = live.digest(), "module refused; the old one goes on")
                    }
                    None => error!(handler, reason, "module refused; its groups wait for one that works"),
                }
                self.refused = Some(reason);
                return None;
            }
        };
        self.refused = None;
        if let Some(live) = &self.live
            && live.version.digest() == &**module.digest()
            && live.grants == *module.grants()
        {
            // A file that was touched, or changed back: what runs is what was asked for.
            return None;
        }
        info!(handler, digest = &**module.digest(), file = %self.config.module.display(), "module loaded");
        let (digest, grants, world) = (Arc::clone(module.digest()), Arc::clone(module.grants()), module.world());
        let version: Arc<dyn Version> = Arc::new(WasmVersion::new(module, Arc::from(handler), Arc::clone(&self.calls)));
        // The same module with other grants is a new version to the pumps, but not to who asks since when it answers.
        let since = match &self.live {
            Some(live) if live.version.digest() == &*digest => live.since,
            _ => now,
        };
        self.live = Some(Live { version: Arc::clone(&version), grants, world, since });
        Some(version)
    }

    /// What others are told of it.
    pub(crate) fn report(&self, name: &str, host: &str) -> HandlerReport {
        let (calls, failures) = self.calls.read();
        let live = self.live.as_ref();
        HandlerReport {
            handler: name.into(),
            host: host.into(),
            digest: live.map_or_else(String::new, |live| live.version.digest().into()),
            since: live.map_or_else(Timestamp::default, |live| live.since),
            state: if self.refused.is_some() { HandlerState::Refused } else { HandlerState::Live },
            error: self.refused.clone(),
            calls,
            failures,
            by_class: self.calls.by_class(),
        }
    }
}
