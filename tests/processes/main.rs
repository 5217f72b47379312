//! leaderrun as people run it: real processes, real sockets, real signals.
//!
//! What must never happen, two commands at once, is judged by the commands themselves (see
//! [`witness`]), never by leaderrun's log. The API server is ours, or a real one where
//! `KUBEBUILDER_ASSETS` is set; faults are made by a proxy in front of either.
//!
//! This binary is a command, too: `--witness` makes it one. That is why it has a `main` of its own.

#[path = "../support/mod.rs"]
mod support;

mod again;
mod both;
#[allow(dead_code)] // The torture uses more of it.
mod candidate;
mod check;
mod command_line;
mod connections;
mod death;
mod doctor;
mod events;
mod fencing;
mod file_lock;
mod foreign;
mod http;
mod kinds;
mod lifecycle;
mod log;
mod manifest;
mod meddling;
mod metrics;
mod partition;
mod permissions;
mod pid_one;
mod pod_label;
mod scrape;
mod service;
mod stall;
mod status;
mod stderr;
mod step_down;
mod stop;
mod stopped_thread;
mod stuck;
mod suspend;
mod terminal;
mod waiting;
#[allow(dead_code)] // The torture uses more of it.
mod witness;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Makes a test of each function, named after it and its module.
#[macro_export]
macro_rules! trials {
    ($($test:ident),+ $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$($crate::trial(concat!(module_path!(), "::", stringify!($test)), $test)),+]
        }
    };
}

fn trial(path: &str, test: fn()) -> Trial {
    let name = path.trim_start_matches("processes::").to_owned();
    Trial::test(name.clone(), move || {
        stall::play(&name, test);
        Ok(())
    })
}

/// A test that needs a right or a tool which may be missing: then it says so and counts as skipped.
fn trial_if(possible: Result<(), String>, path: &str, test: fn()) -> Trial {
    match possible {
        Ok(()) => trial(path, test),
        Err(reason) => trial(&format!("{path} [skipped: {reason}]"), test).with_ignored_flag(true),
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "--witness") {
        return witness::run(arguments);
    }
    let trials = [
        again::trials(),
        both::trials(),
        check::trials(),
        command_line::trials(),
        connections::trials(),
        death::trials(),
        doctor::trials(),
        events::trials(),
        fencing::trials(),
        file_lock::trials(),
        foreign::trials(),
        http::trials(),
        kinds::trials(),
        lifecycle::trials(),
        log::trials(),
        manifest::trials(),
        meddling::trials(),
        metrics::trials(),
        partition::trials(),
        permissions::trials(),
        pid_one::trials(),
        pod_label::trials(),
        service::trials(),
        status::trials(),
        stderr::trials(),
        step_down::trials(),
        stop::trials(),
        stuck::trials(),
        suspend::trials(),
        terminal::trials(),
        waiting::trials(),
    ];
    stall::watch();
    let mut arguments = Arguments::from_args();
    // Most of a test is waiting for a lease to run out.
    arguments.test_threads.get_or_insert(8);
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
