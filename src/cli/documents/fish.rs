//! The completion for fish.

use super::grammar::{CompletedOption, Grammar, Syntax, Value};

const BEGINNING: &str = r#"# Completion of leaderrun for fish. Made by: leaderrun completion fish

# Prints the position of -- among the words before the cursor, and fails if it is not there.
function __leaderrun_dashes
    set -l words (commandline -opc)
    contains -i -- -- $words
end

# Succeeds if the command line has this subcommand, or no subcommand if none is named.
function __leaderrun_has_subcommand
    __leaderrun_dashes > /dev/null
    and return 1
    set -l words (commandline -opc)
    set -l subcommands SUBCOMMANDS
    if test -n "$argv[1]"
        test "$words[2]" = "$argv[1]"
    else
        not contains -- "$words[2]" $subcommands
    end
end

function __leaderrun_at_first
    test (count (commandline -opc)) -eq 1
end

function __leaderrun_in_command
    __leaderrun_dashes > /dev/null
    or return 1
    set -l words (commandline -opc)
    not contains -- "$words[2]" COMMANDLESS
end

complete -c leaderrun -f
complete -c leaderrun -n __leaderrun_in_command -x -a '(__fish_complete_subcommand --fcs-skip=(__leaderrun_dashes))'
"#;

/// Returns the script.
pub fn script(grammar: &Grammar) -> String {
    let subcommands: Vec<&str> = grammar.subcommands.iter().map(|syntax| syntax.name.as_str()).collect();
    let commandless = grammar.subcommands.iter().filter(|syntax| !syntax.takes_command);
    let commandless: Vec<&str> = commandless.map(|syntax| syntax.name.as_str()).collect();
    let mut script =
        BEGINNING.replace("SUBCOMMANDS", &subcommands.join(" ")).replace("COMMANDLESS", &commandless.join(" "));
    for syntax in &grammar.subcommands {
        let (name, about) = (&syntax.name, quoted(&syntax.about));
        script += &format!("complete -c leaderrun -n __leaderrun_at_first -a {name} -d {about}\n");
    }
    for syntax in grammar.syntaxes() {
        script += "\n";
        syntax.options.iter().for_each(|option| script += &line(syntax, option));
        if !syntax.words.is_empty() {
            let words = syntax.words.join(" ");
            script += &format!("complete -c leaderrun -n '__leaderrun_has_subcommand {}' -a '{words}'\n", syntax.name);
        }
    }
    script
}

fn line(syntax: &Syntax, option: &CompletedOption) -> String {
    let condition = if syntax.name.is_empty() {
        "__leaderrun_has_subcommand"
    } else {
        &format!("'__leaderrun_has_subcommand {}'", syntax.name)
    };
    let short = option.short.map(|short| format!(" -s {short}")).unwrap_or_default();
    let value = match &option.value {
        Value::None => String::new(),
        Value::OneOf(words) => format!(" -x -a '{}'", words.join(" ")),
        Value::File => " -r -F".to_owned(),
        Value::Other(_) => " -x".to_owned(),
    };
    format!("complete -c leaderrun -n {condition}{short} -l {}{value} -d {}\n", option.long, quoted(&option.about))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
