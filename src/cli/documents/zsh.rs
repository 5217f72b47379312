//! The completion for zsh.

use super::grammar::{CompletedOption, Grammar, Syntax, Value};

const BEGINNING: &str = r#"#compdef leaderrun
# Completion of leaderrun for zsh. Made by: leaderrun completion zsh

_leaderrun() {
    local -a options subcommands
    local -i dashes=${words[(ie)--]} is_first=$(( CURRENT == 2 ))

"#;

const COMMAND: &str = r#"
    if (( dashes < CURRENT )); then
        case $words[2] in
            (COMMANDLESS) return 1 ;;
        esac
        # After -- comes another command line.
        words=("${(@)words[dashes + 1, -1]}")
        (( CURRENT -= dashes ))
        _normal
        return
    fi

    case $words[2] in
"#;

const END: &str = r#"    esac

    if (( is_first )) && [[ $words[2] != -* ]]; then
        _describe -t commands 'leaderrun subcommand' subcommands
        return
    fi
    _arguments -s : $options
}

if [[ $funcstack[1] == _leaderrun ]]; then
    _leaderrun "$@"
else
    compdef _leaderrun leaderrun
fi
"#;

/// Returns the script.
pub fn script(grammar: &Grammar) -> String {
    let mut script = BEGINNING.to_owned() + "    subcommands=(\n";
    for syntax in &grammar.subcommands {
        script += &format!("        {}\n", quoted(&format!("{}:{}", syntax.name, syntax.about.replace(':', "\\:"))));
    }
    script += "    )\n";
    let commandless = grammar.subcommands.iter().filter(|syntax| !syntax.takes_command);
    let commandless: Vec<&str> = commandless.map(|syntax| syntax.name.as_str()).collect();
    script += &COMMAND.replace("COMMANDLESS", &commandless.join("|"));
    for syntax in grammar.syntaxes() {
        let pattern = if syntax.name.is_empty() { "*" } else { &syntax.name };
        script += &format!("        ({pattern})\n            options=(\n");
        for spec in specs(syntax) {
            script += &format!("                {}\n", quoted(&spec));
        }
        script += "            )\n";
        if !syntax.name.is_empty() {
            script += "            if (( ! is_first )); then\n                words[2]=()\n                (( CURRENT-- ))\n            fi\n";
        }
        script += "            ;;\n";
    }
    script + END
}

fn specs(syntax: &Syntax) -> Vec<String> {
    let words = (!syntax.words.is_empty()).then(|| format!(":{}:({})", syntax.name, syntax.words.join(" ")));
    syntax.options.iter().flat_map(option_specs).chain(words).collect()
}

/// Returns a spec of `_arguments` for each name of an option. Only one of them is offered unless the option can be
/// repeated.
fn option_specs(option: &CompletedOption) -> Vec<String> {
    let names: Vec<String> = option.names().collect();
    let others = match (option.repeats, names.len()) {
        (true, _) => "*".to_owned(),
        (false, 1) => String::new(),
        (false, _) => format!("({})", names.join(" ")),
    };
    let about = escaped(&option.about);
    let value = match &option.value {
        Value::None => String::new(),
        Value::OneOf(words) => format!(":value:({})", words.join(" ")),
        Value::File => ":file:_files".to_owned(),
        Value::Other(name) => format!(":{}: ", escaped(name)),
    };
    let joint = |name: &str| match (&option.value, name.starts_with("--")) {
        (Value::None, _) => "",
        (_, true) => "=",
        (_, false) => "+",
    };
    names.iter().map(|name| format!("{others}{name}{}[{about}]{value}", joint(name))).collect()
}

fn escaped(text: &str) -> String {
    text.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
