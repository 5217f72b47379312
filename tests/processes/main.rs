//! Tests of leaderrun with real processes, sockets and signals.
//!
//! The tests decide whether two commands overlapped by the times that the commands themselves wrote to files (see
//! [`testkit::witness`]), never by leaderrun's log. The API server is the in-process one, or a real one if
//! `KUBEBUILDER_ASSETS` names a directory with its programs. A proxy in front of the API server injects faults.
//!
//! All files in the directories below are part of this binary.

/// The command line and the subcommands.
mod cli {
    automod::dir!("tests/processes/cli");
}

/// Permissions, credentials, owners, Events, the end of a pod, and traffic to the leader.
mod cluster {
    automod::dir!("tests/processes/cluster");
}

/// How the command is started, stopped and killed, and its terminal.
mod command {
    automod::dir!("tests/processes/command");
}

/// How leaderrun connects to the API server: kubeconfigs, TLS, proxies.
mod connection {
    automod::dir!("tests/processes/connection");
}

/// The election, without faults and with one fault at a time.
mod election {
    automod::dir!("tests/processes/election");
}

/// The kinds of lock, access to lock files, outside edits, records of released versions, and fencing.
mod lock {
    automod::dir!("tests/processes/lock");
}

/// The log, health checks, metrics, and notifications to systemd.
mod monitoring {
    automod::dir!("tests/processes/monitoring");
}

mod other_users;

fn main() -> std::process::ExitCode {
    // These tests spend most of their time waiting, for example for a lease to expire, so many can run at once.
    testkit::harness!().test_threads(8).rerun_after_stalls().run()
}
