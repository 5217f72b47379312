//! Both of leaderrun's processes are killed at the same instant: the kernel kills the command.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use testkit::{Candidate, Running, TestLock, Witnesses, descendants, eventually, is_alive};

use crate::other_users::{ANN, become_user, open_folder, program, root};

/// Commands of several processes, with their number once `ready` was written.
const COMMANDS: [(&str, usize); 4] = [
    ("echo ready; exec sleep 1000", 1),
    ("sleep 1000 & echo ready; wait", 2),
    ("trap '' TERM HUP; (trap '' TERM; sleep 1000 | sleep 1000) & echo ready; wait", 4),
    ("sh -c 'sleep 1000; true' & sleep 1000 | cat | sleep 1000 & echo ready; sleep 1000; true", 6),
];

/// Kills both processes. They are frozen first, so that neither sees the other's death.
fn kill_both(running: &Running) {
    let both = [running.elector(), running.supervisor()];
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        both.iter().for_each(|process| kill(*process, signal).expect("it is alive"));
    }
}

/// Returns the processes of the command once it is ready and there are this many.
fn command(running: &Running, processes: usize) -> Vec<Pid> {
    eventually("the command is ready", || running.output().contains("ready"));
    let supervisor = running.supervisor();
    eventually("it has all its processes", || descendants(supervisor).len() >= processes);
    descendants(supervisor)
}

#[track_caller]
fn assert_killed_with_both(mut running: Running, processes: usize) {
    let command = command(&running, processes);
    kill_both(&running);
    eventually("all processes of the command are dead", || command.iter().all(|process| !is_alive(process)));
    running.wait();
}

#[testkit::test]
fn a_command_with_children_dies_with_both_processes() {
    for (script, processes) in COMMANDS {
        assert_killed_with_both(Candidate::new("a", &TestLock::file()).run_script(script), processes);
    }
}

#[testkit::test(requires = root())]
fn a_command_of_an_ordinary_user_dies_with_both_processes() {
    for (script, processes) in COMMANDS {
        let lock = format!("file:{}", open_folder("ordinary", 0o777).join("job").display());
        let running = Candidate::program("a", program())
            .args(["--lock", &lock])
            .configure(|command| become_user(command, ANN))
            .run_script(script);
        assert_killed_with_both(running, processes);
    }
}

#[testkit::test(requires = root())]
fn a_command_that_has_changed_its_user_dies_with_both_processes() {
    for (script, processes) in COMMANDS {
        let other = ["setpriv", "--reuid", "20001", "--regid", "20001", "--clear-groups", "sh", "-c", script];
        assert_killed_with_both(Candidate::new("a", &TestLock::file()).run(other), processes);
    }
}

#[testkit::test]
fn a_command_that_closes_every_descriptor_dies_with_both_processes() {
    let script = "import os, time; os.write(1, b'ready\\n'); os.closerange(0, 1024); time.sleep(1000)";
    let running = Candidate::new("a", &TestLock::file()).run(["python3", "-c", script]);
    assert_killed_with_both(running, 1);
}

#[testkit::test]
fn operations_on_its_descriptors_do_not_kill_a_command() {
    let script = r#"
used=
for fd in /proc/self/fd/*; do
    number=${fd##*/}
    [ "$number" -ge 10 ] && [ -S $fd ] || continue
    timeout 5 cat <&$number
    echo x >&$number
    echo x >$fd
    sh -c "exec $number>&-"
    eval "exec $number>&-"
    used=yes
done
[ $used ] && exit 7
"#;
    let mut running = Candidate::new("a", &TestLock::file()).run(["bash", "-c", script]);
    running.wait_for_exit(7);
}

#[testkit::test]
fn a_command_is_stopped_in_order_while_one_process_is_alive() {
    for kills_elector in [false, true] {
        let script =
            "trap 'echo stopping; sleep 0.3; echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let mut running = Candidate::new("a", &TestLock::file()).run_script(script);
        eventually("the command is ready", || running.output().contains("ready"));
        let (elector, supervisor) = (running.elector(), running.supervisor());
        let (killed, survivor) = if kills_elector { (elector, supervisor) } else { (supervisor, elector) };
        kill(killed, Signal::SIGKILL).expect("it is alive");
        if kills_elector {
            eventually("the command was stopped in order", || running.output().contains("stopped"));
        } else {
            // The elector can only kill the command.
            running.wait_for_exit(76);
        }
        eventually("the survivor ends", || !is_alive(survivor));
    }
}

#[testkit::test]
fn the_next_command_starts_after_the_previous_one_is_dead() {
    for lock in [TestLock::file(), TestLock::lease()] {
        let witnesses = Witnesses::new();
        let a = Candidate::new("a", &lock).run_witness(&witnesses, &["ignore"]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
        b.wait_for_log("is held by a");
        kill_both(&a);
        witnesses.wait_for("b", 1);
        b.stop();
        witnesses.assert_one_at_a_time(2);
    }
}

#[testkit::test]
fn killing_leaderrun_by_name_leaves_the_supervisor_alive() {
    let running = Candidate::new("a", &TestLock::file()).run_script("echo ready; exec sleep 1000");
    eventually("the command is ready", || running.output().contains("ready"));
    let read = |process: Pid, file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("a name");
    assert_eq!(read(running.elector(), "comm"), "leaderrun\n");
    assert!(read(running.elector(), "cmdline").contains("leaderrun\0--lock"));
    assert_eq!(read(running.supervisor(), "comm"), "lr-supervisor\n");
    assert_eq!(read(running.supervisor(), "cmdline").trim_end_matches('\0'), "lr-supervisor");
}
