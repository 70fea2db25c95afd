//! What runs, in step with `workers.toml`: handlers and groups come, change and go with the file.

use std::{mem, sync::Arc};

use pelton_core::{CommitMode, Found};
use pelton_store::StoreError;
use tracing::{error, info, warn};

use super::{Host, declare, shortest_poll};
use crate::{
    chores::Chores,
    config::{Config, GroupConfig},
    files::Stamp,
    group::RunningGroup,
    modules::{check_world, manual_groups},
    slot::{Again, HandlerSlot, files_of},
};

impl Host {
    pub(super) async fn look_at_files(&mut self) {
        let stamp = Stamp::of(&self.path).await;
        if let Some(stamp) = stamp.filter(|stamp| self.config_stamp.as_ref() != Some(stamp)) {
            if stamp.is_recent() {
                // Half of a file may be a valid one, and a stream that it creates keeps its partitions for ever.
                self.files.look_later();
            } else {
                self.config_stamp = Some(stamp);
                self.reload_config().await;
            }
        }
        for slot in self.handlers.values_mut() {
            slot.look_at_file(&self.loader).await;
        }
    }

    async fn reload_config(&mut self) {
        let file = self.path.display();
        let config = match Config::load(&self.path) {
            Ok(config) => config,
            Err(errors) => {
                for fault in errors.faults {
                    error!(%file, line = fault.line, "{}", fault.message);
                }
                return error!(%file, "the changed configuration is invalid: going on with the old one");
            }
        };
        if config == self.config {
            // As it is at the first look after the start, if nobody was faster.
            return;
        }
        if config.host != self.config.host || config.store != self.config.store {
            warn!(%file, "changes of [host] and [store] take effect when the daemon is restarted");
        }
        if let Err(error) = self.check_worlds(&config) {
            return error!(%file, "{error}: going on with the old configuration");
        }
        if let Err(error) = declare(&*self.surroundings.store, &config).await {
            if error.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient) {
                // Not the configuration's fault: the next look at the files tries again.
                self.config_stamp = None;
            }
            return error!(%file, "{error:#}: going on with the old configuration");
        }
        info!(%file, "configuration changed");
        self.apply(config).await;
    }

    /// Refuses manual commits where the handler has no way to ask for them. What comes of another module is seen when it is
    /// loaded; until then a group keeps the settings that it has.
    fn check_worlds(&self, config: &Config) -> Result<(), String> {
        for (name, handler) in &config.handlers {
            let manual = manual_groups(name, &config.groups);
            let slot = self.handlers.get(name).filter(|_| self.config.handlers.get(name) == Some(handler));
            for world in slot.map_or(&[][..], HandlerSlot::worlds) {
                check_world(*world, &manual).map_err(|reason| format!("handler {name:?}: {reason}"))?;
            }
        }
        Ok(())
    }

    /// Brings handlers and groups in step with a configuration that is valid and declared.
    pub(super) async fn apply(&mut self, config: Config) {
        let old = mem::replace(&mut self.config, config);
        (self.config.host, self.config.store) = (old.host, old.store);
        self.poll_interval.send_replace(shortest_poll(&self.config, &self.options));
        self.chores.send_replace(Chores::of(&self.config));

        self.handlers.retain(|name, _| self.config.handlers.contains_key(name));
        let others = if self.config.handlers.keys().all(|name| self.handlers.contains_key(name)) {
            None
        } else {
            self.others().await
        };
        for (name, handler) in &self.config.handlers {
            let is_new = !self.handlers.contains_key(name);
            let found = if is_new { self.found_at_start(name, others.as_deref()) } else { Found::Changed };
            let slot = self.handlers.entry(name.clone());
            let slot = slot.or_insert_with(|| HandlerSlot::new(name, handler.clone(), Arc::clone(&self.alarm)));
            if let Some(rollout) = self.rollouts.borrow().get(name).filter(|_| is_new) {
                slot.take_rollout(rollout);
            }
            match slot.reconfigure(handler, &self.config.groups, &self.config.streams) {
                Again::OtherFile => slot.meet_file(found, &self.loader).await,
                Again::SameFile => slot.load_file(&self.loader),
                Again::No => {}
            }
        }

        for (name, mut group) in self.groups.extract_if(.., |name, _| !self.config.groups.contains_key(name)) {
            info!(group = name, "group leaves this host");
            group.drain();
            self.ending.push(group);
        }
        self.settle();
        // Groups may have gone, too.
        self.join();
        let modules: Vec<_> = self.config.handlers.values().flat_map(|handler| files_of(&handler.module)).collect();
        self.files.watch(modules.iter().map(|path| &**path).chain([&*self.path]));
    }

    /// Brings the groups, of this handler or of all, in step with what their handlers can do now.
    pub(super) fn bring_groups_in_step(&mut self, only: Option<&str>) {
        self.reconfigure_groups();
        self.retire_groups();
        self.start_groups(only);
    }

    /// Some pumps have ended: what waited for that may begin.
    pub(super) fn take_ended(&mut self) {
        self.start_groups(None);
        // Their partitions may be wanted back.
        self.progress.mark_changed();
    }

    /// Gives groups the settings that they are to have, as soon as what answers can live with them.
    fn reconfigure_groups(&mut self) {
        for (name, group) in &mut self.groups {
            let Some(config) = self.config.groups.get(name).filter(|config| **config != group.config) else { continue };
            let Some(slot) = self.handlers.get(&config.spec.handler) else { continue };
            let other_handler = group.config.spec.handler != config.spec.handler;
            if !fits(config, slot) {
                if !other_handler && group.is_first_wait() {
                    warn!(
                        group = name,
                        "its new settings wait: commit = \"manual\" needs a version of world worker, and the one that answers is none"
                    );
                }
                continue;
            }
            match slot.versions() {
                Some(versions) if other_handler => {
                    group.reconfigure(config.clone());
                    group.swap(versions);
                }
                // The other handler's version is not there yet.
                None if other_handler => continue,
                _ => group.reconfigure(config.clone()),
            }
            info!(group = name, "group has new settings");
        }
    }

    /// Ends groups whose handler has nothing that may answer, and nothing that is being loaded: it was refused, or what is
    /// pinned is not to be had. What answered before is not what `workers.toml` asks for any more.
    fn retire_groups(&mut self) {
        let is_orphan = |name: &String, group: &mut RunningGroup| {
            let Some(config) = self.config.groups.get(name) else { return false };
            let Some(slot) = self.handlers.get(&config.spec.handler) else { return true };
            let other_handler = group.config.spec.handler != config.spec.handler;
            let can_answer = slot.versions().is_some() && (!other_handler || fits(config, slot));
            !can_answer && !slot.is_loading()
        };
        let orphans: Vec<_> = self.groups.extract_if(.., is_orphan).collect();
        if orphans.is_empty() {
            return;
        }
        for (name, mut group) in orphans {
            let handler = self.config.groups.get(&name).map(|config| &*config.spec.handler);
            warn!(group = name, handler, "group leaves this host until its handler has a version that may answer");
            group.drain();
            self.ending.push(group);
        }
        self.join();
    }

    /// Starts the groups, of this handler or of all, that do not run and whose handler is there.
    fn start_groups(&mut self, only: Option<&str>) {
        let before = self.groups.len();
        self.ending.retain_mut(|group| !group.is_over());
        for (name, config) in &self.config.groups {
            if only.is_some_and(|handler| config.spec.handler != handler) {
                continue;
            }
            // Two at work for the same partitions would fence each other for ever.
            let ends = self.ending.iter().any(|group| group.config.spec.name == *name);
            if ends || self.groups.contains_key(name) {
                continue;
            }
            let slot = self.handlers.get(&config.spec.handler).filter(|slot| fits(config, slot));
            let Some(versions) = slot.and_then(HandlerSlot::versions) else { continue };
            let partitions = self.config.streams.get(&config.spec.stream).map_or(0, |stream| stream.partitions);
            info!(
                group = name,
                stream = config.spec.stream,
                handler = config.spec.handler,
                partitions,
                "group works here"
            );
            let mut group = RunningGroup::new(config.clone(), versions.clone(), &self.surroundings);
            group.stand(self.standing.borrow().as_ref());
            self.groups.insert(name.clone(), group);
        }
        if self.groups.len() > before {
            self.join();
            // The new pumps have not been told anything yet.
            self.progress.mark_changed();
        }
    }
}

/// Whether what answers for a handler can do what a group asks of it.
fn fits(config: &GroupConfig, slot: &HandlerSlot) -> bool {
    let manual = match config.settings.pump.commit {
        CommitMode::Manual => std::slice::from_ref(&config.spec.name),
        _ => &[],
    };
    slot.worlds().iter().all(|world| check_world(*world, manual).is_ok())
}
