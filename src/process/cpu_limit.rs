//! The CPU limits that the cgroups of this process set.
//!
//! The cgroup of this process and each cgroup above it may have a limit, and all limits apply. The limits of a running
//! container can be changed, so they are read repeatedly.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use leaderrun_core::kill_time::CpuLimit;

/// The mount points of cgroup v2, and of the CPU controller of cgroup v1.
const ROOTS: [(CgroupVersion, &str); 2] =
    [(CgroupVersion::V2, "/sys/fs/cgroup"), (CgroupVersion::V1, "/sys/fs/cgroup/cpu")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupVersion {
    V1,
    V2,
}

/// The cgroups whose limits apply to this process.
#[derive(Debug)]
pub struct CpuCgroups {
    cgroups: Vec<CpuCgroup>,
    /// The index of the cgroup that had the lowest limit when the limits were last read.
    lowest: Option<usize>,
}

#[derive(Debug)]
struct CpuCgroup {
    version: CgroupVersion,
    directory: PathBuf,
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
    /// Finds the cgroups of this process. There are none if no cgroup file system is mounted.
    pub fn find() -> Self {
        let cgroup_file = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let cgroups = ROOTS.into_iter().flat_map(|(version, root)| {
            let directories =
                path_in(&cgroup_file, version).map_or_else(Vec::new, |path| directories(Path::new(root), path));
            directories.into_iter().map(move |directory| CpuCgroup { version, directory })
        });
        Self { cgroups: cgroups.filter(|cgroup| cgroup.read_max().is_some()).collect(), lowest: None }
    }

    /// Reads all limits, and returns the lowest one.
    pub fn read_limit(&mut self) -> Option<CpuLimit> {
        let limits = self.cgroups.iter().enumerate();
        let limited = limits.filter_map(|(index, cgroup)| Some((parse_max(&cgroup.read_max()?)?, index)));
        let lowest = limited.min_by(|(one, _), (other, _)| one.cpus().total_cmp(&other.cpus()));
        self.lowest = lowest.map(|(_, index)| index);
        lowest.map(|(limit, _)| limit)
    }

    /// Returns how many times the limit that [`read_limit`](Self::read_limit) returned last has throttled processes.
    pub fn throttling(&self) -> Option<Throttling> {
        parse_throttling(&self.cgroups[self.lowest?].read("cpu.stat")?)
    }
}

impl CpuCgroup {
    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.directory.join(file)).ok()
    }

    /// Returns a quota and a period in the format of `cpu.max`.
    fn read_max(&self) -> Option<String> {
        match self.version {
            CgroupVersion::V2 => self.read("cpu.max"),
            CgroupVersion::V1 => {
                Some(format!("{} {}", self.read("cpu.cfs_quota_us")?.trim(), self.read("cpu.cfs_period_us")?))
            }
        }
    }
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
    let (quota, period) = max.trim().split_once(' ')?;
    let microseconds = |number: &str| number.parse().ok().filter(|number| *number > 0).map(Duration::from_micros);
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
    fn limits_of_both_versions_are_parsed() {
        let limit = CpuLimit { quota: Duration::from_millis(10), period: Duration::from_millis(100) };
        assert_eq!(parse_max("10000 100000\n"), Some(limit));
        for unlimited in ["max 100000\n", "-1 100000\n", "0 0", " ", ""] {
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
    fn the_limits_of_all_enclosing_cgroups_apply() {
        let root = Path::new("/cgroup");
        assert_eq!(directories(root, "/a/b"), ["/cgroup/a/b", "/cgroup/a", "/cgroup"].map(PathBuf::from));
        assert_eq!(directories(root, "/"), [root]);
        assert_eq!(directories(root, "/../../elsewhere"), ["/cgroup/elsewhere", "/cgroup"].map(PathBuf::from));
    }
}
