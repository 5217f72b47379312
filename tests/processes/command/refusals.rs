//! Tests of system calls and resources that a sandbox or a resource limit refuses.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

use testkit::exit_status::{FAILED, UNAVAILABLE};
use testkit::{Candidate, Cluster, Proxy, Running, TIMING, TestLock, eventually, leaderrun, scratch};

use crate::other_users::{ROOT, become_user, check_root, create_reachable_directory, leaderrun_for_all_users};

/// Makes one system call of a command fail, as a container runtime's seccomp profile does.
fn refuse_system_call(command: &mut Command, call: libc::c_long, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k: call as u32 },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: only system calls are made between fork and exec. The filter exists until the kernel has read it.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Runs leaderrun with a system call that fails with this error.
fn run_without(call: libc::c_long, errno: i32) -> Running {
    let candidate = Candidate::new("a", &TestLock::file()).args(["--wait", "5s"]);
    candidate.configure(|command| refuse_system_call(command, call, errno)).run_script("echo ran")
}

#[testkit::test]
fn the_message_about_a_refused_system_call_names_the_call() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for (name, call) in [
            ("clock_gettime", libc::SYS_clock_gettime),
            ("clone", libc::SYS_clone),
            ("epoll_create1", libc::SYS_epoll_create1),
            ("epoll_ctl", libc::SYS_epoll_ctl),
            ("eventfd2", libc::SYS_eventfd2),
            ("fcntl", libc::SYS_fcntl),
            ("getpid", libc::SYS_getpid),
            ("getppid", libc::SYS_getppid),
            ("kill", libc::SYS_kill),
            ("pidfd_open", libc::SYS_pidfd_open),
            ("pipe2", libc::SYS_pipe2),
            ("prctl", libc::SYS_prctl),
            ("recvfrom", libc::SYS_recvfrom),
            ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
            ("sendto", libc::SYS_sendto),
            ("setpgid", libc::SYS_setpgid),
            ("signalfd4", libc::SYS_signalfd4),
            ("socketpair", libc::SYS_socketpair),
            ("timerfd_create", libc::SYS_timerfd_create),
            ("timerfd_settime", libc::SYS_timerfd_settime),
            ("wait4", libc::SYS_wait4),
        ] {
            let mut a = run_without(call, errno);
            let status = a.wait().code();
            assert_eq!(status, Some(FAILED), "{name}: {}", a.log());
            let expected = format!("leaderrun: the system call {name} failed: ");
            assert!(a.log().starts_with(&expected) && a.log().lines().count() == 1, "{name}: {}", a.log());
            assert_eq!(a.output(), "", "{name}: no command should be run");
        }
    }
}

/// Old container runtimes do not know clone3 and refuse it with EPERM. The C library falls back to clone only after
/// ENOSYS.
#[testkit::test]
fn no_command_is_run_if_threads_cannot_be_started() {
    let mut a = run_without(libc::SYS_clone3, libc::EPERM);
    a.wait_for_exit(FAILED);
    let expected = "the system call clone3 failed: Operation not permitted; allow it in the seccomp profile";
    assert!(a.log().contains(expected), "{}", a.log());
    assert_eq!(a.output(), "");
}

#[testkit::test]
fn leaderrun_works_without_the_system_calls_that_it_does_not_need() {
    for (name, call) in [
        ("memfd_create", libc::SYS_memfd_create),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("inotify_init1", libc::SYS_inotify_init1),
        ("close_range", libc::SYS_close_range),
        ("statx", libc::SYS_statx),
        ("fchmod", libc::SYS_fchmod),
    ] {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let mut a = run_without(call, errno);
            a.wait_for_exit(0);
            assert_eq!(a.output(), "ran\n", "{name}");
            assert!(!a.log().contains("cannot release"), "{name}: {}", a.log());
            if name == "memfd_create" {
                assert!(
                    a.log().contains("cannot use leaderrun check: the system call memfd_create failed"),
                    "{}",
                    a.log()
                );
            }
        }
    }
}

/// The directory has the sticky bit, so the error could also mean that only the owner of a file may replace it. The
/// message must not give this as the reason.
#[testkit::test]
fn the_message_about_a_lock_file_that_a_sandbox_refuses_names_the_seccomp_profile() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for call in [libc::SYS_flock, libc::SYS_fsync] {
            let lock = format!("file:{}", create_reachable_directory("sticky", 0o1777).join("job").display());
            let candidate = Candidate::without_default_options("a").args(["--lock", &lock, "--wait", "10s"]);
            let mut a = candidate.configure(|command| refuse_system_call(command, call, errno)).run_script("echo ran");
            a.wait_for_exit(UNAVAILABLE);
            assert!(a.log().contains("seccomp profile"), "{call}: {}", a.log());
        }
    }
}

/// Runs leaderrun with this limit on open files. Only the standard streams are open at the start.
fn run_with_open_files(limit: u32, arguments: &[&str]) -> Running {
    let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    Candidate::program("a", "sh")
        .args(["-c", &script, leaderrun()])
        .args(arguments)
        .configure(|command| {
            command.stdin(Stdio::null());
            // SAFETY: only system calls are made between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    for descriptor in 3..64 {
                        libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
                    }
                    Ok(())
                });
            }
        })
        .start()
}

#[testkit::test]
fn the_message_about_a_low_limit_on_open_files_names_the_required_limit() {
    for limit in [4, 8, 12, 20, 39] {
        for arguments in [&["--lock", &TestLock::file().name, "--", "true"][..], &["status", "--lock", "default/x"]] {
            let mut a = run_with_open_files(limit, arguments);
            a.wait_for_exit(FAILED);
            let expected = format!("leaderrun: the limit on open files is {limit}, but leaderrun needs 40; raise it");
            assert!(a.log().starts_with(&expected), "{}", a.log());
        }
    }
}

#[testkit::test]
fn the_required_limit_on_open_files_is_enough() {
    for lock in [TestLock::file(), TestLock::of_kind("endpoints+lease")] {
        let kubeconfig = lock.kubeconfig.as_ref().map(|path| format!("--kubeconfig={}", path.display()));
        let mut arguments = vec!["--lock", &lock.name, "--http", "127.0.0.1:0"];
        arguments.extend(kubeconfig.as_deref());
        arguments.extend(["--", "sh", "-c", "ulimit -n"]);
        let mut a = run_with_open_files(40, &arguments);
        a.wait_for_exit(0);
        assert_eq!(a.output(), "40\n", "{}", a.log());
    }
}

/// Packages that bundle a dynamic loader start their programs through it. With `--every`, leaderrun re-executes itself
/// before the command runs again.
#[testkit::test(requires = check_loader())]
fn leaderrun_re_executes_itself_when_started_through_the_dynamic_loader() {
    let loader = loader().expect("leaderrun has a dynamic loader");
    let lock = TestLock::file();
    let runs = scratch::directory("runs").join("runs");
    let script = format!("echo run >> {}", runs.display());
    let mut a = Candidate::program("a", &loader)
        .args(["--inhibit-cache", leaderrun(), "--lock", &lock.name, "--every", "1s", "--", "sh", "-c", &script])
        .start();
    eventually("the command has run twice", || fs::read_to_string(&runs).is_ok_and(|runs| runs.lines().count() >= 2));
    a.stop();
}

/// Returns the path of leaderrun's dynamic loader, or `None` if leaderrun is linked statically.
fn loader() -> Option<String> {
    let program = fs::read(leaderrun()).ok()?;
    let start = program.windows(4).take(4096).position(|bytes| bytes == b"/lib")?;
    let name = program[start..].split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

fn check_loader() -> Result<(), String> {
    match loader() {
        Some(loader) if std::path::Path::new(&loader).exists() => Ok(()),
        _ => Err("leaderrun is linked statically, or its loader is not installed".to_owned()),
    }
}

/// Returns the ID of a user who has no processes yet. A user's other processes, even dead ones, would count towards a
/// limit on processes. Each call returns a different user, because tests run at the same time.
fn user_without_processes() -> u32 {
    const USERS_PER_TEST_PROGRAM: u32 = 32;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < USERS_PER_TEST_PROGRAM, "the next user belongs to another test program");
    100_000 + USERS_PER_TEST_PROGRAM * std::process::id() + number
}

/// Runs leaderrun as this user with a limit on a resource. The command exits with status 7.
fn run_with_limit(user: u32, resource: Resource, limit: u64) -> Running {
    let lock = format!("file:{}", create_reachable_directory("limited", 0o777).join("job").display());
    let candidate = Candidate::program("a", leaderrun_for_all_users()).args(["--lock", &lock, "--wait", "10s"]);
    let candidate = candidate.configure(|command| {
        become_user(command, user);
        // SAFETY: only one system call is made between fork and exec.
        unsafe { command.pre_exec(move || setrlimit(resource, limit, limit).map_err(Into::into)) };
    });
    candidate.run_script("exit 7")
}

#[testkit::test]
fn the_message_about_a_small_stack_says_how_much_is_needed() {
    for kilobytes in [64, 128, 384] {
        let mut a = run_with_limit(ROOT, Resource::RLIMIT_STACK, kilobytes * 1024);
        a.wait_for_exit(FAILED);
        let expected = format!("the stack limit in kilobytes is {kilobytes}, but leaderrun needs 512; raise it");
        assert!(a.log().contains(&expected), "{}", a.log());
    }
    run_with_limit(ROOT, Resource::RLIMIT_STACK, 512 * 1024).wait_for_exit(7);
}

#[testkit::test]
fn the_message_about_too_little_memory_says_which_limit_to_raise() {
    let mut refused = 0;
    for megabytes in 2..16 {
        let mut a = run_with_limit(ROOT, Resource::RLIMIT_DATA, megabytes << 20);
        let status = a.wait().code();
        // With very little memory, the kernel kills leaderrun during its exec, so there is no status.
        if status.is_some_and(|status| status != 7) {
            assert_eq!(status, Some(UNAVAILABLE), "{megabytes} MB: {}", a.log());
            assert!(a.log().contains("raise the memory limit (ulimit -d"), "{megabytes} MB: {}", a.log());
            refused += 1;
        }
    }
    // Of these 14 limits, the low ones must be refused, and the high ones must be enough.
    assert!((1..14).contains(&refused), "{refused} limits were refused");
}

#[testkit::test(requires = check_root())]
fn the_message_about_a_limit_on_processes_says_which_limit_to_raise() {
    let mut has_run = false;
    for limit in 3..16 {
        let mut a = run_with_limit(user_without_processes(), Resource::RLIMIT_NPROC, limit);
        has_run = a.wait().code() == Some(7);
        if !has_run {
            a.wait_for_exit(UNAVAILABLE);
            assert!(a.log().contains("; raise the process limit (ulimit -u"), "{limit}: {}", a.log());
        }
    }
    assert!(has_run, "the highest limit should be enough");
}

#[testkit::test(requires = check_root())]
fn the_message_about_a_limit_on_processes_says_which_limit_to_raise_for_a_lock_in_a_cluster() {
    let proxy = Proxy::start(Cluster::shared());
    let kubeconfig = create_reachable_directory("limited-in-a-cluster", 0o755).join("kubeconfig");
    fs::copy(proxy.kubeconfig(), &kubeconfig).expect("the kubeconfig can be copied");
    fs::set_permissions(&kubeconfig, fs::Permissions::from_mode(0o644)).expect("the file mode can be changed");
    for limit in 3..10 {
        let user = user_without_processes();
        let mut a = Candidate::program("a", leaderrun_for_all_users())
            .args(["--lock", &TestLock::lease().name, "--wait", "3s", "--kubeconfig"])
            .args([&kubeconfig])
            .configure(|command| {
                become_user(command, user);
                // SAFETY: only one system call is made between fork and exec.
                unsafe {
                    command.pre_exec(move || setrlimit(Resource::RLIMIT_NPROC, limit, limit).map_err(Into::into))
                };
            })
            .run_script("exit 7");
        if a.wait().code() != Some(7) {
            a.wait_for_exit(UNAVAILABLE);
            assert!(a.log().contains("; raise the process limit (ulimit -u"), "{limit}: {}", a.log());
        }
    }
}

/// A Python program that starts as many processes as the limit permits, and ends with status 7 on SIGTERM.
const FORK_UNTIL_REFUSED: &str = "
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
while True:
    try:
        if os.fork() == 0: signal.pause()
    except BlockingIOError: break
print('no more processes', flush=True)
while True: signal.pause()
";

/// Before leaderrun connects to the API server, it looks up the server's name on a new thread, which the limit can
/// prevent.
#[testkit::test(requires = check_root())]
fn a_command_that_has_reached_the_process_limit_does_not_prevent_renewals_or_its_own_end() {
    let (lock, proxy) = (TestLock::lease(), Proxy::start(Cluster::shared()));
    let kubeconfig = create_reachable_directory("by-name", 0o755).join("kubeconfig");
    let text = fs::read_to_string(proxy.kubeconfig()).expect("the kubeconfig can be read");
    fs::write(&kubeconfig, text.replace("127.0.0.1", "localhost")).expect("the kubeconfig can be written");
    let user = user_without_processes();
    let mut a = Candidate::program("a", leaderrun_for_all_users())
        .args(["--identity", "a", "--lock", &lock.name, "--kubeconfig"])
        .args([kubeconfig])
        .args(TIMING)
        .configure(|command| {
            become_user(command, user);
            // SAFETY: only one system call is made between fork and exec.
            unsafe { command.pre_exec(|| setrlimit(Resource::RLIMIT_NPROC, 40, 40).map_err(Into::into)) };
        })
        .run(["python3", "-c", FORK_UNTIL_REFUSED]);
    eventually("the limit is reached", || a.output().contains("no more processes"));
    // The addresses from a lookup are used for five seconds. If the next lookup fails, they stay in use.
    for _ in 0..10 {
        proxy.break_connections();
        Cluster::shared().wait_for_renewals(&lock, 1);
    }
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(7);
    assert!(!a.log().contains("panicked"), "{}", a.log());
    Candidate::new("b", &lock).run(["true"]).wait_for_exit(0);
}

#[testkit::test(requires = check_root())]
fn a_run_that_cannot_list_processes_leaves_the_lock_free() {
    for lock in [TestLock::file(), TestLock::lease()] {
        let script = "umount -l /proc && exec \"$0\" \"$@\"";
        let a = Candidate::program("a", "unshare").args(["--mount", "sh", "-c", script, leaderrun()]);
        let a = a.args(["--lock", &lock.name]);
        let a = match &lock.kubeconfig {
            Some(kubeconfig) => a.args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()]),
            None => a,
        };
        let mut a = a.run(["true"]);
        a.wait_for_exit(FAILED);
        assert!(a.log().contains("cannot list child processes in /proc"), "{}", a.log());
        Candidate::new("b", &lock).args(["--wait", "0s"]).run(["true"]).wait_for_exit(0);
    }
}
