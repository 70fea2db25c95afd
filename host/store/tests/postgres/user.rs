//! Whoever runs what refuses to run as root.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

/// Its user and group: PostgreSQL's own, or nobody's. `None` for whoever is not root.
pub(crate) fn unprivileged() -> Option<(u32, u32)> {
    if !fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        return None;
    }
    let of = |user| Some((id_of(user, "-u")?, id_of(user, "-g")?));
    of("postgres").or_else(|| of("nobody"))
}

fn id_of(user: &str, which: &str) -> Option<u32> {
    let id = Command::new("id").args([which, user]).output().ok()?;
    String::from_utf8(id.stdout).ok()?.trim().parse().ok()
}

/// Leaves a folder to it.
pub(crate) fn give(folder: &Path, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
    }
}
