//! The daemon: configuration, the pump, hot swap and the commands. Begin with [`pump`], which is the way of a batch.

pub mod cli;
pub mod commands;
pub mod config;
pub mod handler;
pub mod host;
pub mod pump;
pub mod time;

mod batch;
mod bench;
mod build;
mod chores;
mod compiler;
mod effects_log;
mod event_json;
mod expected;
mod files;
mod group;
mod guest_log;
mod hints;
mod history;
mod lane;
mod lines;
mod logging;
mod membership;
mod modules;
mod output;
mod overseer;
mod plain_file;
mod presence;
mod replay;
mod rollouts;
mod self_test;
mod share;
mod slot;
mod state;
mod templates;
mod trust;

#[cfg(test)]
mod simulation;
