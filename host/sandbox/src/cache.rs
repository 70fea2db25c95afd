//! Compiled modules on disk, so that a restart does not compile again: seconds for an interpreter.
//!
//! A compiled module is native code that runs with all the rights of the host. Only files that the host wrote itself may
//! be loaded, so the directory must be the host's own and closed to others, and every file is checked against its digest.
//! Nothing here ever fails a load: without a cache, modules are compiled.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use wasmtime::{Engine, component::Component};

use crate::digest::{digest_of, hex_of};

/// Others may not write here, or they could have their code run by the host.
const WRITABLE_BY_OTHERS: u32 = 0o022;

#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    compatibility: String,
}

impl Cache {
    /// Makes the directory if need be. `None` if it is not to be trusted or cannot be used, which is logged.
    pub(crate) fn open(dir: &Path, compatibility: String) -> Option<Self> {
        match prepare(dir) {
            Ok(()) => Some(Self { dir: dir.to_owned(), compatibility }),
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

    /// Keeps a compiled module.
    pub(crate) fn store(&self, digest: &str, component: &Component) {
        let path = self.path(digest);
        let kept = component.serialize().map_err(|error| format!("{error:#}")).and_then(|code| {
            // The digest first: a file whose digest is not there yet would be taken for damaged.
            self.write(&seal_of(&path), digest_of(&code).as_bytes())
                .and_then(|()| self.write(&path, &code))
                .map_err(|error| error.to_string())
        });
        if let Err(fault) = kept {
            tracing::warn!(path = %path.display(), fault, "a compiled module could not be cached");
        }
    }

    #[allow(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
    fn read(&self, engine: &Engine, path: &Path) -> Result<Component, Miss> {
        let code = match fs::read(path) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Absent),
            Err(error) => return Err(Miss::Unusable(error.to_string())),
        };
        let seal = fs::read_to_string(seal_of(path)).map_err(|error| Miss::Unusable(format!("no digest: {error}")))?;
        let found = digest_of(&code);
        if seal != found {
            return Err(Miss::Unusable(format!("it has digest {found}, but was written with {seal}")));
        }
        // SAFETY: the file is what `store` got from `Component::serialize`, as its digest shows, in a directory that
        // belongs to this user and that nobody else may write to, as `prepare` has checked. A file is replaced by
        // renaming, never written in place, so what is mapped does not change. wasmtime checks its own version, the
        // settings and the processor.
        unsafe { Component::deserialize_file(engine, path) }.map_err(|error| Miss::Unusable(format!("{error:#}")))
    }

    /// Under another name first, so that no reader ever sees half of it.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished = self.dir.join(format!(".{}-{}.tmp", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let written = create(&unfinished)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            // It may never have been made; either way there is nothing more to do about it.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{}-{}.cwasm", hex_of(digest), self.compatibility))
    }
}

enum Miss {
    Absent,
    Unusable(String),
}

fn seal_of(path: &Path) -> PathBuf {
    path.with_extension("cwasm.sha256")
}

fn create(path: &Path) -> io::Result<File> {
    // Left over from a process of the same number that was killed.
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the directory and sees that it is the host's own.
fn prepare(dir: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| format!("cannot be made: {error}"))?;
    let found = fs::metadata(dir).map_err(|error| error.to_string())?;
    let mode = found.permissions().mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("others may write to it (mode {:o}); make it 0700", mode & 0o777));
    }
    // What this process creates is its own: the portable way to learn who it runs as.
    let probe = dir.join(format!(".{}-probe.tmp", process::id()));
    let own = create(&probe).and_then(|file| file.metadata()).map(|file| file.uid());
    let _ = fs::remove_file(&probe);
    let own = own.map_err(|error| format!("cannot be written to: {error}"))?;
    if own != found.uid() {
        return Err(format!("it belongs to user {}, not to {own}, whom this process runs as", found.uid()));
    }
    Ok(())
}
