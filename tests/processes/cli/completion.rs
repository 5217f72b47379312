//! Tests that bash, zsh and fish complete leaderrun's command lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use testkit::scratch;

/// A bash script that prints the completions of each command line on one line.
const BASH: &str = r#"
source "$1"; shift
for line; do
    read -ra COMP_WORDS <<< "$line"
    # readline splits words at the equals sign.
    COMP_WORDS=($(printf '%s\n' "${COMP_WORDS[@]}" | sed 's/=/\n=\n/g' | sed '/^$/d'))
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
    _leaderrun leaderrun "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    echo "${COMPREPLY[@]}"
done
"#;

/// A fish script that prints the completions of each command line on one line.
const FISH: &str = r#"
source $argv[1]
for line in $argv[2..]
    echo (complete -C $line | string replace -r '\t.*' '')
end
"#;

/// A zsh script that prints the completions of each command line on one line. zsh only completes words on a terminal,
/// so the script types each line and Tab into a terminal. It replaces `compadd` with a function that records the
/// offered words: an additional call with `-A` collects them without offering them. Calls that already have `-O`, `-A`
/// or `-D` offer nothing, so they are not recorded.
const ZSH: &str = r#"
zmodload zsh/zpty
script=$1 offered=$2; shift 2
zpty shell zsh -f -i
zpty -w shell "PS1= PROMPT_EOL_MARK= TERM=dumb; unsetopt zle_bracketed_paste 2>/dev/null"
zpty -w shell "autoload -U compinit && compinit -D -u; zstyle ':completion:*' menu no; setopt no_list_beep"
zpty -w shell "source ${(q)script}"
zpty -w shell "compadd() {
    local -a offers
    [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] || { builtin compadd -A offers \"\$@\"; print -rn -- \"\${offers[*]} \" >> ${(q)offered} }
    builtin compadd \"\$@\"
}
finish-tested-line() { print >> ${(q)offered}; zle kill-buffer }
zle -N finish-tested-line
bindkey '^T' finish-tested-line
bindkey '^I' complete-word"
for line; do
    lines=$(wc -l < $offered)
    zpty -w -n shell "$line"$'\t'
    zpty -w -n shell $'\C-t'
    for i in {1..600}; do
        while zpty -r -t shell text; do :; done
        (( $(wc -l < $offered) > lines )) && break
        sleep 0.05
    done
done
zpty -d shell
cat $offered
"#;

#[testkit::test(requires = testkit::check_installed("bash"))]
fn bash_completes_words() {
    assert_completes("bash", |script, lines| {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", BASH, "bash"]).arg(script).args(lines);
        bash
    });
}

#[testkit::test(requires = testkit::check_installed("zsh"))]
fn zsh_completes_words() {
    assert_completes("zsh", |script, lines| {
        let offered = script.with_file_name("offered");
        fs::write(&offered, "").expect("the file can be written");
        let mut zsh = Command::new("zsh");
        zsh.args(["-f", "-c", ZSH, "zsh"]).args([script, &offered]).args(lines);
        zsh
    });
}

#[testkit::test(requires = testkit::check_installed("fish"))]
fn fish_completes_words() {
    assert_completes("fish", |script, lines| {
        let mut fish = Command::new("fish");
        fish.env("HOME", script.parent().expect("the script is in a directory"))
            .args(["--private", "-c", FISH])
            .arg(script)
            .args(lines);
        fish
    });
}

/// Command lines, each with words that must be offered and words that must not be offered.
const EXPECTED: [(&str, &[&str], &[&str]); 16] = [
    ("leaderrun ", &["status", "doctor", "step-down", "completion", "man"], &["bash"]),
    ("leaderrun sta", &["status"], &["doctor"]),
    ("leaderrun -", &["--lock", "--wait", "-v"], &["--output", "--min-remaining"]),
    ("leaderrun --ren", &["--renew-deadline"], &["--lock"]),
    ("leaderrun --lock a/b --log-f", &["--log-format"], &["status"]),
    ("leaderrun --lock a/b --log-format ", &["text", "json"], &["--lock"]),
    ("leaderrun --lock a/b --on-lost re", &["rejoin"], &["exit"]),
    ("leaderrun --lock a/b --stop-signal ", &["TERM", "QUIT"], &[]),
    ("leaderrun --kubeconfig /etc/host", &["hosts"], &["--lock"]),
    ("leaderrun status --ou", &["--output"], &["--lock"]),
    ("leaderrun status --output ", &["text", "json"], &["--lock"]),
    ("leaderrun step-down -", &["--lock", "--namespace", "--wait"], &["--min-hold", "--output"]),
    ("leaderrun check --", &["--min-remaining"], &["--lock"]),
    ("leaderrun completion ", &["bash", "zsh", "fish"], &["status"]),
    ("leaderrun --lock a/b -- unam", &["uname"], &["--lock"]),
    ("leaderrun doctor --lock a/b -- unam", &["uname"], &["--lock"]),
];

/// Checks the completions of one shell. `shell` gets the path of the completion script and the command lines, and
/// returns a command that prints their completions.
fn assert_completes(name: &str, shell: impl Fn(&PathBuf, &[&str]) -> Command) {
    let script = scratch::directory("completion").join(name);
    let printed = Command::new(testkit::leaderrun()).args(["completion", name]).output();
    fs::write(&script, printed.expect("leaderrun can be started").stdout).expect("the script can be written");
    let lines = EXPECTED.map(|(line, ..)| line);
    let mut command = shell(&script, &lines);
    let output = command.stdin(Stdio::null()).output().expect("the shell can be started");
    let (offers, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(offers.lines().count(), lines.len(), "{name}: {offers}{errors}");
    for ((line, wanted, unwanted), offers) in EXPECTED.into_iter().zip(offers.lines()) {
        // Some shells offer whole paths, or options followed by an equals sign.
        let words: BTreeSet<&str> =
            offers.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
        let words: BTreeSet<&str> = words.into_iter().map(|word| word.trim_end_matches('=')).collect();
        for word in wanted {
            assert!(words.contains(word), "{name}: {line:?} offers {offers:?}, not {word:?}: {errors}");
        }
        for word in unwanted {
            assert!(!words.contains(word), "{name}: {line:?} offers {word:?}: {offers}");
        }
    }
}
