//! Tests of leaderrun as PID 1, as in a container.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::LazyLock;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use testkit::{Candidate, Running, TestLock, children, eventually, leaderrun};

/// `Ok` if this user can create PID namespaces; otherwise the reason why not.
static CAN_CREATE_NAMESPACES: LazyLock<Result<(), String>> = LazyLock::new(|| {
    let tried =
        Command::new("unshare").args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
});

/// Starts leaderrun as PID 1 of a new namespace. `mount_proc` is the option of `unshare` that mounts /proc, if any.
fn start_as_pid_1(mount_proc: Option<&str>, script: &str) -> Running {
    let mut arguments = vec!["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    arguments.extend(mount_proc);
    let lock = TestLock::file();
    let leaderrun = leaderrun();
    arguments.extend([leaderrun, "--lock", &lock.name, "--lost-grace", "100ms", "--", "sh", "-c", script]);
    Candidate::program("a", "unshare").args(arguments).start()
}

#[testkit::test(requires = CAN_CREATE_NAMESPACES.clone())]
fn leaderrun_as_pid_1_relays_signals_and_reaps_orphans() {
    // The orphan ends after its parent, so leaderrun must reap it.
    let script = r#"
        zombies() { grep -l '^State:.Z' /proc/[0-9]*/status; }
        trap 'while [ "$(zombies)" ]; do sleep 0.05; done; exit 9' TERM
        (setsid sh -c 'sleep 0.2; echo orphan ends' &)
        while :; do sleep 0.05; done
    "#;
    let mut a = start_as_pid_1(Some("--mount-proc"), script);
    eventually("the orphan ends", || a.output().contains("orphan ends"));
    // The started process is `unshare`, and leaderrun is its child.
    let leaderrun = children(a.pid())[0];
    kill(leaderrun, Signal::SIGTERM).expect("the process is alive");
    a.wait_for_exit(9);
}

/// /proc shows the pids of another namespace after `unshare` without `--mount-proc`, or in a container with the host's
/// /proc.
#[testkit::test(requires = CAN_CREATE_NAMESPACES.clone())]
fn leaderrun_as_pid_1_kills_all_processes_even_if_proc_shows_another_namespace() {
    let mut a =
        start_as_pid_1(None, "trap '' TERM; (setsid sh -c \"trap '' TERM; while :; do sleep 0.05; done\" &) ; exit 5");
    a.wait_for_exit(5);
}

/// PID 1 loses a signal that it has neither blocked nor handled. While leaderrun parses the command line, it reads the
/// host name, which is part of the default identity. The test waits for that system call.
#[testkit::test]
fn signals_are_blocked_before_the_command_line_is_parsed() {
    let mut command = Command::new(leaderrun());
    command.args(["--lock", &TestLock::file().name, "--", "true"]).stderr(Stdio::null());
    // SAFETY: only one system call is made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let traced = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            nix::Error::result(traced).map(drop).map_err(Into::into)
        });
    }
    let traced = Pid::from_raw(command.spawn().expect("leaderrun can be started").id() as i32);
    let read = |file: &str| fs::read_to_string(format!("/proc/{traced}/{file}")).expect("the process is stopped");
    loop {
        let stopped = waitpid(traced, None).expect("the process is a child of the test");
        assert!(
            matches!(stopped, WaitStatus::Stopped(..)),
            "leaderrun ended without reading the host name: {stopped:?}"
        );
        if read("syscall").split(' ').next() == Some(&libc::SYS_uname.to_string()) {
            break;
        }
        // SAFETY: the call continues a stopped process until its next system call, and uses no memory of this one.
        let continued = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, traced.as_raw(), ptr::null_mut::<u8>(), 0) };
        assert_eq!(continued, 0, "{}", nix::Error::last());
    }
    let status = read("status");
    let blocked =
        status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("the status lists the blocked signals");
    let blocked = u64::from_str_radix(blocked.trim(), 16).expect("the signal mask is hexadecimal");
    kill(traced, Signal::SIGKILL).expect("the process is stopped");
    waitpid(traced, None).expect("the process is a child of the test");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        assert!(blocked & (1 << (signal as i32 - 1)) != 0, "{signal} is not blocked: {blocked:x}");
    }
}
