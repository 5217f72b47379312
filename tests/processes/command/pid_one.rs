//! leaderrun as PID 1, as in a container.

use std::process::Command;
use std::sync::LazyLock;

use nix::sys::signal::{Signal, kill};

use testkit::{Candidate, Running, TestLock, children, eventually, leaderrun};

/// Checks whether this user may create PID namespaces.
static NAMESPACES: LazyLock<Result<(), String>> = LazyLock::new(|| {
    let tried =
        Command::new("unshare").args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(failure) => Err(format!("unshare: {failure}")),
    }
});

fn in_namespace(mount_proc: &[&str], script: &str) -> Running {
    let mut arguments = vec!["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    arguments.extend(mount_proc);
    let lock = TestLock::file();
    let leaderrun = leaderrun();
    arguments.extend([leaderrun, "--lock", &lock.name, "--lost-grace", "100ms", "--", "sh", "-c", script]);
    Candidate::program("a", "unshare").args(arguments).start()
}

#[testkit::test(requires = NAMESPACES.clone())]
fn process_one_forwards_signals_reaps_and_exits() {
    // The orphan of the grandchild ends after its parents; leaderrun must reap it.
    let script = r#"
        zombies() { grep -l '^State:.Z' /proc/[0-9]*/status; }
        trap 'while [ "$(zombies)" ]; do sleep 0.05; done; exit 9' TERM
        (setsid sh -c 'sleep 0.2; echo orphan ends' &)
        while :; do sleep 0.05; done
    "#;
    let mut a = in_namespace(&["--mount-proc"], script);
    eventually("the orphan ends", || a.output().contains("orphan ends"));
    let leaderrun = children(a.elector())[0];
    kill(leaderrun, Signal::SIGTERM).expect("it is alive");
    a.wait_for_exit(9);
}

/// `unshare` without `--mount-proc`, or a container with its host's /proc, shows other pids.
#[testkit::test(requires = NAMESPACES.clone())]
fn process_one_kills_with_the_proc_of_an_outer_namespace() {
    let mut a =
        in_namespace(&[], "trap '' TERM; (setsid sh -c \"trap '' TERM; while :; do sleep 0.05; done\" &) ; exit 5");
    a.wait_for_exit(5);
}
