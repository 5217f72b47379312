//! Tests in which one or both of leaderrun's processes are killed or frozen. If both are killed at the same instant,
//! the kernel must kill the command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use testkit::exit_status::LOST;
use testkit::{Candidate, Running, TIMING, TestLock, Witnesses, descendants, eventually, is_alive, leaderrun};

use crate::other_users::{
    ANN, become_user, check_root, copy_leaderrun, create_reachable_directory, leaderrun_for_all_users,
};

/// Scripts that print `ready`, each with the number of processes it consists of, including the shell. The tests wait
/// until all of them have started.
const COMMANDS: [(&str, usize); 4] = [
    ("echo ready; exec sleep 1000", 1),
    ("sleep 1000 & echo ready; wait", 2),
    ("trap '' TERM HUP; (trap '' TERM; sleep 1000 | sleep 1000) & echo ready; wait", 4),
    ("sh -c 'sleep 1000; true' & sleep 1000 | cat | sleep 1000 & echo ready; sleep 1000; true", 7),
];

/// Kills the supervisor and the elector. Both are frozen first, so that neither can react to the death of the other.
/// The elector is killed last, because the kernel thaws a frozen process whose parent dies.
fn kill_both(running: &Running) {
    let both = [running.supervisor(), running.elector()];
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        send(signal, &both);
    }
}

fn send(signal: Signal, processes: &[Pid]) {
    processes.iter().for_each(|process| kill(*process, signal).expect("the process is alive"));
}

/// Waits until the command is ready and has at least this many processes. Returns its processes.
fn command_processes(running: &Running, processes: usize) -> Vec<Pid> {
    eventually("the command is ready", || running.output().contains("ready"));
    let supervisor = running.supervisor();
    eventually("the command has all its processes", || descendants(supervisor).len() >= processes);
    descendants(supervisor)
}

/// Checks that the command, which has this many processes, dies when both of leaderrun's processes are killed.
#[track_caller]
fn assert_dies_when_both_are_killed(running: Running, processes: usize) {
    let command = command_processes(&running, processes);
    kill_both(&running);
    assert_dies(running, &command);
}

/// Waits until all of these processes of the command are dead and leaderrun has ended.
#[track_caller]
fn assert_dies(mut running: Running, command: &[Pid]) {
    eventually("all processes of the command are dead", || command.iter().all(|process| !is_alive(process)));
    running.wait();
}

#[testkit::test]
fn a_command_and_its_children_die_when_elector_and_supervisor_are_killed() {
    for (script, processes) in COMMANDS {
        assert_dies_when_both_are_killed(Candidate::new("a", &TestLock::file()).run_script(script), processes);
    }
}

/// Starts a leader as an ordinary user, with this script as its command.
fn start_as_ordinary_user(script: &str) -> Running {
    let lock = format!("file:{}", create_reachable_directory("ordinary", 0o777).join("job").display());
    Candidate::program("a", leaderrun_for_all_users())
        .args(["--lock", &lock, "--lease-duration", "6s", "--renew-deadline", "4s", "--retry-period", "1s"])
        .configure(|command| become_user(command, ANN))
        .configure(lead_session)
        .run_script(script)
}

#[testkit::test(requires = check_root())]
fn a_command_of_an_ordinary_user_dies_when_elector_and_supervisor_are_killed() {
    for (script, processes) in COMMANDS {
        assert_dies_when_both_are_killed(start_as_ordinary_user(script), processes);
    }
}

#[testkit::test(requires = check_root().and_then(|()| testkit::check_installed("pkill")))]
fn a_command_of_an_ordinary_user_dies_when_leaderrun_is_killed_by_name() {
    for pattern in NAME_PATTERNS {
        let leaders = COMMANDS.map(|(script, processes)| {
            let leader = start_as_ordinary_user(script);
            let command = command_processes(&leader, processes);
            (leader, command)
        });
        leaders.iter().for_each(|(leader, _)| pkill(leader, pattern));
        leaders.into_iter().for_each(|(leader, command)| assert_dies(leader, &command));
    }
}

#[testkit::test(requires = check_root())]
fn a_command_that_has_changed_its_user_dies_when_elector_and_supervisor_are_killed() {
    for (script, processes) in COMMANDS {
        let as_other_user = ["setpriv", "--reuid", "20001", "--regid", "20001", "--clear-groups", "sh", "-c", script];
        assert_dies_when_both_are_killed(Candidate::new("a", &TestLock::file()).run(as_other_user), processes);
    }
}

/// Python, like Java, closes all descriptors in the processes that it starts.
#[testkit::test]
fn a_command_that_closes_every_descriptor_dies_when_elector_and_supervisor_are_killed() {
    let closes_own_descriptors = "import os, time; os.write(1, b'ready\\n'); os.closerange(0, 1024); time.sleep(1000)";
    let closes_childs_descriptors =
        "import subprocess; subprocess.run(['sh', '-c', 'sleep 1000 & echo ready; sleep 1000'])";
    for (script, processes) in [(closes_own_descriptors, 1), (closes_childs_descriptors, 4)] {
        let running = Candidate::new("a", &TestLock::file()).run(["python3", "-c", script]);
        let command = command_processes(&running, processes);
        let (elector, supervisor) = (running.elector(), running.supervisor());
        send(Signal::SIGSTOP, &[elector]);
        send(Signal::SIGKILL, &[supervisor]);
        eventually("the main process dies with the supervisor", || !is_alive(command[0]));
        send(Signal::SIGKILL, &[elector]);
        assert_dies(running, &command);
    }
}

#[testkit::test]
fn processes_that_the_main_process_left_running_die_when_elector_and_supervisor_are_killed() {
    let script = "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 1000 & echo ready; sleep 1000'])";
    let running = Candidate::new("a", &TestLock::file()).args(["--wait-for", "all"]).run(["python3", "-c", script]);
    running.wait_for_log("waiting for what it left running");
    assert_dies_when_both_are_killed(running, 3);
}

#[testkit::test]
fn a_command_does_not_inherit_a_socket_of_the_dead_mans_switch() {
    let script = "for file in /proc/self/fd/*; do [ -S $file ] && ls -l $file; done; exit 7";
    let mut running = Candidate::new("a", &TestLock::file()).run_script(script);
    running.wait_for_exit(7);
    assert_eq!(running.output(), "", "the command should have no socket");
}

#[testkit::test]
fn the_surviving_process_ends_the_command() {
    for kills_elector in [false, true] {
        let script =
            "trap 'echo stopping; sleep 0.3; echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let mut running = Candidate::new("a", &TestLock::file()).run_script(script);
        eventually("the command is ready", || running.output().contains("ready"));
        let (elector, supervisor) = (running.elector(), running.supervisor());
        let (killed, survivor) = if kills_elector { (elector, supervisor) } else { (supervisor, elector) };
        kill(killed, Signal::SIGKILL).expect("the process is alive");
        if kills_elector {
            eventually("the command has handled the stop signal", || running.output().contains("stopped"));
        } else {
            // The elector kills the command immediately.
            running.wait_for_exit(LOST);
        }
        eventually("the other process ends", || !is_alive(survivor));
    }
}

/// Patterns for pkill that match the elector, the supervisor, or both.
const NAME_PATTERNS: [&str; 3] = ["leaderrun", "lr-supervisor", "leaderrun|lr-supervisor"];

/// Scripts that run witnesses in the foreground, in a pipeline or in the background, each with the number of witnesses.
const COMMAND_SHAPES: [(&str, usize); 4] =
    [(r#"exec "$@""#, 1), (r#""$@"; true"#, 1), (r#""$@" | "$@""#, 2), (r#""$@" & wait"#, 1)];

/// A leader whose command is running, and a standby for the same lock.
struct LeaderWithStandby {
    witnesses: Witnesses,
    leader: Running,
    standby: Running,
}

impl LeaderWithStandby {
    /// Starts a leader and a standby for each of [`COMMAND_SHAPES`]. The leaders' witnesses ignore SIGTERM. `lock`
    /// creates the lock of each pair, and `program` is the path of the leader's leaderrun.
    fn start_for_each_shape(lock: fn() -> TestLock, program: &str) -> Vec<Self> {
        let start = |(script, processes): (&str, usize)| {
            let (lock, witnesses) = (lock(), Witnesses::new());
            let shell = ["sh", "-c", script, "sh"].map(OsString::from);
            let command = shell.into_iter().chain(witnesses.command(&["ignore"]));
            let leader = Candidate::of_build(program, "a", &lock, TIMING).configure(lead_session).run(command);
            witnesses.wait_for("a", processes);
            let standby = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
            standby.wait_for_log("held by a");
            Self { witnesses, leader, standby }
        };
        COMMAND_SHAPES.into_iter().map(start).collect()
    }

    fn command_is_dead(&self) -> bool {
        self.witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid))
    }
}

/// Makes a process the leader of a new session, so that pkill finds only the processes of this test.
fn lead_session(command: &mut Command) {
    // SAFETY: only one system call is made between fork and exec.
    unsafe { command.pre_exec(|| setsid().map(drop).map_err(Into::into)) };
}

/// Sends SIGKILL to the processes of the leader's session whose names match this pattern.
fn pkill(leader: &Running, pattern: &str) {
    let session = leader.elector().to_string();
    let killed =
        Command::new("pkill").args(["-KILL", "-s", &session, "-x", pattern]).status().expect("pkill can be run");
    assert!(killed.success(), "pkill found no process that matches {pattern}");
}

/// Sends SIGKILL to the processes that killall finds with these arguments.
fn killall(arguments: &[&str]) {
    let killed = Command::new("killall").arg("--signal=KILL").args(arguments).status().expect("killall can be run");
    assert!(killed.success(), "killall found nothing for {arguments:?}");
}

/// Calls `kill` for the leader of each shape, and checks that its command is dead before the standby's command starts.
#[track_caller]
fn assert_one_command_at_a_time(lock: fn() -> TestLock, kill: impl Fn(&Running)) {
    let pairs = LeaderWithStandby::start_for_each_shape(lock, leaderrun());
    pairs.iter().for_each(|pair| kill(&pair.leader));
    assert_standbys_take_over(pairs);
}

/// Checks that each standby takes over, but only after the leader's command is dead.
#[track_caller]
fn assert_standbys_take_over(pairs: Vec<LeaderWithStandby>) {
    for mut pair in pairs {
        pair.witnesses.wait_for("b", 1);
        assert!(pair.command_is_dead());
        pair.standby.stop();
        pair.witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn the_next_command_starts_after_the_previous_one_is_dead() {
    for lock in [TestLock::file, TestLock::lease] {
        assert_one_command_at_a_time(lock, kill_both);
        assert_one_command_at_a_time(lock, |leader| {
            send(Signal::SIGKILL, &[leader.elector(), leader.supervisor()]);
        });
    }
}

#[testkit::test(requires = testkit::check_installed("pkill"))]
fn the_next_command_starts_after_the_previous_one_is_dead_when_either_or_both_processes_are_killed_by_name() {
    for pattern in NAME_PATTERNS {
        for lock in [TestLock::file, TestLock::lease] {
            assert_one_command_at_a_time(lock, |leader| pkill(leader, pattern));
        }
    }
}

/// killall with a path kills both processes, because they execute the same file.
#[testkit::test(requires = testkit::check_installed("killall"))]
fn the_next_command_starts_after_the_previous_one_is_dead_when_leaderrun_is_killed_by_path() {
    for lock in [TestLock::file, TestLock::lease] {
        let program = copy_leaderrun("killed-by-path");
        let pairs = LeaderWithStandby::start_for_each_shape(lock, &program);
        killall(&[&program]);
        assert_standbys_take_over(pairs);
    }
}

/// killall with a name kills all processes of that name, so the test runs leaderrun in a separate PID namespace.
#[testkit::test(requires = check_root().and_then(|()| testkit::check_installed("killall")))]
fn the_next_command_starts_after_the_previous_one_is_dead_when_leaderrun_is_killed_by_name_in_a_pid_namespace() {
    for names in [&["leaderrun"][..], &["lr-supervisor"], &["leaderrun", "lr-supervisor"]] {
        let (lock, witnesses) = (TestLock::file(), Witnesses::new());
        // `sleep` keeps the namespace alive, so that the command is not killed by the end of the namespace.
        let arguments =
            ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "\"$@\" & sleep 1000; true", "sh"];
        let leader = Candidate::program("a", "unshare").args(arguments).args([leaderrun(), "--lock", &lock.name]);
        let leader = leader.args(["--identity", "a"]).args(TIMING).run(witnesses.command(&["ignore"]));
        witnesses.wait_for("a", 1);
        let mut standby = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        standby.wait_for_log("held by a");
        let init = descendants(leader.pid())[0].to_string();
        killall(&[&["--ns", &init], names].concat());
        witnesses.wait_for("b", 1);
        standby.stop();
        witnesses.assert_runs_one_at_a_time(2);
    }
}

/// While both processes are frozen, the command keeps running although another candidate leads. leaderrun does not
/// promise to prevent that.
#[testkit::test]
fn a_command_dies_when_its_frozen_elector_or_supervisor_is_thawed_or_both_are_killed() {
    enum End {
        ElectorIsThawed,
        SupervisorIsThawed,
        BothAreThawed,
        BothDie,
    }
    let pairs = LeaderWithStandby::start_for_each_shape(TestLock::file, leaderrun());
    for pair in &pairs {
        send(Signal::SIGSTOP, &[pair.leader.elector(), pair.leader.supervisor()]);
    }
    let ends = [End::ElectorIsThawed, End::SupervisorIsThawed, End::BothAreThawed, End::BothDie];
    for (pair, end) in pairs.iter().zip(ends) {
        pair.witnesses.wait_for("b", 1);
        assert!(!pair.command_is_dead(), "the command should keep running while both processes are frozen");
        let (elector, supervisor) = (pair.leader.elector(), pair.leader.supervisor());
        match end {
            End::ElectorIsThawed => send(Signal::SIGCONT, &[elector]),
            End::SupervisorIsThawed => send(Signal::SIGCONT, &[supervisor]),
            // The supervisor should have killed the command by now. If the elector were thawed first, it would
            // therefore kill the supervisor, perhaps before the supervisor could be thawed.
            End::BothAreThawed => send(Signal::SIGCONT, &[supervisor, elector]),
            End::BothDie => send(Signal::SIGKILL, &[supervisor, elector]),
        }
        eventually("the command is dead", || pair.command_is_dead());
    }
}

/// The names differ so that `pkill leaderrun` finds only the elector, and the supervisor can end the command.
#[testkit::test]
fn the_elector_and_the_supervisor_have_different_names() {
    let running = Candidate::new("a", &TestLock::file()).run_script("echo ready; exec sleep 1000");
    eventually("the command is ready", || running.output().contains("ready"));
    let read = |process: Pid, file: &str| {
        std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("the process is alive")
    };
    assert_eq!(read(running.elector(), "comm"), "leaderrun\n");
    assert!(read(running.elector(), "cmdline").contains("leaderrun\0--lock"));
    assert_eq!(read(running.supervisor(), "comm"), "lr-supervisor\n");
    assert_eq!(read(running.supervisor(), "cmdline").trim_end_matches('\0'), "lr-supervisor");
}
