use std::ffi::OsString;
use std::fs;

use serde_json::Value;

use super::*;

const FILE: &str = "file:/tmp/never-created.lease";

fn parse_words(words: &[String]) -> Result<Invocation, UsageError> {
    parse(words.iter().map(OsString::from))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace("''", "")).collect()
}

fn refusal(line: &str) -> String {
    match parse_words(&words(line)) {
        Err(error) => error.to_string(),
        Ok(invocation) => panic!("{line} is accepted as {invocation:?}"),
    }
}

/// Returns the words of a line in which the suggested options have replaced the options with the same names.
fn pasted(line: &str, suggestion: &str) -> Vec<String> {
    let (given, suggested) = (words(line), words(suggestion));
    let mut rest = given.into_iter().peekable();
    // The suggestion may contain the whole command line, including the program.
    let mut line: Vec<String> = rest.next_if(|program| suggested.first() != Some(program)).into_iter().collect();
    while let Some(word) = rest.next_if(|word| *word != "--") {
        if suggested.contains(&word) {
            rest.next_if(|value| *value != "--");
        } else {
            line.push(word);
        }
    }
    line.into_iter().chain(suggested).chain(rest).collect()
}

#[test]
fn the_definition_passes_claps_own_checks() {
    definition().debug_assert();
    SubcommandLine::command().debug_assert();
}

#[test]
fn refusals_quote_the_option_and_state_the_reason_and_what_to_do() {
    let run = |options: &str| format!("leaderrun --lock {FILE} {options} -- true");
    for (line, expected) in [
        (
            "leaderrun".to_owned(),
            "neither a lock nor a command is given; for example leaderrun --lock file:/tmp/my-job.lease -- echo leading",
        ),
        ("leaderrun -- true".to_owned(), "--lock is missing; try --lock default/my-job"),
        (format!("leaderrun --lock {FILE}"), "no command is given; for example -- echo leading"),
        (format!("leaderrun --lock {FILE} true"), "true: the command must come after --; try -- true"),
        (
            "leaderrun sleep 1".to_owned(),
            "sleep: the command must come after --; for example leaderrun --lock file:/tmp/my-job.lease -- echo leading",
        ),
        ("leaderrun help".to_owned(), "help: leaderrun has no such subcommand; try leaderrun --help"),
        (
            format!("leaderrun stauts --lock {FILE}"),
            "stauts: leaderrun has no such subcommand; try leaderrun status --lock file:/tmp/never-created.lease",
        ),
        (
            format!("leaderrun --lock {FILE} status"),
            "status: a subcommand must be the first argument; try leaderrun status --lock file:/tmp/never-created.lease",
        ),
        (run("--kubeconfig="), "--kubeconfig '': the value is empty; for example --kubeconfig /etc/my-job.kubeconfig"),
        (
            "leaderrun --lock /tmp/foo.lock -- true".to_owned(),
            "--lock /tmp/foo.lock: a lock file is given as file:PATH; try --lock file:/tmp/foo.lock",
        ),
        (
            "leaderrun --lock default/My_Job -- true".to_owned(),
            "--lock default/My_Job: the name can contain only lower-case letters, digits, - and .; try --lock default/my-job",
        ),
        ("leaderrun -lock x -- true".to_owned(), "-lock: a long option begins with --; try --lock"),
        (
            run("--stop-signal KILL"),
            "--stop-signal KILL: it leaves the command no time to stop, and is sent after --lost-grace anyway; for example --stop-signal TERM",
        ),
        (run("-E 300"), "-E 300: an exit status is a number from 0 to 255; for example -E 75"),
        (run("-E300"), "-E 300: an exit status is a number from 0 to 255; for example -E 75"),
        (
            run("--conflict-exit-code=300"),
            "--conflict-exit-code 300: an exit status is a number from 0 to 255; for example --conflict-exit-code 75",
        ),
        (run("-E -1"), "-E -1: the value cannot be negative; for example -E 75"),
        (
            run("--lease-duration -5s"),
            "--lease-duration -5s: the value cannot be negative; for example --lease-duration 15s",
        ),
        (
            format!("leaderrun lock {FILE} -- true"),
            "lock: leaderrun has no such subcommand; try leaderrun --lock file:/tmp/never-created.lease -- true",
        ),
        (
            "leaderrun lock".to_owned(),
            "lock: leaderrun has no such subcommand; for example leaderrun --lock file:/tmp/my-job.lease -- echo leading",
        ),
        (run("-E"), "-E: the value is missing; try -E 75"),
        (run("-E 3 -E 4"), "-E: given more than once; give it once"),
        (run("--max-run 0s"), "--max-run 0s: the command would be stopped immediately; for example --max-run 2h"),
        (
            run("--ignore-min-hold --every 1m"),
            "--ignore-min-hold: cannot be used together with --every; leave one of them out",
        ),
        (format!("leaderrun release --lock {FILE}"), "--force is missing; add --force"),
        ("leaderrun lst".to_owned(), "lst: leaderrun has no such subcommand; try leaderrun list"),
        ("leaderrun list --all".to_owned(), "--all: leaderrun list has no such option; try --all-namespaces"),
        ("leaderrun list -A -n x".to_owned(), "-n x: cannot be used together with -A; leave one of them out"),
        (
            format!("leaderrun step-down --lock {FILE} --wait soon"),
            "--wait soon: not a valid duration; for example --wait 30s",
        ),
        (run("--lokc x"), "--lokc: leaderrun has no such option; try --lock"),
        (run("--nonsense"), "--nonsense: leaderrun has no such option; see leaderrun --help"),
        (run("--wait soon"), "--wait soon: not a valid duration; for example --wait 30s"),
        (run("--wait 1M"), "--wait 1M: M could be minutes or months; try --wait 1m"),
        (run("--wait=1M"), "--wait 1M: M could be minutes or months; try --wait 1m"),
        (run("--wait 15"), "--wait 15: the unit is missing; try --wait 15s"),
        (run("--wait -1s"), "--wait -1s: a duration cannot be negative; try --wait 1s"),
        (run("--wait"), "--wait: the value is missing; try --wait 30s"),
        (run("--kill-after"), "--kill-after: the value is missing; try --kill-after 50s"),
        (run("--renew-deadline 15"), "--renew-deadline 15: the unit is missing; for example --renew-deadline 10s"),
        (run("--lost-grace soon"), "--lost-grace soon: not a valid duration; for example --lost-grace 2s"),
        (run("--log-format JSON"), "--log-format JSON: the value must be text or json; try --log-format json"),
        (run("--on-lost stop"), "--on-lost stop: the value must be exit or rejoin; for example --on-lost exit"),
        (run("--identity ''"), "--identity '': an identity cannot be empty; for example --identity worker-0"),
        (run("--quiet=yes"), "--quiet=yes: this option takes no value; try --quiet"),
        (run("-q -v"), "-q: cannot be used together with -v; leave one of them out"),
        (run("--wait 1s --wait 2s"), "--wait: given more than once; give it once"),
        (
            run("--namespace x"),
            "--namespace x: --lock file:/tmp/never-created.lease is not in a cluster, so it has no namespace; leave --namespace out",
        ),
        ("leaderrun --lock a/b -n c -- true".to_owned(), "-n c: --lock a/b is in another namespace; try -n a"),
        (
            "leaderrun --lock b -n C -- true".to_owned(),
            "-n C: the namespace can contain only lower-case letters, digits and -; try -n c",
        ),
        (run("--port 80"), "--port 80: this option requires --service; for example --port 80 --service my-service"),
        (
            format!("leaderrun --lock {FILE} -- ''"),
            "-- '': the name of the command is empty; for example -- echo leading",
        ),
    ] {
        assert_eq!(refusal(&line), expected, "{line}");
    }
}

#[test]
fn suggested_values_for_the_options_of_a_run_work_when_they_are_pasted() {
    let values =
        ["", "''", "1", "-1", "15s", "1M", "soon", "x", "X_Y", "a/b/c", "/tmp/x", "a=b", "a:b", ":", "80:http", "KILL"];
    let mut accepted = 0;
    for option in definition().get_arguments() {
        let Some(long) = option.get_long().filter(|_| option.get_action().takes_values()) else { continue };
        // These options need a lock in a cluster, and some of them need other options.
        let others = match long {
            "lock" => String::new(),
            "service" => "--lock job --port 80".to_owned(),
            "port" => "--lock job --service my-service".to_owned(),
            "address" => "--lock job --service my-service --port 80".to_owned(),
            "pod-label" | "namespace" | "owner" => "--lock job".to_owned(),
            _ => format!("--lock {FILE}"),
        };
        for value in values {
            let line = format!("leaderrun {others} --{long} {value} -- true");
            let Err(error) = parse_words(&words(&line)) else { continue };
            let message = error.to_string();
            let suggestion = message.split_once("; try ").or(message.split_once("; for example "));
            let Some((_, suggestion)) = suggestion else { continue };
            let pasted = pasted(&line, suggestion);
            parse_words(&pasted).unwrap_or_else(|error| panic!("{message} leads to {error}: {pasted:?}"));
            accepted += 1;
        }
    }
    assert!(accepted > 100, "only {accepted} suggestions were tried");
}

fn example(name: &str) -> String {
    fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).expect("the example can be read")
}

fn assert_accepted_as_run<'a>(arguments: impl Iterator<Item = &'a str>) {
    let arguments: Vec<&str> = arguments.collect();
    let invocation = parse(arguments.iter().map(OsString::from));
    assert!(matches!(invocation, Ok(Invocation::Run(..))), "{arguments:?}: {invocation:?}");
}

/// Returns the commands of all containers that run leaderrun.
fn commands(document: &Value) -> Vec<Vec<&str>> {
    let pod = &document["spec"]["template"]["spec"];
    let containers = ["initContainers", "containers"].iter().filter_map(|kind| pod[kind].as_array()).flatten();
    let commands = containers.filter_map(|container| container["command"].as_array());
    let words = commands.map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    words.filter(|words| words.first() == Some(&"leaderrun")).collect()
}

#[test]
fn the_command_lines_of_the_examples_are_accepted() {
    for name in ["deployment", "migration", "ready", "service", "tick"] {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&example(&format!("{name}.yaml"))).unwrap();
        let commands: Vec<_> = documents.iter().flat_map(commands).collect();
        assert_eq!(commands.len(), 1, "{name}");
        commands.into_iter().for_each(|command| assert_accepted_as_run(command.into_iter()));
    }
    for unit in ["singleton", "failover", "nightly"] {
        let unit = example(&format!("{unit}.service"));
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("the unit has an ExecStart");
        assert_accepted_as_run(start.split_whitespace());
    }
}
