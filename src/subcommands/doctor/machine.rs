//! What this machine, or this container, lets leaderrun do in time.

use std::fs;
use std::path::PathBuf;

use super::table::{Row, Table};
use crate::process::memory::{self, Locked};

/// Below this many CPUs a few busy threads of the command are enough to keep leaderrun waiting.
const ENOUGH_CPUS: f64 = 1.0;

/// From <linux/capability.h>.
const CAP_KILL: u64 = 1 << 5;
const CAP_SETUID: u64 = 1 << 7;

/// Looks at the CPU limit, the memory that may be locked, and the right to send signals.
pub fn examine(table: &mut Table) {
    table.add(cpu(cpu_limit()));
    table.add(locked_memory());
    table.add(signals());
}

/// The CPU limit of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CpuLimit {
    cpus: f64,
    /// How many periods there were, and in how many of them processes had to wait.
    periods: Option<(u64, u64)>,
}

fn cpu(limit: Option<CpuLimit>) -> Row {
    let Some(CpuLimit { cpus, periods }) = limit else { return Row::ok("CPU", "no limit by a cgroup") };
    let throttled = match periods {
        Some((periods, throttled)) => format!("; processes had to wait in {throttled} of {periods} periods"),
        None => String::new(),
    };
    let finding = format!("limited to {cpus:.2} CPUs{throttled}");
    if cpus < ENOUGH_CPUS {
        let remedy = "a higher CPU limit or none, or a longer --lease-duration: where many threads of the command are \
                      busy, leaderrun runs late and stops the command so much earlier";
        Row::note("CPU", finding, remedy)
    } else {
        Row::ok("CPU", finding)
    }
}

/// Returns the limit of this process's cgroup, if it has one: of cgroup v2 or of v1.
fn cpu_limit() -> Option<CpuLimit> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let read = |root: &str, file: &str| fs::read_to_string(PathBuf::from(root).join(path).join(file)).ok();
        let limit = if controllers.is_empty() {
            let root = "/sys/fs/cgroup";
            read(root, "cpu.max").and_then(|max| parse_limit(&max, &read(root, "cpu.stat").unwrap_or_default()))
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            let root = "/sys/fs/cgroup/cpu";
            let (quota, period) = (read(root, "cpu.cfs_quota_us"), read(root, "cpu.cfs_period_us"));
            let max = format!("{} {}", quota.unwrap_or_default().trim(), period.unwrap_or_default().trim());
            parse_limit(&max, &read(root, "cpu.stat").unwrap_or_default())
        } else {
            None
        };
        if limit.is_some() {
            return limit;
        }
    }
    None
}

/// Parses `cpu.max`, a quota and a period in microseconds, and `cpu.stat`.
fn parse_limit(max: &str, stat: &str) -> Option<CpuLimit> {
    let (quota, period) = max.trim().split_once(' ')?;
    // Without a limit the quota is `max`, or -1 in cgroup v1.
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    let count = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let periods = count("nr_periods ").zip(count("nr_throttled "));
    Some(CpuLimit { cpus: quota as f64 / period.max(1) as f64, periods })
}

fn locked_memory() -> Row {
    match memory::lock() {
        Locked::Everything => Row::ok("memory", "all of leaderrun can be locked in memory"),
        Locked::Partly { locked, of, errno } => Row::note(
            "memory",
            format!(
                "only {} of {} kB of leaderrun can be locked in memory: {}",
                locked / 1024,
                of / 1024,
                errno.desc()
            ),
            "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=), if leaderrun is on a network disk",
        ),
    }
}

fn signals() -> Row {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let is_root = field("Uid:").and_then(|ids| ids.split_ascii_whitespace().nth(1)) == Some("0");
    let capabilities = field("CapEff:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if capabilities & (CAP_KILL | CAP_SETUID) != 0 {
        Row::ok("signals", "can be sent to a command of any user")
    } else if is_root {
        let finding = "leaderrun is root without CAP_KILL: a command that changes to another user cannot be stopped";
        Row::note("signals", finding, "add the capability KILL, or run leaderrun as the command's user")
    } else {
        Row::ok("signals", "can be sent to a command that does not change its user")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions_are_parsed() {
        let stat = "nr_periods 100\nnr_throttled 12\nthrottled_time 5\n";
        let limit = CpuLimit { cpus: 0.1, periods: Some((100, 12)) };
        assert_eq!(parse_limit("10000 100000\n", stat), Some(limit));
        assert_eq!(parse_limit("10000 100000", ""), Some(CpuLimit { periods: None, ..limit }));
        assert_eq!(parse_limit("max 100000\n", stat), None);
        assert_eq!(parse_limit("-1 100000", stat), None);
        assert_eq!(parse_limit(" ", ""), None);
    }
}
