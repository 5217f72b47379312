//! Suggestions for a command that cannot be executed.

use std::env;
use std::path::Path;

use crate::process::environment::program_directories;
use crate::telemetry::log::shell_word;

/// The characters that have a special meaning in a shell, except whitespace.
const SHELL_CHARACTERS: &str = "|&;<>()$`\"'*?[]~{}!#\\";

/// Returns a suggestion for a command that could not be executed.
pub fn command_hint(command: &str) -> Option<String> {
    if command.starts_with('-') {
        return Some("options of leaderrun come before --".to_owned());
    }
    quoting_hint(command).or_else(|| path_hint(command))
}

/// Returns a suggestion that shows the value of `PATH`, if none of its directories contains the program.
fn path_hint(command: &str) -> Option<String> {
    let path = env::var_os("PATH")?;
    let is_missing = !command.contains(['/', ' ']) && !is_found(command);
    is_missing.then(|| format!("PATH is {}; try the full path of the program", path.display()))
}

/// Returns a suggestion if the command and its arguments were probably quoted as one word: `command` contains
/// whitespace, and either begins with the name of a program or contains characters with a special meaning in a shell.
fn quoting_hint(command: &str) -> Option<String> {
    let program = command.split_whitespace().next().filter(|program| *program != command)?;
    let needs_shell = command.contains(|character| SHELL_CHARACTERS.contains(character));
    if !needs_shell && !is_found(program) {
        return None;
    }
    let words: Vec<&str> = command.split_whitespace().collect();
    Some(if needs_shell {
        format!("only a shell can run this; try -- sh -c {}", shell_word(command))
    } else {
        format!("the command and its arguments were quoted as one word; try -- {}", words.join(" "))
    })
}

/// Returns whether the program exists. A name without a slash is looked up in `PATH`.
fn is_found(program: &str) -> bool {
    if program.contains('/') {
        Path::new(program).is_file()
    } else {
        program_directories().iter().any(|directory| directory.join(program).is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_quoted_as_one_word_is_recognized() {
        let hint = |command| command_hint(command).filter(|hint| !hint.starts_with("PATH is "));
        assert_eq!(
            hint("sleep 1").as_deref(),
            Some("the command and its arguments were quoted as one word; try -- sleep 1")
        );
        assert_eq!(
            hint("/bin/sh -x").as_deref(),
            Some("the command and its arguments were quoted as one word; try -- /bin/sh -x")
        );
        assert_eq!(hint("date | cat").as_deref(), Some("only a shell can run this; try -- sh -c 'date | cat'"));
        assert_eq!(hint("--wait 1s").as_deref(), Some("options of leaderrun come before --"));
        for command in ["sleep", "no-such-program 1", "/no/such/program 1"] {
            assert_eq!(hint(command), None, "{command}");
        }
    }

    #[test]
    fn the_hint_about_a_missing_program_contains_the_search_path() {
        let path = env::var("PATH").expect("PATH is set");
        let expected = format!("PATH is {path}; try the full path of the program");
        assert_eq!(command_hint("no-such-program"), Some(expected));
        for command in ["sleep", "/no/such/program", "./program"] {
            assert_eq!(command_hint(command), None, "{command}");
        }
    }
}
