//! The files of a new project: its template, the SDK of its language and the contract. All are inside this program, so a
//! project needs nothing that is not in a public registry, and keeps building when a newer Pelton comes.

use std::path::{Path, PathBuf};

use rust_embed::{EmbeddedFile, RustEmbed};

use crate::cli::Lang;

/// Where a project keeps the SDK and the contract: laid out as in Pelton's repository, so that paths between them hold.
pub(crate) const VENDOR: &str = "vendor/pelton";

/// What all templates have in common.
const COMMON: &str = "common/";
/// At the end of the names of files that tools would take for their own in this repository.
const DISGUISE: &str = ".in";

#[derive(RustEmbed)]
#[folder = "templates"]
struct Templates;

#[derive(RustEmbed)]
#[folder = "../../guest-sdk"]
#[include = "rust/*"]
#[include = "javascript/*"]
#[include = "python/*"]
#[include = "c/*"]
#[exclude = "*/target/*"]
#[exclude = "*/node_modules/*"]
#[exclude = "*/__pycache__/*"]
#[exclude = "*/tests/*"]
struct Sdks;

#[derive(RustEmbed)]
#[folder = "../../wit"]
struct Contract;

/// A file to be written, by its path in the project.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// All files of a new project.
pub(crate) fn project(lang: Lang, name: &str) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    for folder in [COMMON, &format!("{}/", lang.folder())] {
        let names = Templates::iter().filter_map(|path| path.strip_prefix(folder).map(str::to_owned));
        for path in names {
            let Some(template) = Templates::get(&format!("{folder}{path}")) else { continue };
            let (path, bytes) = (real_path(&path, name), filled_in(&template, name));
            // A language adds to what all have in common.
            match files.iter_mut().find(|file| file.path == path) {
                Some(file) => file.bytes.extend(bytes),
                None => files.push(File { path, bytes }),
            }
        }
    }
    files.extend(sdk(lang.sdk()));
    files
}

/// The SDK in one of the folders of `guest-sdk`, and the contract.
pub(crate) fn sdk(folder: &str) -> Vec<File> {
    let contract = Contract::iter().filter_map(|path| Some((Path::new("wit").join(&*path), Contract::get(&path)?)));
    let sdk = Sdks::iter()
        .filter(|path| path.split('/').next() == Some(folder))
        .filter_map(|path| Some((Path::new("guest-sdk").join(&*path), Sdks::get(&path)?)));
    let file =
        |(path, file): (PathBuf, EmbeddedFile)| File { path: Path::new(VENDOR).join(path), bytes: file.data.into() };
    contract.chain(sdk).map(file).collect()
}

/// The SDKs that a project was given, and the contract, as they are in this program. None if it was given none.
pub(crate) fn sdks_of(project: &Path) -> Vec<File> {
    let folders = ["rust", "javascript", "python", "c"];
    let given = folders.into_iter().filter(|folder| project.join(VENDOR).join("guest-sdk").join(folder).is_dir());
    // The contract comes with each; to write it twice does no harm.
    given.flat_map(sdk).collect()
}

fn real_path(path: &str, name: &str) -> PathBuf {
    let path = path.strip_suffix(DISGUISE).unwrap_or(path).replace("{{name_}}", &underscored(name));
    if path == "gitignore" { ".gitignore".into() } else { path.into() }
}

fn filled_in(template: &EmbeddedFile, name: &str) -> Vec<u8> {
    match std::str::from_utf8(&template.data) {
        Ok(text) => text.replace("{{name}}", name).replace("{{name_}}", &underscored(name)).into_bytes(),
        Err(_) => template.data.to_vec(),
    }
}

/// As languages want a name that has no hyphens.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_a_whole_project() {
        for lang in Lang::ALL {
            let files = project(lang, "my-greeter");
            let has = |path: &str| files.iter().any(|file| file.path == Path::new(path));
            for path in ["workers.toml", "README.md", ".gitignore", "tests/events.ndjson", "tests/expected.ndjson"] {
                assert!(has(path), "{lang:?} has no {path}");
            }
            assert!(has("vendor/pelton/wit/worker.wit"), "{lang:?} has no contract");
            for File { path, bytes } in &files {
                assert!(
                    !path.starts_with(VENDOR) || !path.iter().any(|part| part == "target" || part == "node_modules")
                );
                let text = String::from_utf8_lossy(bytes);
                assert!(!text.contains("{{name"), "{lang:?}: {} is not filled in", path.display());
                assert!(path.extension().is_none_or(|extension| extension != "in"), "{}", path.display());
            }
        }
    }

    #[test]
    fn the_handler_in_the_readme_is_the_one_that_comes_out() {
        let readme = include_str!("../../../README.md");
        let files = project(Lang::Python, "greeter");
        let handler = files.iter().find(|file| file.path == Path::new("handler.py")).expect("a handler");
        let handler = String::from_utf8_lossy(&handler.bytes);
        assert!(readme.contains(&format!("`handler.py`, whole:\n\n```python\n{handler}```\n")), "{handler}");
    }

    #[test]
    fn an_sdk_is_of_one_language() {
        let files = sdk("python");
        assert!(files.iter().any(|file| file.path.starts_with("vendor/pelton/guest-sdk/python")));
        assert!(!files.iter().any(|file| file.path.starts_with("vendor/pelton/guest-sdk/rust")));
    }
}
