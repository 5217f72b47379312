//! Tests of leaderrun with real processes, sockets and signals.
//!
//! Overlaps of two commands are detected from the records of the commands themselves (see [`testkit::witness`]), never
//! from leaderrun's log. The API server is the testkit's own, or a real one if `KUBEBUILDER_ASSETS` names a folder with
//! its programs. A proxy in front of it injects faults.
//!
//! All files in these folders are part of this binary.

/// The command line and the subcommands.
mod cli {
    automod::dir!("tests/processes/cli");
}

/// RBAC, traffic to the leader, and Events.
mod cluster {
    automod::dir!("tests/processes/cluster");
}

/// The start, the stop and the kill of the command, and its terminal.
mod command {
    automod::dir!("tests/processes/command");
}

/// How the API server is reached: kubeconfigs, TLS, proxies.
mod connection {
    automod::dir!("tests/processes/connection");
}

/// The election, under single faults.
mod election {
    automod::dir!("tests/processes/election");
}

/// The kinds of lock, and outside edits of their objects.
mod lock {
    automod::dir!("tests/processes/lock");
}

/// The log, health checks and metrics.
mod monitoring {
    automod::dir!("tests/processes/monitoring");
}

mod other_users;

fn main() -> std::process::ExitCode {
    // Most tests wait for a lease to expire.
    testkit::harness!().test_threads(8).rerun_after_stalls().run()
}
