//! Rust: `cargo`, for `wasm32-wasip2` where that target is installed, else for `wasm32-unknown-unknown` with a standard
//! library built on the spot.
//!
//! The second way needs no target to be fetched: Debian's security suite carries a compiler with the sources of its
//! standard library (`rustc-web`, `rust-web-src`). Two things it lacks: it counts as stable, so building `std` has to
//! be allowed by `RUSTC_BOOTSTRAP`; and its linker is a link into another package, so that of a rustup toolchain will
//! do. The result is a core module, which is encoded as a component here.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Artifact, ask, check_name, component, read_manifest};

const WASIP2: &str = "wasm32-wasip2";
const UNKNOWN: &str = "wasm32-unknown-unknown";

/// Where Debian installs its compiler: behind rustup's in most people's `PATH`, so it is asked for by its full name.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

pub(super) fn build(dir: &Path, features: &[String], install_tools: bool) -> Result<Artifact> {
    let name = name(&read_manifest(&dir.join("Cargo.toml"))?)?;
    let recipe = recipe(dir, install_tools)?;
    let tool = recipe.describe(dir);
    eprintln!("building {name} with {tool}");

    let packages = outside_packages(dir)?;
    let messages = compile(dir, &recipe, features, &packages)?;
    let module = module_of(&messages, dir)?;
    let bytes = fs::read(&module).with_context(|| format!("read {}", module.display()))?;
    Ok(Artifact { name, component: component::encode(bytes)?, tool })
}

/// The way that this machine can go; with leave to install, rustup is asked for the target first.
fn recipe(dir: &Path, install_tools: bool) -> Result<Recipe> {
    let chosen = Recipe::choose(&Machine::look(dir));
    if chosen.is_ok() || !install_tools || ask(dir, "rustup", &["--version"]).is_none() {
        return chosen;
    }
    eprintln!("rustup target add {WASIP2}");
    let status = Command::new("rustup").args(["target", "add", WASIP2]).current_dir(dir).stdin(Stdio::null()).status();
    // What is missing then is told as if nothing had been tried: there is another way.
    match status {
        Ok(status) if status.success() => Recipe::choose(&Machine::look(dir)),
        _ => chosen,
    }
}

/// The package's name.
pub(super) fn name(manifest: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Option<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    let manifest: Manifest = toml::from_str(manifest).context("Cargo.toml")?;
    let name = manifest.package.context("Cargo.toml has no [package]: build one handler of the workspace")?.name;
    check_name(&name, "Cargo.toml")?;
    Ok(name)
}

/// What this machine has for building Rust into WebAssembly.
#[derive(Debug, Default)]
struct Machine {
    has_cargo: bool,
    /// The compiler in use has the standard library for `wasm32-wasip2`.
    has_wasip2: bool,
    /// A compiler that has the sources of its standard library.
    rustc_with_sources: Option<Sources>,
    /// A folder with `rust-lld` in it.
    linker: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sources {
    rustc: PathBuf,
    sysroot: PathBuf,
}

impl Machine {
    /// Asks in the project's folder, where a `rust-toolchain.toml` may choose another compiler.
    fn look(dir: &Path) -> Self {
        let in_use = Sources::of(dir, Path::new("rustc"));
        let debian = Sources::of(dir, Path::new(DEBIAN_RUSTC));
        let host = ask(dir, "rustc", &["--print", "host-tuple"]);
        let bundled =
            in_use.iter().zip(host).map(|(rustc, host)| rustc.sysroot.join("lib/rustlib").join(host).join("bin"));
        let search: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
        Self {
            has_cargo: ask(dir, "cargo", &["--version"]).is_some(),
            has_wasip2: in_use.as_ref().is_some_and(|rustc| rustc.sysroot.join("lib/rustlib").join(WASIP2).is_dir()),
            linker: bundled.chain(search).find(|folder| folder.join("rust-lld").is_file()),
            rustc_with_sources: in_use.into_iter().chain(debian).find(Sources::are_there),
        }
    }
}

impl Sources {
    fn of(dir: &Path, rustc: &Path) -> Option<Self> {
        let sysroot = ask(dir, rustc, &["--print", "sysroot"])?.into();
        Some(Self { rustc: rustc.to_owned(), sysroot })
    }

    fn are_there(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Recipe {
    Wasip2,
    BuildStd { rustc: PathBuf, sysroot: PathBuf, linker: PathBuf },
}

impl Recipe {
    fn choose(machine: &Machine) -> Result<Self> {
        ensure!(machine.has_cargo, "cargo is not installed; get it from https://rustup.rs");
        if machine.has_wasip2 {
            return Ok(Self::Wasip2);
        }
        let Some(Sources { rustc, sysroot }) = machine.rustc_with_sources.clone() else {
            bail!(
                "no Rust compiler here can build for WebAssembly; install one of\n  \
                 the target {WASIP2}:  rustup target add {WASIP2}\n  \
                 Debian's compiler with its sources:  apt install rustc-web rust-web-src libstd-rust-web-dev"
            );
        };
        let Some(linker) = machine.linker.clone() else {
            bail!(
                "{} can build for WebAssembly but there is no rust-lld to link with; install one of\n  \
                 any toolchain of https://rustup.rs, which brings it along\n  \
                 Debian's, which rustc-web expects:  apt install lld-22",
                rustc.display()
            );
        };
        Ok(Self::BuildStd { rustc, sysroot, linker })
    }

    fn target(&self) -> &'static str {
        match self {
            Self::Wasip2 => WASIP2,
            Self::BuildStd { .. } => UNKNOWN,
        }
    }

    fn describe(&self, dir: &Path) -> String {
        let (rustc, how) = match self {
            Self::Wasip2 => (Path::new("rustc"), ""),
            Self::BuildStd { rustc, .. } => (rustc.as_path(), " with its own std"),
        };
        let version = ask(dir, rustc, &["--version"]).unwrap_or_else(|| "rustc".to_owned());
        let version = version.split(" (").next().unwrap_or_default();
        format!("cargo, {version}, {}{how}", self.target())
    }

    /// Tells cargo which target to build for, and with what.
    fn apply(&self, cargo: &mut Command) -> Result<()> {
        cargo.args(["--target", self.target()]);
        if let Self::BuildStd { rustc, linker, .. } = self {
            let path = env::var_os("PATH").unwrap_or_default();
            let path: OsString = env::join_paths([linker.clone()].into_iter().chain(env::split_paths(&path)))
                .context("PATH for the linker")?;
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").env("PATH", path);
            // Without features: no backtraces, which nothing could print.
            cargo.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features="]);
        }
        Ok(())
    }
}

/// A package that is neither in the project nor from a registry: one that the project names by its path, as the SDK.
#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    /// The registry or repository it came from; absent for a local one.
    source: Option<String>,
}

fn outside_packages(dir: &Path) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
        workspace_root: PathBuf,
    }
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--quiet"])
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed ({})", output.status);
    let Metadata { packages, workspace_root } =
        serde_json::from_slice(&output.stdout).context("read what cargo metadata printed")?;
    let is_outside =
        |package: &Package| package.source.is_none() && !package.manifest_path.starts_with(&workspace_root);
    Ok(packages.into_iter().filter(is_outside).collect())
}

/// Runs cargo and returns its messages, one JSON object a line.
fn compile(dir: &Path, recipe: &Recipe, features: &[String], packages: &[Package]) -> Result<Vec<u8>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--lib", "--message-format", "json-render-diagnostics"]);
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    recipe.apply(&mut cargo)?;
    cargo.arg("--config").arg(rustflags(recipe, packages));
    let output = cargo.current_dir(dir).stderr(Stdio::inherit()).output().context("run cargo build")?;
    ensure!(output.status.success(), "cargo build failed ({})", output.status);
    Ok(output.stdout)
}

/// Panic messages name source files. Without this they would carry the folders of this machine into the module. The
/// project's own files are named from its root already.
///
/// Given as configuration, which adds to a project's own flags for the target; `RUSTFLAGS` would replace them.
fn rustflags(recipe: &Recipe, packages: &[Package]) -> String {
    let mut prefixes: Vec<(PathBuf, String)> = Vec::new();
    if let Some(home) = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo"))) {
        prefixes.push((home, "cargo".to_owned()));
    }
    if let Recipe::BuildStd { sysroot, .. } = recipe {
        prefixes.push((sysroot.join("lib/rustlib/src/rust"), "rust".to_owned()));
    }
    for package in packages {
        if let Some(folder) = package.manifest_path.parent() {
            prefixes.push((folder.to_owned(), package.name.clone()));
        }
    }
    let flags: serde_json::Value =
        prefixes.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect();
    // An array of strings is written alike in JSON and TOML.
    format!("target.{}.rustflags={flags}", recipe.target())
}

/// Finds the project's module among everything cargo says it made.
fn module_of(messages: &[u8], dir: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        manifest_path: Option<PathBuf>,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let manifest = dir.join("Cargo.toml");
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && message.manifest_path.as_ref() == Some(&manifest))
        .flat_map(|message| message.filenames)
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .context("cargo made no .wasm file; add to Cargo.toml\n  [lib]\n  crate-type = [\"cdylib\"]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources { rustc: DEBIAN_RUSTC.into(), sysroot: "/usr".into() }
    }

    #[test]
    fn an_installed_target_is_preferred() {
        let machine = Machine {
            has_cargo: true,
            has_wasip2: true,
            rustc_with_sources: Some(sources()),
            linker: Some("/lld".into()),
        };
        assert_eq!(Recipe::choose(&machine).expect("recipe"), Recipe::Wasip2);
    }

    #[test]
    fn sources_and_a_linker_are_enough() {
        let machine = Machine {
            has_cargo: true,
            rustc_with_sources: Some(sources()),
            linker: Some("/lld".into()),
            ..Machine::default()
        };
        let expected = Recipe::BuildStd { rustc: DEBIAN_RUSTC.into(), sysroot: "/usr".into(), linker: "/lld".into() };
        assert_eq!(Recipe::choose(&machine).expect("recipe"), expected);
    }

    #[test]
    fn what_is_missing_is_named_with_both_remedies() {
        let none = Recipe::choose(&Machine::default()).expect_err("no cargo").to_string();
        assert!(none.contains("https://rustup.rs"), "{none}");

        let machine = Machine { has_cargo: true, ..Machine::default() };
        let no_target = Recipe::choose(&machine).expect_err("no target").to_string();
        assert!(no_target.contains("rustup target add wasm32-wasip2"), "{no_target}");
        assert!(no_target.contains("apt install rustc-web rust-web-src libstd-rust-web-dev"), "{no_target}");

        let machine = Machine { rustc_with_sources: Some(sources()), ..machine };
        let no_linker = Recipe::choose(&machine).expect_err("no linker").to_string();
        assert!(
            no_linker.starts_with("/usr/bin/rustc can build for WebAssembly but there is no rust-lld"),
            "{no_linker}"
        );
    }

    #[test]
    fn the_name_comes_from_the_package() {
        assert_eq!(name("[package]\nname = \"repo-stats\"").expect("name"), "repo-stats");
        let error = name("[workspace]").expect_err("no package").to_string();
        assert!(error.contains("build one handler of the workspace"), "{error}");
    }

    #[test]
    fn the_projects_own_module_is_found_among_others() {
        let messages = br#"{"reason":"compiler-artifact","manifest_path":"/sdk/Cargo.toml","filenames":["/t/sdk.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","filenames":["/t/p.rlib","/t/p.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(module_of(messages, Path::new("/p")).expect("module"), Path::new("/t/p.wasm"));
        let error = module_of(b"", Path::new("/p")).expect_err("no module").to_string();
        assert!(error.contains("crate-type = [\"cdylib\"]"), "{error}");
    }

    #[test]
    fn paths_of_this_machine_are_replaced_in_configuration_that_cargo_can_read() {
        let packages =
            [Package { name: "p".to_owned(), manifest_path: "/home/a \"b\"/p/Cargo.toml".into(), source: None }];
        let flags = rustflags(&Recipe::Wasip2, &packages);
        let parsed: toml::Table = toml::from_str(&flags).expect("valid TOML");
        let flags = parsed["target"][WASIP2]["rustflags"].as_array().expect("array");
        assert_eq!(flags.last().and_then(|flag| flag.as_str()), Some("--remap-path-prefix=/home/a \"b\"/p=p"));
    }
}
