//! What the machine has.

use std::{fs, path::Path};

/// The memory of this machine, or of the control group that this process is confined to, in bytes; `None` where the
/// system tells neither.
pub(crate) fn memory_bytes() -> Option<u64> {
    let installed = fs::read_to_string("/proc/meminfo").ok().and_then(|told| installed(&told));
    let confined = fs::read_to_string("/proc/self/cgroup").ok().and_then(|told| confined(&told));
    installed.into_iter().chain(confined).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn installed(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least `memory.max` of the group and of all above it. Only version 2 is asked: it is what systems of today have.
fn confined(cgroup: &str) -> Option<u64> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let within = Path::new("/sys/fs/cgroup").join(group);
    let bounds = within.ancestors().take_while(|dir| dir.starts_with("/sys/fs/cgroup"));
    bounds.filter_map(|dir| fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_among_the_others() {
        let told = "MemFree:          123 kB\nMemTotal:       24576000 kB\nSwapTotal: 0 kB\n";
        assert_eq!(installed(told), Some(24_576_000 * 1024));
        assert_eq!(installed("MemTotal: lots\n"), None);
        assert_eq!(confined("11:memory:/old\n"), None);
    }
}
