//! Opens files that users name. What lies there may be no file at all, and whoever opens a named pipe waits for one who
//! writes, for ever if nobody does.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a file, or what a link to a file leads to. Waits for nothing but the file system.
///
/// # Errors
/// What is no file, with what it is; whatever keeps a file from being opened.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: some devices do something then.
    let found = fs::metadata(path)?.file_type();
    if !found.is_file() {
        let found = match found {
            _ if found.is_dir() => "a folder",
            _ if found.is_fifo() => "a named pipe",
            _ if found.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(io::Error::other(format!("expected a file, found {found}")));
    }
    // It may be another one meanwhile. This means nothing to a file, and a pipe waits for nobody.
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// All that is in a file, for one that is small.
///
/// # Errors
/// As [`open`], and whatever keeps it from being read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use tempfile::TempDir;

    use super::*;

    /// Makes a pipe that nobody writes to.
    #[track_caller]
    pub(crate) fn make_pipe(path: &Path) {
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    }

    #[test]
    fn what_is_no_file_is_refused_at_once_and_a_link_to_a_file_is_one() {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        make_pipe(&at("pipe"));
        symlink(at("pipe"), at("link-to-pipe")).expect("linked");
        fs::write(at("file"), "x").expect("written");
        symlink(at("file"), at("link-to-file")).expect("linked");
        let refused = |path: &Path| open(path).expect_err("refused").to_string();
        assert_eq!(refused(&at("pipe")), "expected a file, found a named pipe");
        assert_eq!(refused(&at("link-to-pipe")), "expected a file, found a named pipe");
        assert_eq!(refused(folder.path()), "expected a file, found a folder");
        assert_eq!(refused(Path::new("/dev/null")), "expected a file, found a device");
        assert_eq!(read(&at("link-to-file")).expect("a file"), b"x");
    }
}
