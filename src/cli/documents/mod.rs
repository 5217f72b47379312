//! The documents that are generated from the definition of the command line: completions, the man page, and
//! `docs/reference.md`.

mod bash;
mod fish;
mod grammar;
mod man;
#[cfg(test)]
mod reference;
mod zsh;

use self::grammar::Grammar;

/// A shell that can complete leaderrun's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Returns the script that completes leaderrun's command line in a shell.
pub fn completion(shell: Shell) -> String {
    let grammar = Grammar::new();
    match shell {
        Shell::Bash => bash::script(&grammar),
        Shell::Zsh => zsh::script(&grammar),
        Shell::Fish => fish::script(&grammar),
    }
}

/// Returns the man page, for `man -l`.
pub fn man_page() -> String {
    man::page()
}

#[cfg(test)]
mod tests;
