//! `pelton new`: a handler's project that builds and passes its own test as it comes out.

use std::{fs, io, path::Path};

use anyhow::{Context, anyhow, ensure};
use serde_json::json;

use crate::{
    cli::{Common, NewArgs, UsageError},
    output,
    templates::{self, File},
};

/// The longest name that every language's tools take.
const NAME_BYTES_MAX: usize = 64;
/// Names that a language, or the folder of a project, keeps for itself.
const RESERVED: [&str; 22] = [
    "alloc",
    "core",
    "con",
    "deps",
    "examples",
    "favicon",
    "handler",
    "incremental",
    "nul",
    "pelton",
    "pelton-sdk",
    "proc-macro",
    "python",
    "serde",
    "src",
    "std",
    "target",
    "test",
    "tests",
    "types",
    "vendor",
    "wit",
];
/// Words of Rust, which a crate cannot be named by. Those of the other languages do not matter: nothing there is named
/// after the project.
const RUST_WORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Makes the folder NAME and writes a project into it: all of it, or nothing.
///
/// # Errors
/// A name that is none, a folder that is there already, a disk that does not take it.
pub fn new(common: &Common, args: &NewArgs) -> anyhow::Result<()> {
    let NewArgs { name, lang } = args;
    check_name(name).map_err(UsageError)?;
    let folder = Path::new(name);
    ensure!(
        folder.symlink_metadata().is_err(),
        "{name} exists already; `pelton new` writes into a folder of its own: choose another name, or move that one away"
    );
    let files = templates::project(*lang, name);
    let unfinished = format!(".{name}.{}.tmp", std::process::id());
    // On its own, so that it is this folder that is told of, and not the first file in one that nobody knows.
    fs::create_dir(&unfinished).map_err(|reason| {
        let here = std::env::current_dir().unwrap_or_default();
        anyhow!("cannot make the folder {name} in {}: {reason}; go to a folder that you may write to", here.display())
    })?;
    let written = write(Path::new(&unfinished), &files)
        .and_then(|()| fs::rename(&unfinished, folder).with_context(|| format!("rename {unfinished} to {name}")));
    if written.is_err() {
        // Why it failed is said below; what is left of it helps nobody.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written?;
    let own = files.iter().filter(|file| !file.path.starts_with(templates::VENDOR));
    let own: Vec<String> = own.map(|file| file.path.display().to_string()).collect();
    if common.json {
        output::json_line(&json!({ "project": name, "language": lang.folder(), "files": own }))?;
    } else {
        tell(name, &own)?;
    }
    Ok(())
}

fn tell(name: &str, own: &[String]) -> io::Result<()> {
    output::line(format_args!("{name}/"))?;
    for path in own {
        output::line(format_args!("  {path}"))?;
    }
    output::line(format_args!("  {}/    the SDK and the contract", templates::VENDOR))?;
    output::line(format_args!(
        "\nnext:\n  cd {name}\n  pelton build --install-tools    # {name}.wasm\n  pelton test                     # \
         tests/events.ndjson through it\n  pelton dev                      # or all of that at every change\n"
    ))
}

/// Writes files below a folder.
pub(crate) fn write(folder: &Path, files: &[File]) -> anyhow::Result<()> {
    for File { path, bytes } in files {
        let path = folder.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        written.with_context(|| format!("write {}", path.display()))?;
        if bytes.starts_with(b"#!") {
            make_executable(&path).with_context(|| format!("make {} executable", path.display()))?;
        }
    }
    Ok(())
}

fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A name that can be a folder, a module, a handler, a group, a crate and a package.
fn check_name(name: &str) -> Result<(), String> {
    let rule =
        "expected 1 to 64 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen";
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(plain);
    if !fits {
        let shown: String = name.chars().take(80).collect();
        return Err(format!("{shown:?} cannot be the name of a project; {rule}"));
    }
    if RESERVED.contains(&name) || RUST_WORDS.contains(&name) {
        return Err(format!(
            "{name:?} cannot be the name of a project: it means something else to a compiler or to Pelton"
        ));
    }
    Ok(())
}

/// Replaces the SDK and the contract that a project was given by those of this program.
///
/// # Errors
/// A project that was given none, a disk that does not take it.
pub(crate) fn update_sdk(project: &Path) -> anyhow::Result<()> {
    let files = templates::sdks_of(project);
    let vendor = project.join(templates::VENDOR);
    ensure!(!files.is_empty(), "{} has no {} that could be updated", project.display(), templates::VENDOR);
    let beside = |what: &str| project.join(format!("{}.{}.{what}", templates::VENDOR, std::process::id()));
    let (new, old) = (beside("new"), beside("old"));
    let files = files.into_iter().map(|File { path, bytes }| {
        let path = path.strip_prefix(templates::VENDOR).map(Path::to_path_buf).unwrap_or(path);
        File { path, bytes }
    });
    let files: Vec<File> = files.collect();
    let swapped = write(&new, &files).and_then(|()| {
        fs::rename(&vendor, &old).with_context(|| format!("move {} away", vendor.display()))?;
        fs::rename(&new, &vendor).with_context(|| format!("put the new {} in its place", vendor.display()))
    });
    if swapped.is_err() {
        // Why it failed is said below; what is half done helps nobody.
        let _ = fs::remove_dir_all(&new);
        if !vendor.exists() {
            let _ = fs::rename(&old, &vendor);
        }
    }
    swapped?;
    fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
    eprintln!("{} is that of pelton {} now", templates::VENDOR, env!("CARGO_PKG_VERSION"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_language_would_refuse_are_refused() {
        for name in ["greeter", "a", "my-greeter-2"] {
            assert_eq!(check_name(name), Ok(()));
        }
        let long = "a".repeat(65);
        for name in ["", "My", "a_b", "-a", "a-", "2a", "a b", "../a", "a/b", ".", "é", "a.b", &long] {
            let fault = check_name(name).expect_err(name);
            assert!(fault.contains("expected 1 to 64 lower-case letters"), "{fault}");
        }
        for name in ["test", "target", "fn", "yield", "vendor"] {
            let fault = check_name(name).expect_err(name);
            assert!(fault.contains("means something else"), "{fault}");
        }
    }
}
