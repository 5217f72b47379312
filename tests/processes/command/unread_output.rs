//! Tests that an unread stderr delays neither renewals nor the kill.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{FlowArg, tcflow};
use nix::unistd::write;

use testkit::exit_status::LOST;
use testkit::{Candidate, Cluster, Proxy, Pty, TestLock, Witnesses, is_alive};

/// Fills a pipe, so that the next write to it blocks.
fn fill(pipe: &OwnedFd) {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("the flag can be set");
    while write(pipe, &[b'x'; 4096]).is_ok() {}
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).expect("the flag can be cleared");
}

/// Checks that the leader `a` with this stderr renews its lock, and that after a partition its command is dead before
/// `b` takes over.
fn assert_not_delayed_by(stderr: OwnedFd) {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease();
    let a = Candidate::new("a", &lock.through(proxy.kubeconfig())).args(["-v", "-v"]).configure(|command| {
        command.stderr(Stdio::from(stderr));
    });
    let mut a = a.run_witness(&witnesses, &["hidden", "ignore"]);
    witnesses.wait_for("a", 2);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    Cluster::shared().wait_for_renewals(&lock, 3);
    proxy.partition();
    a.wait_for_exit(LOST);
    assert!(witnesses.lifetimes_of("a").iter().all(|life| !is_alive(life.pid)));
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test]
fn a_full_stderr_pipe_delays_neither_renewals_nor_the_kill() {
    let (_unread, stderr) = std::io::pipe().expect("the pipe can be created");
    let stderr = stderr.into();
    fill(&stderr);
    assert_not_delayed_by(stderr);
}

#[testkit::test]
fn a_terminal_stopped_with_ctrl_s_delays_neither_renewals_nor_the_kill() {
    let terminal = Pty::open();
    tcflow(&terminal.slave, FlowArg::TCOOFF).expect("the terminal stops its output");
    let _master = terminal.master;
    assert_not_delayed_by(terminal.slave);
}
