//! Tests that leaderrun's two processes are locked in memory. If the disk with the program fails together with the
//! network, leaderrun must still be able to end the command.

use std::fs;

use nix::unistd::{Pid, geteuid};

use testkit::{Candidate, TestLock, eventually, leaderrun};

/// Returns the size of the program's executable mapping, the size of its resident part, both in kilobytes, and whether
/// the mapping is locked.
fn executable_mapping(process: Pid) -> (u64, u64, bool) {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).expect("the process is alive");
    let program = fs::canonicalize(leaderrun()).expect("leaderrun exists").display().to_string();
    let (mut size, mut resident, mut is_locked, mut is_text) = (0, 0, true, false);
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let value = |words: &mut std::str::SplitAsciiWhitespace<'_>| words.next().and_then(|word| word.parse().ok());
        match words.next() {
            Some("Size:") if is_text => size += value(&mut words).unwrap_or(0),
            Some("Rss:") if is_text => resident += value(&mut words).unwrap_or(0),
            Some("VmFlags:") if is_text => is_locked &= words.any(|flag| flag == "lo"),
            Some(range) if range.contains('-') => is_text = line.contains(" r-xp ") && line.ends_with(&program),
            _ => {}
        }
    }
    (size, resident, is_locked)
}

/// Returns an error if this user is not root, because the limit on locked memory is usually too low for other users.
fn check_can_lock_memory() -> Result<(), String> {
    geteuid()
        .is_root()
        .then_some(())
        .ok_or_else(|| "the limit on locked memory is usually too low for users other than root".to_owned())
}

#[testkit::test(requires = check_can_lock_memory())]
fn the_code_of_both_processes_is_locked_in_memory() {
    let a = Candidate::new("a", &TestLock::file()).run_script("echo ready; sleep 1000");
    eventually("a leads", || a.output().contains("ready"));
    let is_locked = |process| {
        let (size, resident, is_locked) = executable_mapping(process);
        size > 0 && resident == size && is_locked
    };
    assert!(is_locked(a.elector()));
    // The supervisor locks its memory soon after it has started the command.
    eventually("the supervisor's code is locked in memory", || is_locked(a.supervisor()));
}
