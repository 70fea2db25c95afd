//! JavaScript: `jco componentize`, from the project's own `node_modules`, with the QuickJS engine.
//!
//! QuickJS makes a module of under two megabytes in seconds; the default engine makes one of eleven. Two of its
//! options: without `--backend-qjs-disable-async` the component needs the component model's concurrency, which no world
//! here uses. `--backend-qjs-stub-wasi` is *not* given: it replaces all imports whose package is named `wasi`, logging
//! and configuration included, by traps. So the component imports a WASI, and the host serves an empty one.
//!
//! `package.json` says which contract to build against:
//!
//! ```json
//! "pelton": { "wit": "../../wit", "world": "worker", "entry": "handler.js" }
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Artifact, ask, check_name, read_manifest};

const NODE_REMEDY: &str = "install Node.js 20 or later, from https://nodejs.org or with: apt install nodejs npm";

const JCO_REMEDY: &str = "add \"@bytecodealliance/jco\" and \"@bytecodealliance/componentize-js\" to devDependencies \
                          with: npm install --save-dev @bytecodealliance/jco @bytecodealliance/componentize-js";

/// What `package.json` says of a handler.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Manifest {
    name: String,
    pelton: Option<Handler>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handler {
    /// The folder of the contract, from the project's.
    wit: PathBuf,
    #[serde(default = "default_world")]
    world: String,
    #[serde(default = "default_entry")]
    entry: PathBuf,
}

fn default_world() -> String {
    "worker".to_owned()
}

fn default_entry() -> PathBuf {
    "handler.js".into()
}

pub(super) fn build(dir: &Path) -> Result<Artifact> {
    let (name, handler) = parse(&read_manifest(&dir.join("package.json"))?)?;
    ensure!(dir.join(&handler.entry).is_file(), "package.json: entry {} does not exist", handler.entry.display());
    ensure!(dir.join(&handler.wit).is_dir(), "package.json: wit folder {} does not exist", handler.wit.display());

    let jco = jco(dir)?;
    let version = ask(dir, &jco, &["--version"]).with_context(|| format!("jco does not run; {NODE_REMEDY}"))?;
    let tool = format!("jco {version}, QuickJS");
    eprintln!("building {name} with {tool}");
    Ok(Artifact { component: componentize(dir, &jco, &handler)?, name, tool })
}

/// The file's name is the package's, without its scope.
fn parse(manifest: &str) -> Result<(String, Handler)> {
    let Manifest { name, pelton } = serde_json::from_str(manifest).context("package.json")?;
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    check_name(&name, "package.json")?;
    let handler = pelton.context(
        "package.json does not say what to build; add \"pelton\": { \"wit\": FOLDER, \"world\": \"worker\", \"entry\": \
         \"handler.js\" }",
    )?;
    Ok((name, handler))
}

/// Finds `jco`, and installs what the project depends on if it has not been yet.
fn jco(dir: &Path) -> Result<PathBuf> {
    if let Some(jco) = installed(dir) {
        return Ok(jco);
    }
    ensure!(!dir.join("node_modules").is_dir(), "node_modules has no jco; {JCO_REMEDY}");
    install(dir)?;
    installed(dir).with_context(|| format!("npm did not install jco; {JCO_REMEDY}"))
}

/// A workspace keeps what its projects share further up.
fn installed(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().map(|folder| folder.join("node_modules/.bin/jco")).find(|jco| jco.is_file())
}

fn install(dir: &Path) -> Result<()> {
    let command = if dir.join("package-lock.json").is_file() { "ci" } else { "install" };
    if ask(dir, "npm", &["--version"]).is_none() {
        bail!("npm is not installed; {NODE_REMEDY}");
    }
    eprintln!("node_modules is missing: running npm {command} in {}", dir.display());
    let status = Command::new("npm")
        .args([command, "--no-audit", "--no-fund"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .status()
        .context("run npm")?;
    ensure!(status.success(), "npm {command} failed ({status})");
    Ok(())
}

fn componentize(dir: &Path, jco: &Path, handler: &Handler) -> Result<Vec<u8>> {
    let output = Scratch(dir.join(format!(".pelton-build.{}.tmp", std::process::id())));
    let status = Command::new(jco)
        .arg("componentize")
        .arg(&handler.entry)
        .arg("--wit")
        .arg(&handler.wit)
        .args(["--world-name", &handler.world, "--backend", "qjs", "--backend-qjs-disable-async", "--out"])
        .arg(&output.0)
        .current_dir(dir)
        .stdout(Stdio::null())
        .status()
        .context("run jco")?;
    ensure!(status.success(), "jco componentize failed ({status})");
    fs::read(&output.0).context("read what jco wrote")
}

/// A file that goes away with the build.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Not there if jco failed.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_contract_world_and_entry() {
        let (name, handler) = parse(
            r#"{ "name": "@acme/hello-js", "version": "1.0.0", "pelton": { "wit": "../../wit", "world": "batch-worker" } }"#,
        )
        .expect("valid");
        assert_eq!(name, "hello-js");
        let expected =
            Handler { wit: "../../wit".into(), world: "batch-worker".to_owned(), entry: "handler.js".into() };
        assert_eq!(handler, expected);
    }

    #[test]
    fn a_manifest_without_a_handler_is_told_what_to_add() {
        let error = parse(r#"{ "name": "site" }"#).expect_err("no handler").to_string();
        assert!(error.contains("add \"pelton\": { \"wit\": FOLDER"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = parse(r#"{ "name": "a", "pelton": { "wit": "w", "wrold": "worker" } }"#).expect_err("typo");
        assert!(format!("{error:#}").contains("unknown field `wrold`"), "{error:#}");
    }

    #[test]
    fn an_installation_without_jco_is_told_how_to_get_it() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(dir.path().join("node_modules")).expect("folder");
        let error = jco(dir.path()).expect_err("no jco").to_string();
        assert!(error.contains("npm install --save-dev @bytecodealliance/jco"), "{error}");
    }
}
