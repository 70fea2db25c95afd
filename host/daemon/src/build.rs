//! `pelton build`: turns a handler project into a component with the language's own tools.
//!
//! The project's files say which language it is in. What is used goes to standard error in a line or two; the output of
//! compilers passes through as it is. The module is written under a temporary name and renamed, because a daemon may be
//! watching its place.

mod component;
mod exports;
mod javascript;
mod python;
mod rust;
mod tools;
mod ziglang;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

/// What tools keep and leave in a project, from its folder.
const WORK: &str = ".pelton";
/// How the names of folders begin that builds write to.
const SCRATCH: &str = "build.";
/// No build takes so long.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What may be chosen about a build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Where the module goes; `<project>/<name>.wasm` if absent.
    pub(crate) out: Option<PathBuf>,
    /// Cargo features to switch on. Other languages have none and refuse them.
    pub(crate) features: Vec<String>,
    /// Whether a compiler that is missing may be installed, into a folder of Pelton's own.
    pub(crate) install_tools: bool,
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
    let dir = project_folder(dir)?;
    let language = Language::of(&dir)?;
    ensure!(
        options.features.is_empty() || language == Language::Rust,
        "features are Cargo's, but {} is {}",
        dir.display(),
        language.name()
    );
    let artifact = match language {
        Language::Rust => rust::build(&dir, &options.features, options.install_tools)?,
        Language::JavaScript => javascript::build(&dir)?,
        Language::Python => python::build(&dir, options.install_tools)?,
        Language::C => ziglang::build(&dir, options.install_tools)?,
    };
    exports::check(&artifact.component)?;

    let path = options.out.clone().unwrap_or_else(|| dir.join(format!("{}.wasm", artifact.name)));
    replace(&path, &artifact.component)?;
    Ok(Built {
        path,
        bytes: artifact.component.len() as u64,
        digest: format!("sha256:{:x}", Sha256::digest(&artifact.component)),
        tool: artifact.tool,
    })
}

/// The folder of a project, by its one true name.
///
/// # Errors
/// One that is not there, and the remedy.
pub(crate) fn project_folder(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().map_err(|reason| {
        anyhow!(
            "project {}: {reason}; name the folder of a project, which `pelton new NAME --lang LANGUAGE` makes",
            dir.display()
        )
    })
}

/// What a project is written in, and the file that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    JavaScript,
    Python,
    /// Or Zig.
    C,
}

impl Language {
    /// In the order in which they are looked for: a Rust project may well have a `package.json` for its tooling.
    const ALL: [Self; 4] = [Self::Rust, Self::C, Self::JavaScript, Self::Python];

    fn manifest(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::JavaScript => "package.json",
            Self::Python => "pyproject.toml",
            Self::C => "pelton.toml",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::C => "C or Zig",
        }
    }

    fn of(dir: &Path) -> Result<Self> {
        if let Some(language) = Self::ALL.into_iter().find(|language| dir.join(language.manifest()).is_file()) {
            return Ok(language);
        }
        let known: Vec<String> =
            Self::ALL.iter().map(|language| format!("{} ({})", language.manifest(), language.name())).collect();
        bail!(
            "{} is no handler project: it has none of {}; `pelton new NAME --lang LANGUAGE` makes one",
            dir.display(),
            known.join(", ")
        )
    }
}

/// The file that `pelton build` makes of the project in `dir`, as `pelton test` and `pelton dev` look for it.
///
/// # Errors
///
/// A folder that is no project, or a manifest without a name.
pub(crate) fn module_of(dir: &Path) -> Result<PathBuf> {
    let language = Language::of(dir)?;
    let manifest = read_manifest(&dir.join(language.manifest()))?;
    let name = match language {
        Language::Rust => rust::name(&manifest),
        Language::JavaScript => javascript::name(&manifest),
        Language::Python => python::name(&manifest),
        Language::C => ziglang::name(&manifest),
    }?;
    Ok(dir.join(format!("{name}.wasm")))
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

/// Where a tool is to write to: in a folder that goes away with the build. The file always has the same name: linkers write it
/// into the module, and a build of the same sources should be the same version.
struct Scratch {
    folder: PathBuf,
    file: PathBuf,
}

impl Scratch {
    fn new(dir: &Path) -> Result<Self> {
        let work = dir.join(WORK);
        remove_abandoned(&work);
        let folder = work.join(format!("{SCRATCH}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { file: folder.join("handler.wasm"), folder })
    }

    fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by a later build.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes what builds left behind that were broken off long ago.
fn remove_abandoned(work: &Path) {
    for entry in fs::read_dir(work).into_iter().flatten().flatten() {
        let is_old = || entry.metadata().ok()?.modified().ok()?.elapsed().ok().map(|age| age > ABANDONED_AFTER);
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) && is_old() == Some(true) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
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
        for language in Language::ALL {
            assert_eq!(Language::of(project(&[language.manifest()]).path()).expect("known"), language);
        }
        assert_eq!(Language::of(project(&["Cargo.toml", "package.json"]).path()).expect("rust"), Language::Rust);
    }

    #[test]
    fn a_folder_without_a_manifest_is_refused_by_name() {
        let dir = project(&["handler.py"]);
        let error = build(dir.path(), &Options::default()).expect_err("no manifest").to_string();
        assert!(error.contains("is no handler project: it has none of Cargo.toml (Rust)"), "{error}");
        assert!(error.contains("pyproject.toml (Python)") && error.ends_with("makes one"), "{error}");
    }

    #[test]
    fn features_are_for_rust_only() {
        let dir = project(&["package.json"]);
        let options = Options { features: vec!["v2".to_owned()], ..Options::default() };
        let error = build(dir.path(), &options).expect_err("features").to_string();
        assert!(error.starts_with("features are Cargo's") && error.ends_with("is JavaScript"), "{error}");
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
