//! Compiled modules on disk, so that a restart does not compile again: seconds for an interpreter.
//!
//! A compiled module is native code that runs with all the rights of the host. Only files that the host wrote itself may
//! be loaded, so the directory and every file in it must be the host's own and closed to others, nobody else may be able to
//! put another directory in its place, and every file is checked against its digest.
//! Nothing here ever fails a load: without a cache, modules are compiled.
//!
//! The directory is kept to a size: what was loaded longest ago goes first. A file's time of modification is when it was
//! last loaded.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{self, Component as Part, Path, PathBuf},
    process,
    time::{Duration, SystemTime},
};

use rustix::{fs::OFlags, process::geteuid};
use wasmtime::{Engine, component::Component};

use crate::digest::{digest_of, digest_of_file, hex_of};

/// A file under its unfinished name that is so old was left by a process that was killed.
const UNFINISHED_FOR: Duration = Duration::from_secs(3600);

const COMPILED: &str = ".cwasm";
const SEAL: &str = ".cwasm.sha256";
const UNFINISHED: &str = ".tmp";

/// Others may not write here, or they could have their code run by the host.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;
/// Whoever may write to such a directory may not move or remove what belongs to others.
const STICKY: u32 = 0o1000;

/// Symbolic links on the way to the directory; more go round in circles.
const LINKS_MAX: usize = 40;

/// A seal is a digest.
const SEAL_BYTES_MAX: u64 = 1024;

#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    compatibility: String,
    bytes_max: u64,
}

impl Cache {
    /// Makes the directory if need be; it is kept to so many bytes. `None` if it is not to be trusted or cannot be
    /// used, which is logged.
    pub(crate) fn open(dir: &Path, bytes_max: u64, compatibility: String) -> Option<Self> {
        match prepare(dir) {
            Ok(dir) => Some(Self { dir, compatibility, bytes_max }),
            Err(fault) => {
                tracing::warn!(dir = %dir.display(), %fault, "compiled modules are not cached");
                None
            }
        }
    }

    /// The compiled module, if it is there and whole.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        match self.read(engine, &path) {
            Ok(component) => Some(component),
            Err(Miss::Absent) => None,
            Err(Miss::Unusable(fault)) => {
                tracing::warn!(path = %path.display(), fault, "a cached module is not usable; compiling it again");
                None
            }
        }
    }

    /// Keeps a module that this host compiled, and loads it from there, so that its code is the file's and not memory of
    /// this process. `None` if that does not work, which is logged.
    pub(crate) fn keep(&self, engine: &Engine, digest: &str, code: &[u8]) -> Option<Component> {
        let path = self.path(digest);
        // The digest first: a file whose digest is not there yet would be taken for damaged.
        let kept = self
            .write(&seal_of(&path), digest_of(code).as_bytes(), |_| Ok(()))
            .and_then(|()| self.write(&path, code, |unfinished| map(engine, unfinished)));
        self.tidy(&path);
        kept.inspect_err(|fault| {
            tracing::warn!(path = %path.display(), fault, "a compiled module could not be cached");
        })
        .ok()
    }

    fn read(&self, engine: &Engine, path: &Path) -> Result<Component, Miss> {
        let mut file = match open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Absent),
            Err(error) => return Err(Miss::Unusable(error.to_string())),
        };
        check_own(&file).map_err(Miss::Unusable)?;
        let seal = read_seal(&seal_of(path)).map_err(|fault| Miss::Unusable(format!("no digest: {fault}")))?;
        let found = digest_of_file(&mut file).map_err(|error| Miss::Unusable(error.to_string()))?;
        if seal != found {
            return Err(Miss::Unusable(format!("it has digest {found}, but was written with {seal}")));
        }
        // Where the time cannot be set, it is that of the writing, and the file goes a little earlier.
        let _ = file.set_modified(SystemTime::now());
        map(engine, path).map_err(Miss::Unusable)
    }

    /// Removes what was loaded longest ago until all fit, and what was never finished. `newest` stays in any case, and so
    /// does whatever does not have the name of a file of ours.
    fn tidy(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let now = SystemTime::now();
        let mut found = Vec::new();
        let mut bytes = 0_u64;
        for entry in entries.flatten() {
            let (name, Ok(file)) = (entry.file_name(), entry.metadata()) else { continue };
            let (Some(name), Ok(used)) = (name.to_str(), file.modified()) else { continue };
            if !file.is_file() {
                continue;
            }
            if is_unfinished(name) {
                if now.duration_since(used).is_ok_and(|age| age > UNFINISHED_FOR) {
                    let _ = fs::remove_file(entry.path());
                }
            } else if is_compiled(name) {
                bytes = bytes.saturating_add(file.len());
                found.push((used, file.len(), entry.path()));
            }
        }
        found.sort_unstable();
        for (_, file_bytes, path) in found {
            if bytes <= self.bytes_max {
                return;
            }
            if path != newest {
                // The code first: a digest without code is no file, code without a digest a damaged one. Another host may
                // have been quicker, and whoever runs it keeps what it mapped.
                let _ = fs::remove_file(&path);
                let _ = fs::remove_file(seal_of(&path));
                bytes = bytes.saturating_sub(file_bytes);
            }
        }
    }

    /// Under another name first, so that no reader ever sees half of it. `look` has the file to itself: hosts that share
    /// the directory may put another in its place as soon as it has its own name.
    fn write<T>(&self, path: &Path, bytes: &[u8], look: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
        let unfinished = self.dir.join(unfinished_name());
        let said = |error: io::Error| error.to_string();
        let written = create(&unfinished)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
            .map_err(said)
            .and_then(|()| look(&unfinished))
            .and_then(|seen| fs::rename(&unfinished, path).map_err(said).map(|()| seen));
        if written.is_err() {
            // It may never have been made; either way there is nothing more to do about it.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{}-{}{COMPILED}", hex_of(digest), self.compatibility))
    }
}

enum Miss {
    Absent,
    Unusable(String),
}

/// Loads a file that was found to be ours.
#[allow(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
fn map(engine: &Engine, path: &Path) -> Result<Component, String> {
    // SAFETY: the file is what this host or its own compiler wrote: either just now, under a name that nobody else makes
    // up, or its owner and its digest have shown it, in a directory that belongs to this user and that nobody else may
    // write to or put another in the place of, as `prepare` has checked. A file is replaced by renaming, never written in place, so what is mapped does not change,
    // and what was looked at is what is mapped or another one of the same kind. wasmtime checks its own version, the settings and the processor.
    unsafe { Component::deserialize_file(engine, path) }.map_err(|error| format!("{error:#}"))
}

fn seal_of(path: &Path) -> PathBuf {
    path.with_extension(SEAL.trim_start_matches('.'))
}

/// Whether `path` or `keep` made up this name: two numbers in hexadecimal digits.
fn is_compiled(name: &str) -> bool {
    let Some((digest, compatibility)) = name.strip_suffix(COMPILED).and_then(|name| name.split_once('-')) else {
        return false;
    };
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex(digest, 64) && hex(compatibility, 16)
}

/// A name for a file that is being written. Two containers that share a cache may both be process 1, so chance keeps their
/// files apart.
fn unfinished_name() -> String {
    // Every state has keys of its own, which the system's chance is the seed of.
    let chance = RandomState::new().hash_one(process::id());
    format!(".{}-{chance}{UNFINISHED}", process::id())
}

/// Whether `unfinished_name` made up this name: two numbers.
fn is_unfinished(name: &str) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED));
    let numbers = name.and_then(|name| name.split_once('-'));
    numbers.is_some_and(|(process, number)| process.parse::<u32>().is_ok() && number.parse::<u64>().is_ok())
}

/// Never another's: what has that name already stays.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Opens what is to be trusted. Neither does it follow a link, nor wait for somebody to write to a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Sees that a file is of this process's own user, and nobody else's to write to.
fn check_own(file: &File) -> Result<(), String> {
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a file".into());
    }
    check_owner(&found)
}

fn check_owner(found: &Metadata) -> Result<(), String> {
    let own = geteuid().as_raw();
    if found.uid() != own {
        return Err(format!("it belongs to user {}, not to {own}, whom this process runs as", found.uid()));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("others may write to it (mode {:o})", found.mode() & 0o777));
    }
    Ok(())
}

fn read_seal(path: &Path) -> Result<String, String> {
    let file = open(path).map_err(|error| error.to_string())?;
    check_own(&file)?;
    let mut seal = String::new();
    file.take(SEAL_BYTES_MAX).read_to_string(&mut seal).map_err(|error| error.to_string())?;
    Ok(seal)
}

/// Makes the directory, sees that it is the host's own, and says where it is, past all links.
fn prepare(dir: &Path) -> Result<PathBuf, String> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| format!("cannot be made: {error}"))?;
    let dir = trusted_way(dir)?;
    let found = fs::symlink_metadata(&dir).map_err(|error| error.to_string())?;
    check_owner(&found).map_err(|fault| format!("{fault}; make it this user's own, with mode 0700"))?;
    let probe = dir.join(unfinished_name());
    create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(|error| format!("cannot be written to: {error}"))?;
    Ok(dir)
}

/// Follows a path from the root, and sees that nobody else can lead it elsewhere on the way: whoever can write to a
/// directory can put another one in the place of what lies there, and whoever made a link can point it anywhere.
fn trusted_way(dir: &Path) -> Result<PathBuf, String> {
    let absolute = path::absolute(dir).map_err(|error| error.to_string())?;
    let mut parts = parts_of(&absolute);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let unknown = |error: io::Error| format!("{}: {error}", at.join(&part).display());
        let above = fs::symlink_metadata(&at).map_err(unknown)?;
        check_above(&above)
            .map_err(|fault| format!("{fault} {}, where another could be put in its place", at.display()))?;
        let next = at.join(&part);
        let found = fs::symlink_metadata(&next).map_err(unknown)?;
        if !found.is_symlink() {
            at = next;
            continue;
        }
        if !is_ours(found.uid()) {
            return Err(format!("user {} made the link {}, which leads to it", found.uid(), next.display()));
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(format!("too many links lead to it, the last of them {}", next.display()));
        }
        let target = fs::read_link(&next).map_err(unknown)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let mut through = parts_of(&target);
        through.append(&mut parts);
        parts = through;
    }
    Ok(at)
}

fn parts_of(path: &Path) -> VecDeque<OsString> {
    let named = |part: &Part<'_>| matches!(part, Part::Normal(_) | Part::ParentDir);
    path.components().filter(named).map(|part| part.as_os_str().to_owned()).collect()
}

/// Root may do everything anyway.
fn is_ours(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Who besides this user and root could exchange what lies in a directory. A group that has the number of its user is that
/// user's alone, as is usual where new directories can be written to by their group; in that of root are administrators.
fn check_above(found: &Metadata) -> Result<(), String> {
    if !is_ours(found.uid()) {
        return Err(format!("user {} owns", found.uid()));
    }
    let by_group = found.mode() & WRITABLE_BY_GROUP != 0 && !is_ours(found.gid());
    let by_all = found.mode() & WRITABLE_BY_ALL != 0;
    if (by_group || by_all) && found.mode() & STICKY == 0 {
        return Err(format!("others may write (mode {:o}) to", found.mode() & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;
    use crate::engine;

    #[test]
    fn its_own_files_are_told_from_others() {
        let own = format!("{}-{}{COMPILED}", "a0".repeat(32), "0123456789abcdef");
        assert!(is_compiled(&own));
        for other in ["notes.cwasm", "a0-b1.cwasm", &format!("{own}.sha256"), &format!("x{own}"), ".cwasm", "-.cwasm"] {
            assert!(!is_compiled(other), "{other}");
        }
        assert!(is_unfinished(".123-0.tmp") && is_unfinished(&unfinished_name()));
        for other in ["123-0.tmp", ".a-0.tmp", ".123.tmp", ".123-0.tmp.keep", ".tmp"] {
            assert!(!is_unfinished(other), "{other}");
        }
    }

    #[test]
    fn what_is_written_at_once_never_has_one_name() {
        let names: BTreeSet<String> = (0..1000).map(|_| unfinished_name()).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn what_is_kept_is_what_was_compiled_whatever_others_put_in_its_place_meanwhile() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = engine::compiling().expect("it starts");
        let cache = Cache::open(dir.path(), u64::MAX, engine::compatibility(&engine)).expect("it is trusted");
        let empty = wat::parse_str("(component)").expect("it is well formed");
        let code = engine.precompile_component(&empty).expect("it compiles");
        let digest = digest_of(&empty);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // Another host on the same folder.
            scope.spawn(|| {
                let (theirs, path) = (dir.path().join("theirs"), cache.path(&digest));
                while !done.load(Ordering::Relaxed) {
                    fs::write(&theirs, "no code").and_then(|()| fs::rename(&theirs, &path)).expect("it can write");
                }
            });
            let kept = (0..200).filter(|_| cache.keep(&engine, &digest, &code).is_some()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(kept, 200);
        });
    }
}
