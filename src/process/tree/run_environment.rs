//! Recognizes the processes of a run by the run ID in their environment.

use nix::errno::Errno;
use nix::unistd::read;

use super::proc::Proc;
use crate::process::deadline::{OUTER_RUNS_VARIABLE, RUN_VARIABLE};

/// The size of the buffer for environments. A variable that does not fit is ignored, because those with run IDs are
/// much shorter.
const BUFFER_SIZE: usize = 16 * 1024;

/// Whether a process belongs to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    Yes,
    No,
    /// The environment cannot be read now: the process has ended, or is in the middle of an exec and has none yet.
    Unreadable,
}

/// Returns whether the environment of a process shows that it belongs to this run, or to another run of leaderrun that
/// this run's command has started.
///
/// # Errors
/// Fails if the environment cannot be opened or read, for example because this user is not permitted to.
pub fn membership(proc: &Proc, number: i32, run: &str) -> nix::Result<Membership> {
    // If the main thread has ended, it has no environment.
    let thread = proc.live_thread(number).unwrap_or(number);
    match find_run(proc, thread, run) {
        Ok((true, _)) => Ok(Membership::Yes),
        // During an exec, the environment seems empty, so the run ID is only known to be missing if all of it was read.
        Ok((false, length)) if proc.environment_length(thread) == Some(length) => Ok(Membership::No),
        Ok((false, _)) | Err(Errno::ENOENT | Errno::ESRCH) => Ok(Membership::Unreadable),
        Err(errno) => Err(errno),
    }
}

/// Reads the environment of a thread up to the run ID. Returns whether the run ID was found, and how many bytes were
/// read.
fn find_run(proc: &Proc, thread: i32, run: &str) -> nix::Result<(bool, u64)> {
    let environment = proc.open_file(thread, "environ")?;
    let mut buffer = [0; BUFFER_SIZE];
    let (mut length, mut filled) = (0, 0);
    loop {
        let count = read(&environment, &mut buffer[filled..])?;
        length += count as u64;
        filled += count;
        let is_end = count == 0;
        let whole_variables = buffer[..filled].iter().rposition(|byte| *byte == 0).map_or(0, |last| last + 1);
        let end = if is_end { filled } else { whole_variables };
        let found = buffer[..end].split(|byte| *byte == 0).any(|variable| names_run(variable, run));
        if found || is_end {
            return Ok((found, length));
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
        if filled == BUFFER_SIZE {
            // The first byte stays, so that the next part of this long variable is not mistaken for a variable.
            filled = 1;
        }
    }
}

/// Returns whether a variable contains this run's ID, as the ID of the process's own run or of an outer run.
fn names_run(variable: &[u8], run: &str) -> bool {
    let value = |name: &str| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    value(RUN_VARIABLE).is_some_and(|value| value == run.as_bytes())
        || value(OUTER_RUNS_VARIABLE)
            .is_some_and(|value| value.split(|byte| *byte == b' ').any(|outer| outer == run.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    fn length(variables: &[(&str, &str)]) -> u64 {
        variables.iter().map(|(name, value)| (name.len() + value.len() + "=\0".len()) as u64).sum()
    }

    #[test]
    fn a_run_id_is_found_anywhere_in_an_environment() {
        let proc = Proc::open().unwrap();
        let almost_full = "x".repeat(BUFFER_SIZE - 20);
        let too_long = "x".repeat(3 * BUFFER_SIZE);
        for (variables, expected) in [
            (vec![(RUN_VARIABLE, "this")], true),
            (vec![(RUN_VARIABLE, "this"), ("ZZZ", "last")], true),
            (vec![("AAA", almost_full.as_str()), (RUN_VARIABLE, "this")], true),
            (vec![("AAA", too_long.as_str()), (RUN_VARIABLE, "this")], true),
            (vec![(OUTER_RUNS_VARIABLE, "first this"), (RUN_VARIABLE, "inner")], true),
            (vec![(OUTER_RUNS_VARIABLE, "thisone")], false),
            (vec![(RUN_VARIABLE, "this one")], false),
            (vec![("OTHER_LEADERRUN_RUN_ID", "this")], false),
            (vec![], false),
        ] {
            let mut child = Command::new("cat");
            child.env_clear().envs(variables.clone()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = child.spawn().unwrap();
            // The child has executed the program when its output arrives. Only then does /proc show its environment.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            let number = i32::try_from(child.id()).unwrap();
            let expected = if expected { Membership::Yes } else { Membership::No };
            assert_eq!(membership(&proc, number, "this"), Ok(expected), "{variables:?}");
            assert_eq!(proc.environment_length(number), Some(length(&variables)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_keeps_executing_programs_is_never_taken_for_one_of_another_run() {
        const AGAIN: &str = r#"exec sh -c "$0" "$0""#;
        let proc = Proc::open().unwrap();
        let mut child = Command::new("sh").args(["-c", AGAIN, AGAIN]).env(RUN_VARIABLE, "this").spawn().unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let found: Vec<_> = (0..4000).map(|_| membership(&proc, number, "this")).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&Ok(Membership::Yes)) && !found.contains(&Ok(Membership::No)));
    }
}
