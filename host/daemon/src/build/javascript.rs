//! JavaScript and TypeScript: the SDK brings a program that bundles the project and makes a component of it with the QuickJS
//! engine, `pelton-sdk-build`. It is installed by npm, with the tools that `package.json` names, into `node_modules`.
//!
//! `package.json` says which contract to build against; what is left out is as here:
//!
//! ```json
//! "pelton": { "wit": "vendor/pelton/wit", "world": "worker", "entry": "handler.js" }
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Artifact, Scratch, ask, check_name, read_manifest};

const NODE_REMEDY: &str =
    "install Node.js 20.6 or later, from https://nodejs.org, or from your system's packages with npm";
const NODE_LEAST: (u32, u32) = (20, 6);

const BUILDER: &str = "pelton-sdk-build";
const SDK_REMEDY: &str = "add \"pelton-sdk\": \"file:vendor/pelton/guest-sdk/javascript\" to dependencies of package.json, or \
                          wherever the SDK lies, and run: npm install";

/// What `package.json` says; the rest of it is the builder's to read.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Manifest {
    name: String,
    #[serde(default, rename = "pelton")]
    _handler: Handler,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handler {
    #[serde(rename = "wit")]
    _wit: Option<PathBuf>,
    #[serde(rename = "world")]
    _world: Option<String>,
    #[serde(rename = "entry")]
    _entry: Option<PathBuf>,
}

pub(super) fn build(dir: &Path) -> Result<Artifact> {
    let name = name(&read_manifest(&dir.join("package.json"))?)?;
    let node = node(dir)?;
    let builder = builder(dir)?;
    let tool = format!("componentize-qjs, node {node}");
    eprintln!("building {name} with {tool}");
    let output = Scratch::new(dir)?;
    // By node and not by itself: whether a file may be run is easily lost on the way of a project.
    let mut command = Command::new("node");
    command
        .arg(builder)
        .arg("--out")
        .arg(output.path())
        .arg(dir)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    let status = command.status().context("run pelton-sdk-build")?;
    ensure!(status.success(), "{name} was not built ({status})");
    let component = fs::read(output.path()).context("read what pelton-sdk-build wrote")?;
    Ok(Artifact { name, component, tool })
}

/// The package's name, without its scope.
pub(super) fn name(manifest: &str) -> Result<String> {
    let Manifest { name, .. } = serde_json::from_str(manifest).context("package.json")?;
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    check_name(&name, "package.json")?;
    Ok(name)
}

/// The version of Node.js.
fn node(dir: &Path) -> Result<String> {
    let Some(version) = ask(dir, "node", &["--version"]) else { bail!("node is not installed; {NODE_REMEDY}") };
    let version = version.trim_start_matches('v').to_owned();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(found >= NODE_LEAST, "node {version} is too old; {NODE_REMEDY}");
    Ok(version)
}

/// Finds the SDK's builder, and installs what the project depends on if that has not been done yet.
fn builder(dir: &Path) -> Result<PathBuf> {
    if let Some(builder) = installed(dir) {
        return Ok(builder);
    }
    ensure!(!dir.join("node_modules").is_dir(), "node_modules has no {BUILDER}; {SDK_REMEDY}");
    install(dir)?;
    installed(dir).with_context(|| format!("npm did not install {BUILDER}; {SDK_REMEDY}"))
}

/// A workspace keeps what its projects share further up.
fn installed(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().map(|folder| folder.join("node_modules/.bin").join(BUILDER)).find(|builder| builder.is_file())
}

fn install(dir: &Path) -> Result<()> {
    if ask(dir, "npm", &["--version"]).is_none() {
        bail!("npm is not installed; {NODE_REMEDY}");
    }
    eprintln!("node_modules is missing: running npm install in {}", dir.display());
    let mut npm = Command::new("npm");
    // It keeps to a lock file. `npm ci` does too, but refuses one that was written on another system.
    npm.args(["install", "--no-audit", "--no-fund"]).current_dir(dir).stdin(Stdio::null()).stdout(std::io::stderr());
    let status = npm.status().context("run npm")?;
    ensure!(status.success(), "npm install failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_without_its_scope() {
        assert_eq!(
            name(r#"{ "name": "@acme/hello-js", "version": "1.0.0", "type": "module" }"#).expect("valid"),
            "hello-js"
        );
        assert_eq!(name(r#"{ "name": "a", "pelton": { "entry": "a.ts" } }"#).expect("valid"), "a");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = name(r#"{ "name": "a", "pelton": { "wit": "w", "wrold": "worker" } }"#).expect_err("typo");
        assert!(format!("{error:#}").contains("unknown field `wrold`"), "{error:#}");
    }

    #[test]
    fn an_installation_without_the_sdk_is_told_how_to_get_it() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(dir.path().join("node_modules")).expect("folder");
        let error = builder(dir.path()).expect_err("no builder").to_string();
        assert!(error.contains("node_modules has no pelton-sdk-build; add \"pelton-sdk\""), "{error}");
    }
}
