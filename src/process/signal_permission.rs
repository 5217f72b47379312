//! Determines whether this process may signal processes of other users.

use std::fs;

/// Capability bits, from <linux/capability.h>.
const CAP_KILL: u64 = 1 << 5;
const CAP_SETUID: u64 = 1 << 7;

/// The processes that this process may signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalPermission {
    /// Processes of any user, because this process has CAP_KILL, or because it has CAP_SETUID and can signal through a
    /// child process that first switches to the target's user.
    AnyUser,
    /// Only processes of this process's own user, which is not root.
    OwnUser,
    /// Only processes of this process's own user, which is root. This process has neither CAP_KILL nor CAP_SETUID. This
    /// is a separate case because root is usually expected to be able to signal every process.
    OnlyRoot,
}

/// Returns which processes this process may signal. If that cannot be determined, returns
/// [`OwnUser`](SignalPermission::OwnUser).
pub fn signal_permission() -> SignalPermission {
    parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse(status: &str) -> SignalPermission {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let capabilities = field("CapEff:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let effective_user = field("Uid:").and_then(|ids| ids.split_ascii_whitespace().nth(1));
    match effective_user {
        _ if capabilities & (CAP_KILL | CAP_SETUID) != 0 => SignalPermission::AnyUser,
        Some("0") => SignalPermission::OnlyRoot,
        _ => SignalPermission::OwnUser,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_kill_or_cap_setuid_permits_signals_to_any_user() {
        let status = |user: u32, mask: u64| format!("Name:\tx\nUid:\t0\t{user}\t0\t0\nCapEff:\t{mask:016x}\n");
        for mask in [CAP_KILL, CAP_SETUID, u64::MAX] {
            assert_eq!(parse(&status(0, mask)), SignalPermission::AnyUser);
        }
        assert_eq!(parse(&status(0, !(CAP_KILL | CAP_SETUID))), SignalPermission::OnlyRoot);
        assert_eq!(parse(&status(1000, 0)), SignalPermission::OwnUser);
    }
}
