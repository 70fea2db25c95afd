//! C and Zig: the compiler of the package `ziglang`, which brings everything for WebAssembly along, for both.
//!
//! Neither has a manifest of its own, so `pelton.toml` says what to build:
//!
//! ```toml
//! name = "parser"
//! language = "c"                                     # or zig
//! world = "worker"                                   # or batch-worker
//! sdk = "vendor/pelton/guest-sdk/c"                  # for Zig, too: it is a layer over that of C
//! sources = ["src/*.c"]                              # of C and C++
//! entry = "src/handler.zig"                          # of Zig
//! flags = ["-Isrc"]                                  # further ones
//! ```
//!
//! The SDK is compiled along: it is a handful of small files, and the compiler remembers what it has compiled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Artifact, Scratch, check_name, component, read_manifest, tools::Package};

const ZIG: Package = Package {
    name: "ziglang",
    version: "0.17.1",
    download: "100 MB",
    program: Some("zig"),
    module: Some("ziglang"),
    version_args: &["version"],
};

/// For every source. `-UNDEBUG`: the compiler defines `NDEBUG` where it optimises, and `assert` would check nothing. The
/// stack would be 16 MiB otherwise, a quarter of what a handler may have.
const C_FLAGS: [&str; 9] = [
    "cc",
    "-target",
    "wasm32-wasi",
    "-mexec-model=reactor",
    "-O2",
    "-UNDEBUG",
    "-Wall",
    "-Wextra",
    "-Wl,-z,stack-size=262144",
];

/// For sources in C++: what an exception would need does not exist in WebAssembly yet, as far as all compilers go.
const CPP_FLAGS: [&str; 2] = ["-lc++", "-fno-exceptions"];

/// As those; with the checks of the language, whose failures become traps that say what failed.
const ZIG_FLAGS: [&str; 10] = [
    "build-exe",
    "-target",
    "wasm32-wasi",
    "-mexec-model=reactor",
    "-O",
    "ReleaseSafe",
    "--stack",
    "262144",
    "-lc",
    "-fno-stack-protector",
];

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    language: Language,
    #[serde(default = "default_world")]
    world: String,
    /// The folder of the SDK, from the project's.
    sdk: PathBuf,
    /// Of C: patterns of files, from the project's folder.
    #[serde(default)]
    sources: Vec<String>,
    /// Of Zig: the file that has the handler.
    entry: Option<PathBuf>,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Language {
    C,
    Zig,
}

fn default_world() -> String {
    "worker".to_owned()
}

pub(super) fn build(dir: &Path, install_tools: bool) -> Result<Artifact> {
    let manifest = parse(&read_manifest(&dir.join("pelton.toml"))?)?;
    let sdk = of_sdk(dir, &manifest)?;
    let own = find_all(dir, &manifest.sources)?;
    let tool = ZIG.find(dir, install_tools)?;
    let name = &manifest.name;
    let what = if manifest.language == Language::C { "zig cc" } else { "zig build-exe" };
    let description = format!("{what} {}", tool.version);
    eprintln!("building {name} with {description}");
    let output = Scratch::new(dir)?;
    let bindings = manifest.sdk.join("bindings").join(&manifest.world);
    let mut command = tool.command();
    match &manifest.entry {
        None => {
            command.args(C_FLAGS).arg("-I").arg(&manifest.sdk).arg("-I").arg(&bindings);
            if own.iter().any(|source| is_cpp(source)) {
                command.args(CPP_FLAGS);
            }
            command.args(&manifest.flags).arg("-o").arg(output.path()).args(sdk).args(own);
        }
        Some(entry) => {
            let module = |name: &str, file: &Path| format!("-M{name}={}", file.display());
            let of_sdk = |file: &str| manifest.sdk.join("zig").join(file);
            command.args(ZIG_FLAGS).args(["--name", name]).arg("-I").arg(&manifest.sdk).arg("-I").arg(&bindings);
            command.arg(format!("-femit-bin={}", output.path().display())).args(&manifest.flags);
            command.args(["-cflags", "-O2", "-UNDEBUG", "--"]).args(sdk).args(["--dep", "pelton", "--dep", "handler"]);
            command.arg(module("root", &of_sdk("root.zig"))).arg(module("pelton", &of_sdk("pelton.zig")));
            command.args(["--dep", "pelton"]).arg(module("handler", entry));
        }
    }
    command.current_dir(dir).env("ZIG_LOCAL_CACHE_DIR", dir.join(".pelton/zig"));
    let status =
        command.stdin(Stdio::null()).stdout(std::io::stderr()).status().with_context(|| format!("run {what}"))?;
    let export = match (manifest.language, manifest.world.as_str()) {
        (Language::C, "worker") => "PELTON_HANDLER(…)",
        (Language::C, _) => "PELTON_BATCH_HANDLER(…)",
        (Language::Zig, "worker") => "pub fn handle",
        (Language::Zig, _) => "pub fn handleBatch",
    };
    ensure!(
        status.success(),
        "{what} failed ({status}). If the handler itself is what it misses: pelton.toml says world = {:?}, which takes {export}",
        manifest.world
    );
    let module = fs::read(output.path()).with_context(|| format!("read what {what} wrote"))?;
    Ok(Artifact { name: manifest.name, component: component::encode(module)?, tool: description })
}

/// The files of the SDK that go into a component of this world.
fn of_sdk(dir: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>> {
    let Manifest { sdk, world, .. } = manifest;
    ensure!(sdk.is_relative(), "pelton.toml: sdk is {}; name it from the project's folder", sdk.display());
    ensure!(dir.join(sdk).join("pelton.h").is_file(), "pelton.toml: sdk is {}, which has no pelton.h", sdk.display());
    let sdk = sdk.display();
    let patterns = ["component/*.c", &format!("component/{world}/*.c"), "src/*.c", &format!("bindings/{world}/*.o")];
    find_all(dir, &patterns.map(|pattern| format!("{sdk}/{pattern}")))
}

fn is_cpp(source: &Path) -> bool {
    source.extension().is_some_and(|extension| ["cpp", "cc", "cxx"].iter().any(|cpp| extension == *cpp))
}

/// The files that these patterns name from the project's folder, as its author names them.
fn find_all(dir: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pattern in patterns {
        let before = found.len();
        let whole = format!("{}/{pattern}", glob::Pattern::escape(&dir.to_string_lossy()));
        let paths = glob::glob(&whole).with_context(|| format!("pelton.toml: sources: {pattern:?}"))?;
        found.extend(paths.flatten().filter_map(|path| Some(path.strip_prefix(dir).ok()?.to_owned())));
        ensure!(found.len() > before, "pelton.toml: sources: no file is found by {pattern:?}");
    }
    Ok(found)
}

/// The project's name.
pub(super) fn name(manifest: &str) -> Result<String> {
    Ok(parse(manifest)?.name)
}

fn parse(manifest: &str) -> Result<Manifest> {
    let manifest: Manifest = toml::from_str(manifest).context("pelton.toml")?;
    check_name(&manifest.name, "pelton.toml")?;
    match (manifest.language, manifest.entry.is_some(), manifest.sources.is_empty()) {
        (Language::C, false, false) | (Language::Zig, true, true) => {}
        (Language::C, ..) => {
            bail!("pelton.toml: a project in C names its files as sources = [\"src/*.c\"], and no entry")
        }
        (Language::Zig, ..) => {
            bail!("pelton.toml: a project in Zig names a file as entry = \"src/handler.zig\", and no sources")
        }
    }
    let worlds = ["worker", "batch-worker"];
    let world = &manifest.world;
    ensure!(worlds.contains(&world.as_str()), "pelton.toml: world is {world:?}; expected one of {}", worlds.join(", "));
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "name = \"parser\"\nlanguage = \"c\"\nsdk = \"sdk\"\nsources = [\"src/*.c\"]\n";

    #[test]
    fn a_manifest_names_what_is_known() {
        assert_eq!(parse(MANIFEST).expect("valid").world, "worker");
        for (more, part) in [("world = \"wrker\"", "expected one of worker"), ("wrld = 1", "unknown field `wrld`")] {
            let error = parse(&format!("{MANIFEST}{more}")).expect_err("wrong");
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        for (language, part) in
            [("\"fortran\"", "unknown variant `fortran`, expected `c` or `zig`"), ("\"zig\"", "names a file as entry")]
        {
            let error = parse(&MANIFEST.replace("\"c\"", language)).expect_err("wrong");
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }

    #[test]
    fn sources_are_the_sdks_and_the_projects_own_and_are_missed_by_name() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for folder in ["sdk/component/worker", "sdk/src", "sdk/bindings/worker", "src"] {
            fs::create_dir_all(dir.path().join(folder)).expect("folder");
        }
        for file in ["pelton.h", "component/a.c", "component/worker/b.c", "src/c.c", "bindings/worker/d.o"] {
            fs::write(dir.path().join("sdk").join(file), "").expect("write");
        }
        let manifest = parse(MANIFEST).expect("valid");
        let error = find_all(dir.path(), &manifest.sources).expect_err("none").to_string();
        assert_eq!(error, "pelton.toml: sources: no file is found by \"src/*.c\"");
        fs::write(dir.path().join("src/handler.c"), "").expect("write");
        assert_eq!(find_all(dir.path(), &manifest.sources).expect("there"), [Path::new("src/handler.c")]);
        let sdk = ["sdk/component/a.c", "sdk/component/worker/b.c", "sdk/src/c.c", "sdk/bindings/worker/d.o"];
        assert_eq!(of_sdk(dir.path(), &manifest).expect("there"), sdk.map(Path::new));
    }
}
