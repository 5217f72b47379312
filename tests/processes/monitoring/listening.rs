//! Tests of `--http` on machines with an unusual network configuration.

use std::process::Command;

use testkit::exit_status::FAILED;
use testkit::{Candidate, TestLock, Witnesses, harness};

/// Returns an error if a process in a new user namespace cannot be started, or may listen on port 1.
fn check_port_1_is_forbidden_in_user_namespaces() -> Result<(), String> {
    const SCRIPT: &str = "test $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start) -gt 1 || \
                          { echo 'every user may listen on port 1' >&2; exit 1; }";
    unshare(&["--user", "sh", "-c", SCRIPT])
}

/// Returns an error if a new network namespace cannot be created, or has no IPv6.
fn check_can_use_ipv6_in_network_namespaces() -> Result<(), String> {
    let script = format!("{LOOPBACK_UP} test -e {BINDV6ONLY} || {{ echo 'no IPv6' >&2; exit 1; }}");
    unshare(&["--map-root-user", "--net", "sh", "-c", &script])
}

/// Runs `unshare` with these arguments. If it fails, returns what it has written to stderr.
fn unshare(arguments: &[&str]) -> Result<(), String> {
    match Command::new("unshare").args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// In a new user namespace, even root is not allowed to listen on ports below `ip_unprivileged_port_start`.
#[testkit::test(requires = check_port_1_is_forbidden_in_user_namespaces())]
fn no_command_is_started_if_listening_on_the_port_is_not_permitted() {
    let witnesses = Witnesses::new();
    let candidate =
        Candidate::program("a", "unshare").args(["--user", harness::leaderrun(), "--lock", &TestLock::file().name]);
    let mut a = candidate.args(["--http", "127.0.0.1:1"]).run_witness(&witnesses, &[]);
    a.wait_for_exit(FAILED);
    let expected =
        "error: --http 127.0.0.1:1: cannot listen: Permission denied; try --http 127.0.0.1:0 for any free port\n";
    assert!(a.log().ends_with(expected) && a.log().lines().count() == 1, "{}", a.log());
    witnesses.assert_runs_one_at_a_time(0);
}

/// The file that determines whether an IPv6 socket accepts only IPv6 connections by default.
const BINDV6ONLY: &str = "/proc/sys/net/ipv6/bindv6only";

/// The beginning of a script that runs in a new network namespace. It brings up the loopback interface, which is the
/// only one there.
const LOOPBACK_UP: &str = "ip link set lo up || ifconfig lo up || exit 1;";

#[testkit::test(requires = check_can_use_ipv6_in_network_namespaces())]
fn a_port_without_an_address_listens_on_both_address_families() {
    let request = |address: &str| {
        format!("exec 3<>/dev/tcp/{address}/8080; printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3")
    };
    let requests = ["127.0.0.1", "::1"].map(|address| format!("({})", request(address))).join(" && ");
    for bindv6only in ["0", "1"] {
        let (lock, leaderrun) = (TestLock::file().name, harness::leaderrun());
        let script = format!(
            "{LOOPBACK_UP} echo {bindv6only} > {BINDV6ONLY}; exec {leaderrun} --lock {lock} --http :8080 -- bash -c \"$1\""
        );
        let arguments = ["--map-root-user", "--net", "sh", "-c", &script, "sh", &requests];
        let mut a = Candidate::program("a", "unshare").args(arguments).start();
        a.wait_for_exit(0);
        assert_eq!(a.output(), "HTTP/1.0 200 OK\r\n".repeat(2), "bindv6only {bindv6only}: {}", a.log());
    }
}
