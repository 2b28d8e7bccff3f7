//! The memory that the process may use: the machine's, or the limit of its control group.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// In bytes. `None` if the system does not tell.
pub(crate) fn available() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group =
        read_to_string("/proc/self/cgroup").map(|text| limit(&text, Path::new("/sys/fs/cgroup"))).ok().flatten();
    machine.into_iter().chain(group).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the process's control groups and their parents. `cgroups` is the text of `/proc/self/cgroup`.
fn limit(cgroups: &str, root: &Path) -> Option<u64> {
    cgroups.lines().filter_map(|line| lowest(line, root)).min()
}

fn lowest(line: &str, root: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    // Version 2 has one group without a name; version 1 has one for each set of controllers.
    let (mount, file) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let group: PathBuf = path.trim_start_matches('/').into();
    // In a container the path may be that of the host and not exist: the container's own group is then the mount itself.
    let limits = group.ancestors().map(|group| mount.join(group).join(file));
    // "max" means no limit; version 1 writes a number near 2^63 instead.
    limits.filter_map(|file| read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_memory_is_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24689764 kB\n"), Some(24_689_764 * 1024));
        assert_eq!(total("MemTotal: much\n"), None);
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_lowest_limit_of_all_groups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pod/memory.max", "268435456\n");
        write("pod/one/memory.max", "max\n");
        assert_eq!(limit("0::/pod/one\n", folder.path()), Some(256 << 20));
        write("pod/one/memory.max", "1024\n");
        assert_eq!(limit("0::/pod/one\n", folder.path()), Some(1024));
        assert_eq!(limit("0::/elsewhere\n", folder.path()), None);
        write("memory/limited/memory.limit_in_bytes", "4096\n");
        assert_eq!(limit("9:cpu:/x\n4:foo,memory:/limited\n0::/\n", folder.path()), Some(4096));
        write("memory.max", "2048\n");
        assert_eq!(limit("0::/of/the/host\n", folder.path()), Some(2048), "inside a container");
        assert_eq!(limit("garbage\n1:cpu\n", folder.path()), None);
    }
}
