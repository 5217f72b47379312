//! The completion for bash.

use super::grammar::{Grammar, Syntax, Value};

const BEGINNING: &str = r#"# Completion of leaderrun for bash. Made by: leaderrun completion bash

_leaderrun() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} index
    # bash makes words of their own of = and what surrounds it.
    if [[ $current == '=' ]]; then
        current=
    elif [[ $previous == '=' ]]; then
        previous=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()
"#;

const COMMAND: &str = r#"
    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ ${COMP_WORDS[index]} == -- ]] || continue
        case ${COMP_WORDS[1]} in
            COMMANDLESS) return ;;
        esac
        if declare -F _comp_command_offset > /dev/null; then
            _comp_command_offset $((index + 1))
        elif declare -F _command_offset > /dev/null; then
            _command_offset $((index + 1))
        elif ((COMP_CWORD == index + 1)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$current")
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        return
    done
"#;

const END: &str = r#"
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _leaderrun leaderrun
"#;

/// Returns the script.
pub fn script(grammar: &Grammar) -> String {
    let commandless = grammar.subcommands.iter().filter(|syntax| !syntax.takes_command);
    let commandless: Vec<&str> = commandless.map(|syntax| syntax.name.as_str()).collect();
    let mut script = BEGINNING.to_owned() + &COMMAND.replace("COMMANDLESS", &commandless.join("|"));
    script += "\n    local words\n    case ${COMP_WORDS[1]} in\n";
    for syntax in grammar.syntaxes() {
        let pattern = if syntax.name.is_empty() { "*" } else { &syntax.name };
        script += &format!("        {pattern})\n{}            ;;\n", values_and_words(syntax, grammar));
    }
    script + "    esac\n" + END
}

/// Returns the completion of the values of options, and of the words that are valid anywhere.
fn values_and_words(syntax: &Syntax, grammar: &Grammar) -> String {
    let mut cases = String::new();
    let mut others = Vec::new();
    for option in &syntax.options {
        let names = option.names().collect::<Vec<_>>().join("|");
        match &option.value {
            Value::None => {}
            Value::OneOf(words) => {
                let words = words.join(" ");
                cases += &format!(
                    "                {names}) mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$current\"); return ;;\n"
                );
            }
            Value::File => {
                cases += &format!(
                    "                {names}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;\n"
                );
            }
            Value::Other(_) => others.push(names),
        }
    }
    if !others.is_empty() {
        cases += &format!("                {}) return ;;\n", others.join("|"));
    }
    if !cases.is_empty() {
        cases = format!("            case $previous in\n{cases}            esac\n");
    }
    let options = syntax.options.iter().flat_map(|option| option.names().collect::<Vec<_>>());
    let words: Vec<String> = options.chain(syntax.words.iter().cloned()).collect();
    let mut text = format!("{cases}            words='{}'\n", words.join(" "));
    if syntax.name.is_empty() {
        let subcommands: Vec<&str> = grammar.subcommands.iter().map(|syntax| syntax.name.as_str()).collect();
        let subcommands = subcommands.join(" ");
        text += &format!("            if ((COMP_CWORD == 1)); then words+=' {subcommands}'; else words+=' --'; fi\n");
    } else if syntax.takes_command {
        text += "            words+=' --'\n";
    }
    text
}
