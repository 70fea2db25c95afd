//! The daemon: configuration, the pump, hot swap and the commands. Begin with [`pump`], which is the way of a batch.

pub mod cli;
pub mod commands;
pub mod config;
pub mod handler;
pub mod heartbeat;
pub mod host;
pub mod pump;
pub mod time;

mod build;
mod event_json;
mod group;
mod guest_log;
mod hints;
mod lines;
mod logging;
mod modules;
mod output;
mod slot;
mod state;

#[cfg(test)]
mod simulation;
