//! The CPU limits that the cgroups of this process set.
//!
//! The cgroup of this process and each cgroup above it may have a limit, and all limits apply. The limits of a running
//! container can be changed, so they are read repeatedly.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use leaderrun_core::kill_time::CpuLimit;

/// The mount points of cgroup v2, and of the CPU controller of cgroup v1.
const ROOTS: [(CgroupVersion, &str); 2] =
    [(CgroupVersion::V2, "/sys/fs/cgroup"), (CgroupVersion::V1, "/sys/fs/cgroup/cpu")];

/// The maximum number of bytes that are read from a file. It is enough for `cpu.stat`, the longest of the files.
const READ_SIZE: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupVersion {
    V1,
    V2,
}

/// The cgroups whose limits apply to this process.
#[derive(Debug)]
pub struct CpuCgroups {
    cgroups: Vec<CpuCgroup>,
    /// The index of the cgroup that had the lowest limit when the limits were last read; `None` if none had a limit.
    lowest: Option<usize>,
}

#[derive(Debug)]
struct CpuCgroup {
    /// `cpu.max`, or the files of cgroup v1 that contain the quota and the period.
    max: Vec<CgroupFile>,
    /// `cpu.stat`.
    stat: CgroupFile,
}

/// A file of a cgroup. It stays open, because it is read often.
#[derive(Debug)]
struct CgroupFile {
    path: PathBuf,
    file: Option<File>,
}

/// How often a limit has throttled processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    /// The number of periods of the limit so far.
    pub periods: u64,
    /// The number of periods in which the limit was used up.
    pub throttled_periods: u64,
}

impl CpuCgroups {
    /// Finds the cgroups of this process, including those whose CPU controller is not enabled, because it may be
    /// enabled later. There are none if no cgroup file system is mounted.
    pub fn find() -> Self {
        let cgroup_file = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let cgroups = ROOTS.into_iter().flat_map(|(version, root)| {
            let directories =
                path_in(&cgroup_file, version).map_or_else(Vec::new, |path| directories(Path::new(root), path));
            let existing = directories.into_iter().filter(|directory| directory.is_dir());
            existing.map(move |directory| CpuCgroup::new(version, &directory))
        });
        Self { cgroups: cgroups.collect(), lowest: None }
    }

    /// Reads all limits, and returns the lowest one.
    pub fn read_limit(&mut self) -> Option<CpuLimit> {
        let limits = self.cgroups.iter_mut().enumerate();
        let limited = limits.filter_map(|(index, cgroup)| Some((parse_max(&cgroup.read_max()?)?, index)));
        let lowest = limited.min_by(|(one, _), (other, _)| one.cpus().total_cmp(&other.cpus()));
        self.lowest = lowest.map(|(_, index)| index);
        lowest.map(|(limit, _)| limit)
    }

    /// Returns how many times the limit that [`read_limit`](Self::read_limit) returned last has throttled processes.
    pub fn throttling(&mut self) -> Option<Throttling> {
        parse_throttling(&self.cgroups[self.lowest?].stat.read()?)
    }
}

impl CpuCgroup {
    fn new(version: CgroupVersion, directory: &Path) -> Self {
        let names: &[&str] = match version {
            CgroupVersion::V1 => &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
            CgroupVersion::V2 => &["cpu.max"],
        };
        let file = |name: &str| CgroupFile::new(directory.join(name));
        Self { max: names.iter().map(|name| file(name)).collect(), stat: file("cpu.stat") }
    }

    /// Returns a quota and a period in the format of `cpu.max`.
    fn read_max(&mut self) -> Option<String> {
        let parts: Option<Vec<String>> = self.max.iter_mut().map(CgroupFile::read).collect();
        Some(parts?.join(" "))
    }
}

impl CgroupFile {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Returns the current contents. A file that was missing or removed is opened again, because the kernel creates it
    /// when its controller is enabled.
    fn read(&mut self) -> Option<String> {
        let contents = self.file.as_ref().and_then(read);
        contents.or_else(|| {
            self.file = File::open(&self.path).ok();
            self.file.as_ref().and_then(read)
        })
    }
}

fn read(file: &File) -> Option<String> {
    let mut contents = vec![0; READ_SIZE];
    let length = file.read_at(&mut contents, 0).ok()?;
    contents.truncate(length);
    String::from_utf8(contents).ok()
}

/// Returns the path of this process's cgroup below the root, from the contents of `/proc/self/cgroup`.
fn path_in(cgroup_file: &str, version: CgroupVersion) -> Option<&str> {
    cgroup_file.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let version_matches = match version {
            CgroupVersion::V1 => controllers.split(',').any(|controller| controller == "cpu"),
            CgroupVersion::V2 => controllers.is_empty(),
        };
        version_matches.then_some(path)
    })
}

/// Returns the directories of a cgroup and of all cgroups above it. In a container the file system may show only a part
/// of the hierarchy, so some of these directories may not exist.
fn directories(root: &Path, path: &str) -> Vec<PathBuf> {
    let names = Path::new(path).components().filter(|component| matches!(component, Component::Normal(_)));
    let own_directory = names.fold(root.to_owned(), |directory, name| directory.join(name));
    own_directory.ancestors().take_while(|directory| directory.starts_with(root)).map(Path::to_owned).collect()
}

/// Parses `cpu.max`, a quota and a period in microseconds. Without a limit the quota is `max`, or -1 in cgroup v1.
fn parse_max(max: &str) -> Option<CpuLimit> {
    let (quota, period) = max.split_once(' ')?;
    let microseconds =
        |number: &str| number.trim().parse().ok().filter(|number| *number > 0).map(Duration::from_micros);
    Some(CpuLimit { quota: microseconds(quota)?, period: microseconds(period)? })
}

/// Parses `cpu.stat`.
fn parse_throttling(stat: &str) -> Option<Throttling> {
    let count = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some(Throttling { periods: count("nr_periods ")?, throttled_periods: count("nr_throttled ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_throttling_of_both_versions_are_parsed() {
        let limit = CpuLimit { quota: Duration::from_millis(10), period: Duration::from_millis(100) };
        assert_eq!(parse_max("10000 100000\n"), Some(limit));
        for unlimited in ["max 100000\n", "-1\n 100000\n", "0 0", " ", ""] {
            assert_eq!(parse_max(unlimited), None, "{unlimited}");
        }
        let stat = "nr_periods 100\nnr_throttled 12\nthrottled_time 5\n";
        assert_eq!(parse_throttling(stat), Some(Throttling { periods: 100, throttled_periods: 12 }));
        assert_eq!(parse_throttling(""), None);
    }

    #[test]
    fn the_cgroup_is_found_in_both_versions() {
        let cgroup_file = "3:cpuset:/\n1:cpu,cpuacct:/docker/1\n0::/system.slice/job.service\n";
        assert_eq!(path_in(cgroup_file, CgroupVersion::V1), Some("/docker/1"));
        assert_eq!(path_in(cgroup_file, CgroupVersion::V2), Some("/system.slice/job.service"));
        assert_eq!(path_in("3:cpuset:/\n", CgroupVersion::V1), None);
    }

    #[test]
    fn the_directories_of_all_enclosing_cgroups_are_found() {
        let root = Path::new("/cgroup");
        assert_eq!(directories(root, "/a/b"), ["/cgroup/a/b", "/cgroup/a", "/cgroup"].map(PathBuf::from));
        assert_eq!(directories(root, "/"), [root]);
        assert_eq!(directories(root, "/../../elsewhere"), ["/cgroup/elsewhere", "/cgroup"].map(PathBuf::from));
    }

    #[test]
    fn a_file_is_read_again_after_its_cgroup_was_removed_and_created_again() {
        for (_, root) in ROOTS {
            let cgroup = Path::new(root).join(format!("leaderrun-test-{}", std::process::id()));
            // Only root may create cgroups, and the file system may be read-only.
            if fs::create_dir(&cgroup).is_err() {
                continue;
            }
            let mut file = CgroupFile::new(cgroup.join("cpu.stat"));
            let created = file.read();
            fs::remove_dir(&cgroup).unwrap();
            let removed = file.read();
            fs::create_dir(&cgroup).unwrap();
            let created_again = file.read();
            fs::remove_dir(&cgroup).unwrap();
            assert_eq!((removed, created_again.is_some()), (None, created.is_some()), "{root}");
        }
    }
}
