//! `pelton build`: turns a handler project into a component with the language's own tools.
//!
//! The project's files say which language it is in. What is used goes to standard error in a line or two; the output of
//! compilers passes through as it is. The module is written under a temporary name and renamed, because a daemon may be
//! watching its place.

mod javascript;
mod rust;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// The interfaces a component may export to be a handler, without their versions.
const HANDLER_INTERFACES: [&str; 2] = ["pelton:worker/handler", "pelton:worker/batch-handler"];

/// What may be chosen about a build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Where the module goes; `<project>/<name>.wasm` if absent.
    pub(crate) out: Option<PathBuf>,
    /// Cargo features to switch on. Other languages have none and refuse them.
    pub(crate) features: Vec<String>,
}

/// A module that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// Where it was written.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
    /// `sha256:` and the hexadecimal digest, as the `digest` of a handler in `workers.toml`.
    pub(crate) digest: String,
    /// The tools that made it.
    pub(crate) tool: String,
}

/// What a language's build hands back.
struct Artifact {
    /// The project's name, which becomes the file's.
    name: String,
    component: Vec<u8>,
    tool: String,
}

/// Builds the project in `dir`. Blocks until its compiler is done, which may take minutes the first time.
///
/// # Errors
///
/// Says what to install if a tool is missing, and what to change if the project does not make a handler.
pub(crate) fn build(dir: &Path, options: &Options) -> Result<Built> {
    let dir = dir.canonicalize().with_context(|| format!("project {}", dir.display()))?;
    let artifact = match Language::of(&dir)? {
        Language::Rust => rust::build(&dir, &options.features)?,
        Language::JavaScript => {
            ensure!(options.features.is_empty(), "features are Cargo's, but {} is JavaScript", dir.display());
            javascript::build(&dir)?
        }
    };
    check_exports(&artifact.component)?;

    let path = options.out.clone().unwrap_or_else(|| dir.join(&artifact.name).with_extension("wasm"));
    replace(&path, &artifact.component)?;
    Ok(Built {
        path,
        bytes: artifact.component.len() as u64,
        digest: format!("sha256:{:x}", Sha256::digest(&artifact.component)),
        tool: artifact.tool,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    JavaScript,
}

impl Language {
    /// The manifest in `dir` decides. Cargo's goes first: a Rust project may well have a `package.json` for its
    /// tooling.
    fn of(dir: &Path) -> Result<Self> {
        if dir.join("Cargo.toml").is_file() {
            Ok(Self::Rust)
        } else if dir.join("package.json").is_file() {
            Ok(Self::JavaScript)
        } else {
            bail!("{} is no handler project: it has neither Cargo.toml nor package.json", dir.display())
        }
    }
}

/// A component that exports no handler builds without complaint (an export macro that was forgotten, another world), so
/// it is looked for here, where the author is.
fn check_exports(component: &[u8]) -> Result<()> {
    let decoded = wit_component::decode(component).context("what was built is not a component")?;
    let wit_component::DecodedWasm::Component(resolve, world) = decoded else {
        bail!("what was built is a package of interfaces, not a component");
    };
    let exports: Vec<String> = resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key)).collect();
    let is_handler = |export: &String| HANDLER_INTERFACES.contains(&export.split('@').next().unwrap_or_default());
    ensure!(
        exports.iter().any(is_handler),
        "the component exports [{}] but none of [{}]; a Rust handler needs pelton_sdk::export! or export_batch!",
        exports.join(", "),
        HANDLER_INTERFACES.join(", "),
    );
    Ok(())
}

/// Writes `bytes` to `path` so that whoever watches it never sees a part of them.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("write {}", path.display());
    let name = path.file_name().with_context(context)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(context)?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Nothing more can be done about it than say why, which the first error does.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(context)
}

/// Reads a manifest, as text.
fn read_manifest(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Whether a name from a manifest can be a file's name.
fn check_name(name: &str, manifest: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    ensure!(
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain),
        "{manifest}: name {name:?} cannot be a file name; use letters, digits, \"-\", \"_\" and \".\""
    );
    Ok(())
}

/// What a tool prints about itself, if it is there and answers.
fn ask(dir: &Path, program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(dir).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary folder");
        for file in files {
            fs::write(dir.path().join(file), "").expect("write");
        }
        dir
    }

    #[test]
    fn the_manifest_decides_the_language() {
        assert_eq!(Language::of(project(&["Cargo.toml"]).path()).expect("rust"), Language::Rust);
        assert_eq!(Language::of(project(&["package.json"]).path()).expect("javascript"), Language::JavaScript);
        assert_eq!(Language::of(project(&["Cargo.toml", "package.json"]).path()).expect("rust"), Language::Rust);
    }

    #[test]
    fn a_folder_without_a_manifest_is_refused_by_name() {
        let dir = project(&["handler.py"]);
        let error = build(dir.path(), &Options::default()).expect_err("no manifest").to_string();
        assert!(error.ends_with("is no handler project: it has neither Cargo.toml nor package.json"), "{error}");
    }

    #[test]
    fn features_are_for_rust_only() {
        let dir = project(&["package.json"]);
        let options = Options { features: vec!["v2".to_owned()], ..Options::default() };
        let error = build(dir.path(), &options).expect_err("features").to_string();
        assert!(error.starts_with("features are Cargo's"), "{error}");
    }

    #[test]
    fn a_component_without_a_handler_is_refused() {
        let empty_component = b"\0asm\x0d\0\x01\0";
        let error = check_exports(empty_component).expect_err("no exports").to_string();
        assert!(error.starts_with("the component exports [] but none of [pelton:worker/handler"), "{error}");
    }

    #[test]
    fn a_module_is_replaced_without_leaving_anything_behind() {
        let dir = project(&["old.wasm"]);
        let path = dir.path().join("old.wasm");
        replace(&path, b"new").expect("replace");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        assert!(check_name("github-triage", "Cargo.toml").is_ok());
        for name in ["", "../up", "a/b", ".hidden"] {
            assert!(check_name(name, "Cargo.toml").is_err(), "{name}");
        }
    }
}
