//! Tests of commands that change their user, so leaderrun is not permitted to signal them directly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use testkit::exit_status::LOST;
use testkit::{Candidate, Running, TestLock, children, eventually, leaderrun};

/// `Ok` if this user can change to another user in a new PID namespace; otherwise the reason why not.
static CAN_CHANGE_USER: LazyLock<Result<(), String>> = LazyLock::new(|| {
    if !geteuid().is_root() {
        return Err("only root may change users".to_owned());
    }
    let tried = Command::new("unshare").args(["--pid", "--fork", "setpriv", "--reuid", "1000", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
});

/// The beginning of a command line that runs a program as user 1000.
const AS_USER: &str = "setpriv --reuid 1000 --regid 1000 --clear-groups";

/// Starts leaderrun as PID 1 of a namespace, as root but without CAP_KILL. Its command runs this script as another
/// user.
fn start_as_pid_1(script: &str) -> Running {
    let lock = TestLock::file();
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let without_kill = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"];
    let options = [leaderrun(), "--lock", &lock.name, "--kill-after", "1s", "--"];
    let command = AS_USER.split(' ').chain(["sh", "-c", script]);
    let arguments = namespace.into_iter().chain(without_kill).chain(options).chain(command);
    Candidate::program("a", "unshare").args(arguments).start()
}

/// Sends a signal to the leaderrun that `unshare` has started.
fn signal_leaderrun(unshare: &Running, signal: Signal) {
    kill(children(unshare.pid())[0], signal).expect("leaderrun is alive");
}

#[testkit::test(requires = CAN_CHANGE_USER.clone())]
fn a_signal_reaches_a_command_of_another_user() {
    let mut a = start_as_pid_1("trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    eventually("the command is ready", || a.output().contains("ready"));
    signal_leaderrun(&a, Signal::SIGTERM);
    a.wait_for_exit(3);
    assert_eq!(a.output(), "ready\ngot it\n", "{}", a.log());
}

#[testkit::test(requires = CAN_CHANGE_USER.clone())]
fn a_command_of_another_user_is_killed() {
    let a = start_as_pid_1("trap '' TERM; (setsid sleep 1000 &); echo ready; while :; do sleep 0.05; done");
    eventually("the command is ready", || a.output().contains("ready"));
    signal_leaderrun(&a, Signal::SIGTERM);
    a.wait_for_log("ended by SIGKILL, and none of its processes is left");
    assert!(!a.log().contains("cannot"), "{}", a.log());
}

#[testkit::test(requires = CAN_CHANGE_USER.clone())]
fn a_command_of_another_user_cannot_stop_the_process_that_kills_it() {
    let a = start_as_pid_1("trap '' TERM; echo ready; while :; do kill -STOP -1; done");
    eventually("the command is ready", || a.output().contains("ready"));
    signal_leaderrun(&a, Signal::SIGTERM);
    a.wait_for_log("ended by SIGKILL, and none of its processes is left");
}

/// A directory that all users can write to, with a copy of leaderrun and a set-user-ID copy of `setpriv`.
struct PublicDirectory(PathBuf);

impl PublicDirectory {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("leaderrun-setuid-{}", std::process::id()));
        fs::create_dir(&directory).expect("the directory can be created");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("the file mode can be changed");
        let which = Command::new("sh").args(["-c", "command -v setpriv"]).output().expect("sh can be run");
        let setpriv = String::from_utf8(which.stdout).expect("the path is valid UTF-8");
        for (program, mode) in [(Path::new(setpriv.trim_end()), 0o4755), (Path::new(leaderrun()), 0o755)] {
            let copy = directory.join(program.file_name().expect("the program has a file name"));
            fs::copy(program, &copy).expect("the program can be copied");
            fs::set_permissions(copy, fs::Permissions::from_mode(mode)).expect("the file mode can be changed");
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for PublicDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// When PID 1 exits, the kernel kills all processes of the namespace, including those of other users.
#[testkit::test(requires = CAN_CHANGE_USER.clone())]
fn leaderrun_as_pid_1_exits_if_it_lacks_permission_to_kill_the_command() {
    let directory = PublicDirectory::new();
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned);
    let user = AS_USER.split(' ').map(str::to_owned);
    let lock = format!("file:{}", directory.path("job.lease"));
    let options = [directory.path("leaderrun"), "--lock".into(), lock, "--".into()];
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let as_root = [directory.path("setpriv"), "--reuid".into(), "0".into(), "sh".into(), "-c".into(), script.into()];
    let arguments = namespace.into_iter().chain(user).chain(options).chain(as_root);
    let mut a = Candidate::program("a", "unshare").args(arguments).start();
    eventually("the command is ready", || a.output().contains("ready"));
    signal_leaderrun(&a, Signal::SIGTERM);
    a.wait_for_log("cannot send SIGTERM to the command: Operation not permitted; run leaderrun as");
    let elector: Pid = children(a.pid())[0];
    kill(children(elector)[0], Signal::SIGKILL).expect("the supervisor is alive");
    a.wait_for_exit(LOST);
    assert!(a.log().contains("exiting as process 1, so that the kernel kills"), "{}", a.log());
}
