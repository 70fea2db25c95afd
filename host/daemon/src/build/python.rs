//! Python: `componentize-py`, which takes a snapshot of the interpreter after the handler's modules were imported.
//!
//! `pyproject.toml` says which contract to build against, and what else the handler needs:
//!
//! ```toml
//! [project]
//! name = "greeter"
//! dependencies = ["six"]                 # pure Python only
//!
//! [tool.pelton]
//! wit = "vendor/pelton/wit"
//! world = "worker"
//! entry = "handler"                      # the module
//! ```
//!
//! The SDK is looked for where it lies beside the contract: `WIT/../guest-sdk/python`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{
    Artifact, Scratch, check_name, read_manifest,
    tools::{self, Package, Tool},
};

const COMPONENTIZE_PY: Package = Package {
    name: "componentize-py",
    version: "0.25.1",
    download: "70 MB",
    program: Some("componentize-py"),
    module: None,
    version_args: &["--version"],
};

/// Runs `componentize-py` and shows mistakes in the handler's code as Python does.
const WRAPPER: &str = include_str!("componentize.py");

/// An environment of the project's own, from its folder. `componentize-py` takes packages from the active one: without this
/// it would be the machine's.
const ENVIRONMENT: &str = ".pelton/python";
/// Where what the project depends on is installed.
const SITE_PACKAGES: &str = "lib/site-packages";
/// Where the SDK lies, from the contract's folder.
const SDK: &str = "../guest-sdk/python";

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Manifest {
    project: Option<Project>,
    #[serde(default)]
    tool: Tools,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Project {
    name: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Tools {
    pelton: Option<Handler>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handler {
    /// The folder of the contract, from the project's.
    wit: PathBuf,
    #[serde(default = "default_world")]
    world: String,
    /// The module whose import makes the handler.
    #[serde(default = "default_entry")]
    entry: String,
}

fn default_world() -> String {
    "worker".to_owned()
}

fn default_entry() -> String {
    "handler".to_owned()
}

pub(super) fn build(dir: &Path, install_tools: bool) -> Result<Artifact> {
    let (project, handler) = parse(&read_manifest(&dir.join("pyproject.toml"))?)?;
    let entry = dir.join(handler.entry.replace('.', "/"));
    ensure!(
        entry.with_extension("py").is_file() || entry.join("__init__.py").is_file(),
        "pyproject.toml: tool.pelton.entry is {:?}, but there is no {}.py",
        handler.entry,
        entry.display()
    );
    let wit = &handler.wit;
    ensure!(dir.join(wit).is_dir(), "pyproject.toml: tool.pelton.wit is {}, which is no folder", wit.display());
    let tool = COMPONENTIZE_PY.find(dir, install_tools)?;
    let description = format!("componentize-py {}", tool.version);
    eprintln!("building {} with {description}", project.name);
    install(dir, &project.dependencies, &tool)?;
    let component = componentize(dir, &tool, &handler)?;
    Ok(Artifact { name: project.name, component, tool: description })
}

/// The project's name.
pub(super) fn name(manifest: &str) -> Result<String> {
    Ok(parse(manifest)?.0.name)
}

fn parse(manifest: &str) -> Result<(Project, Handler)> {
    let Manifest { project, tool } = toml::from_str(manifest).context("pyproject.toml")?;
    let project = project.context("pyproject.toml has no [project] with a name")?;
    check_name(&project.name, "pyproject.toml")?;
    let handler = tool.pelton.context(
        "pyproject.toml does not say what to build; add\n  [tool.pelton]\n  wit = FOLDER\n  world = \"worker\"\n  entry = \
         \"handler\"",
    )?;
    let (world, worlds) = (&handler.world, ["worker", "batch-worker"]);
    let known = worlds.join(", ");
    ensure!(
        worlds.contains(&world.as_str()),
        "pyproject.toml: tool.pelton.world is {world:?}; expected one of {known}"
    );
    Ok((project, handler))
}

/// Installs what the project depends on, if the list has changed.
fn install(dir: &Path, dependencies: &[String], tool: &Tool) -> Result<()> {
    let environment = dir.join(ENVIRONMENT);
    let (listed, wanted) = (environment.join("installed"), dependencies.join("\n"));
    if fs::read_to_string(&listed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if environment.exists() {
        fs::remove_dir_all(&environment).with_context(|| format!("clear {}", environment.display()))?;
    }
    let packages = environment.join(SITE_PACKAGES);
    fs::create_dir_all(&packages).with_context(|| format!("create {}", packages.display()))?;
    if !dependencies.is_empty() {
        eprintln!("installing {} into {ENVIRONMENT}", dependencies.join(", "));
        let python = tool.python.clone().unwrap_or_else(|| "python3".into());
        tools::pip_into(&packages, &python, dependencies)?;
    }
    fs::write(&listed, wanted).with_context(|| format!("write {}", listed.display()))
}

fn componentize(dir: &Path, tool: &Tool, handler: &Handler) -> Result<Vec<u8>> {
    let output = Scratch::new(dir)?;
    let mut command = match &tool.python {
        // It says more than Python did; this says no less, as people know it.
        Some(python) => {
            let mut command = Command::new(python);
            // Isolated: what lies in the project is for the component, and not for the compiler.
            command.args(["-I", "-c", WRAPPER]);
            command
        }
        None => tool.command(),
    };
    command.args(["-q", "-d"]).arg(&handler.wit).args(["-w", &handler.world, "componentize", &handler.entry]);
    let environment = dir.join(ENVIRONMENT);
    for folder in [dir, &dir.join(&handler.wit).join(SDK), &environment.join(SITE_PACKAGES)] {
        // Absolute, and without what leads back: mistakes are shown with these paths.
        let folder = folder.canonicalize().with_context(|| format!("folder {}", folder.display()))?;
        command.arg("-p").arg(folder);
    }
    command.arg("-o").arg(output.path()).current_dir(dir).env("RUST_BACKTRACE", "0").env("VIRTUAL_ENV", &environment);
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().context("run componentize-py")?;
    ensure!(status.success(), "componentize-py failed ({status}): {} was not built", handler.entry);
    fs::read(output.path()).context("read what componentize-py wrote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_contract_world_and_module() {
        let (project, handler) = parse(
            "[project]\nname = \"greeter\"\ndependencies = [\"six\"]\n[tool.ruff]\nline-length = 100\n[tool.pelton]\nwit = \"w\"",
        )
        .expect("valid");
        assert_eq!(project, Project { name: "greeter".to_owned(), dependencies: vec!["six".to_owned()] });
        let expected = Handler { wit: "w".into(), world: default_world(), entry: default_entry() };
        assert_eq!(handler, expected);
    }

    #[test]
    fn a_manifest_without_a_handler_is_told_what_to_add() {
        let error = parse("[project]\nname = \"site\"").expect_err("no handler").to_string();
        assert!(error.contains("add\n  [tool.pelton]"), "{error}");
    }

    #[test]
    fn another_world_is_refused() {
        let manifest = "[project]\nname = \"a\"\n[tool.pelton]\nwit = \"w\"\nworld = \"wrker\"";
        let error = parse(manifest).expect_err("unknown").to_string();
        assert!(error.ends_with("tool.pelton.world is \"wrker\"; expected one of worker, batch-worker"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let manifest = "[project]\nname = \"a\"\n[tool.pelton]\nwit = \"w\"\nwrold = \"worker\"";
        let error = parse(manifest).expect_err("typo");
        assert!(format!("{error:#}").contains("unknown field `wrold`"), "{error:#}");
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::write(dir.path().join("pyproject.toml"), "[project]\nname = \"a\"\n[tool.pelton]\nwit = \".\"")
            .expect("write");
        let error = build(dir.path(), false).err().expect("no module").to_string();
        assert!(error.contains("tool.pelton.entry is \"handler\", but there is no"), "{error}");
    }
}
