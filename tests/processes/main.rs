//! leaderrun as people run it: real processes, real sockets, real signals.
//!
//! Whether two commands were ever alive at once is judged by what the commands recorded themselves (see
//! [`testkit::witness`]), never by leaderrun's log. The API server is the testkit's own, or a real one where
//! `KUBEBUILDER_ASSETS` names a folder with its programs. A proxy in front of it injects faults.
//!
//! Every file in one of these folders is part of this binary, without being listed anywhere.

/// What is asked for on the command line, and the subcommands.
mod cli {
    automod::dir!("tests/processes/cli");
}

/// What a cluster allows and what it is told: RBAC, traffic to the leader, Events.
mod cluster {
    automod::dir!("tests/processes/cluster");
}

/// The command: how it is started, stopped and killed, and its terminal.
mod command {
    automod::dir!("tests/processes/command");
}

/// How the API server is reached: kubeconfigs, TLS, proxies.
mod connection {
    automod::dir!("tests/processes/connection");
}

/// Who leads and until when, under every single fault.
mod election {
    automod::dir!("tests/processes/election");
}

/// The kinds of lock, and what others write into a lock's objects.
mod lock {
    automod::dir!("tests/processes/lock");
}

/// What leaderrun reports while it runs: log, health, metrics.
mod monitoring {
    automod::dir!("tests/processes/monitoring");
}

mod other_users;

fn main() -> std::process::ExitCode {
    // Most tests mostly wait for a lease to expire.
    testkit::harness!().test_threads(8).rerun_after_stalls().run()
}
