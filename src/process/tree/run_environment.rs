//! Recognizes the processes of a run by the run ID in their environment.

use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::read;

use super::proc::{Identity, Proc};
use crate::process::clock;
use crate::process::deadline::{OUTER_RUNS_VARIABLE, RUN_VARIABLE};

/// How long an exec may take until the new environment can be read.
const EXEC_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before an environment is read again.
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// The size of the buffer for environments. A longer variable is not the one with the run ID.
const BUFFER_SIZE: usize = 16 * 1024;

/// Returns whether the environment of a process shows that it belongs to this run, or to a run of leaderrun inside of
/// it. Returns false if this process is not permitted to read the environment.
///
/// While a process executes a program, its environment seems empty. The environment is therefore read again until its
/// whole length has been read.
///
/// # Errors
/// Fails if there is no free descriptor or no memory.
pub fn is_of_run(proc: &Proc, process: Identity, run: &str) -> nix::Result<bool> {
    let until = clock::now() + EXEC_TIMEOUT;
    loop {
        // The main thread may have ended. It has no environment then.
        let thread = proc.live_thread(process.number).unwrap_or(process.number);
        match find_run(proc, thread, run) {
            Ok((true, _)) => return Ok(true),
            Ok((false, length)) if proc.environment_length(thread) == Some(length) => return Ok(false),
            Err(Errno::EACCES | Errno::EPERM) => return Ok(false),
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
            _ => {}
        }
        if clock::now() >= until || !proc.is_alive(process) {
            return Ok(false);
        }
        thread::sleep(EXEC_PAUSE);
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

/// Returns whether a variable contains this run's ID, as the ID of its own run or of an outer one.
fn names_run(variable: &[u8], run: &str) -> bool {
    let value = |name: &str| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    value(RUN_VARIABLE).is_some_and(|value| value == run.as_bytes())
        || value(OUTER_RUNS_VARIABLE)
            .is_some_and(|value| value.split(|byte| *byte == b' ').any(|outer| outer == run.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn identity(proc: &Proc, child: &Child) -> Identity {
        let number = i32::try_from(child.id()).unwrap();
        Identity { number, started: proc.stat(number).unwrap().started }
    }

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
            let process = identity(&proc, &child);
            assert_eq!(is_of_run(&proc, process, "this"), Ok(expected), "{variables:?}");
            assert_eq!(proc.environment_length(process.number), Some(length(&variables)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_run_id_is_found_while_the_process_executes_one_program_after_the_other() {
        const AGAIN: &str = r#"exec sh -c "$0" "$0""#;
        let proc = Proc::open().unwrap();
        let mut child = Command::new("sh").args(["-c", AGAIN, AGAIN]).env(RUN_VARIABLE, "this").spawn().unwrap();
        let process = identity(&proc, &child);
        let missed = (0..4000).filter(|_| is_of_run(&proc, process, "this") != Ok(true)).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(missed, 0);
    }
}
