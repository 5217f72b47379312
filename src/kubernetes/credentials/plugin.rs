//! Runs a credential plugin.

use std::env;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use humantime::format_duration;
use nix::unistd::{AccessFlags, access};

use super::super::connection::{ConnectionConfig, ExecPlugin, InteractiveMode};
use super::super::log_events;
use super::exec_credential::{self, IssuedCredentials};
use crate::process::helper::{self, HelperError, TerminalAccess};
use crate::process::signals;
use crate::process::terminal::is_foreground_job;
use crate::telemetry::log::printable;

/// The time after which a plugin is killed, because it probably hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The time after which a plugin that may interact with the user is killed.
const INTERACTIVE_TIME_LIMIT: Duration = Duration::from_secs(600);

/// Runs the plugin once and returns the credentials that it issues. If the calling thread ends, the kernel kills the
/// plugin.
///
/// # Errors
/// Fails if the plugin cannot be run, fails, takes too long, or prints no usable credentials. The error is a sentence
/// with the plugin, the reason, and what to do.
pub fn run(
    plugin: &ExecPlugin,
    config: &ConnectionConfig,
    authority: Option<&[u8]>,
) -> Result<IssuedCredentials, String> {
    let failed = |reason: &dyn fmt::Display| failure(plugin, reason);
    let has_terminal = is_foreground_job();
    let terminal = match plugin.interactive_mode {
        InteractiveMode::Always | InteractiveMode::IfAvailable if has_terminal => TerminalAccess::Shared,
        InteractiveMode::Always => {
            return Err(failed(
                &"it needs a terminal (interactiveMode Always), but leaderrun is not the foreground job of one",
            ));
        }
        InteractiveMode::Never | InteractiveMode::IfAvailable => TerminalAccess::Detached,
    };
    let is_interactive = terminal == TerminalAccess::Shared;
    let mut command = Command::new(program(&plugin.command));
    command
        .args(&plugin.args)
        .envs(plugin.env.iter().map(|(name, value)| (name, value)))
        .env("KUBERNETES_EXEC_INFO", exec_credential::exec_info(plugin, config, authority, is_interactive));
    let limit = if is_interactive { INTERACTIVE_TIME_LIMIT } else { TIME_LIMIT };
    let name = plugin.command.display().to_string();
    let output = helper::run(command, terminal, limit, &|line| log_events::plugin_message(&name, &printable(line)));
    let output = output.map_err(|error| match error {
        HelperError::NotStarted(error) => failed(&not_started(plugin, &error)),
        HelperError::TimedOut { last_message } => {
            failed(&format!("it did not end within {}{}", format_duration(limit), with_colon(&last_message)))
        }
        HelperError::TooMuchOutput => failed(&"it printed too much"),
        HelperError::WaitFailed(error) => failed(&error),
    })?;
    if !output.status.success() {
        let ending = match output.status.signal() {
            Some(signal) => format!("it was ended by {}", signals::name(signal)),
            None => format!("it ended with status {}", output.status.code().unwrap_or_default()),
        };
        return Err(failed(&format!("{ending}{}", with_colon(&output.last_message))));
    }
    exec_credential::parse(plugin, &output.stdout)
        .map_err(|reason| failed(&format!("it {}{}", printable(&reason), with_colon(&output.last_message))))
}

/// Returns the path of the plugin's program. A bare name is looked up in leaderrun's own `PATH`, even if the plugin is
/// started with a different `PATH`.
fn program(command: &Path) -> PathBuf {
    let paths = env::var_os("PATH").filter(|_| command.components().count() == 1);
    let mut programs = paths.iter().flat_map(env::split_paths).map(|directory| directory.join(command));
    programs
        .find(|program| program.is_file() && access(program, AccessFlags::X_OK).is_ok())
        .unwrap_or_else(|| command.to_owned())
}

/// Returns the message for credentials that a plugin has issued but that cannot be used.
pub fn unusable(plugin: &ExecPlugin, reason: &str) -> String {
    failure(plugin, &format_args!("its output cannot be used: {reason}"))
}

fn not_started(plugin: &ExecPlugin, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if program(&plugin.command).exists() => {
            "the interpreter in its #! line does not exist".to_owned()
        }
        io::ErrorKind::NotFound if plugin.command.components().count() > 1 => "there is no such program".to_owned(),
        io::ErrorKind::NotFound => "there is no such program in PATH".to_owned(),
        io::ErrorKind::PermissionDenied if plugin.command.is_dir() => "it is a directory".to_owned(),
        io::ErrorKind::PermissionDenied if access(&plugin.command, AccessFlags::X_OK).is_err() => {
            "this user may not execute it".to_owned()
        }
        _ => format!("it cannot be started: {error}"),
    }
}

/// Returns the last message of a plugin as the end of a sentence; empty if there is no message.
fn with_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {}", printable(message)) }
}

fn failure(plugin: &ExecPlugin, reason: &dyn fmt::Display) -> String {
    let command = plugin.command.display();
    let remedy = match &plugin.install_hint {
        Some(hint) => printable(hint.trim()),
        None => "check the user's exec section in the kubeconfig".to_owned(),
    };
    format!("the credential plugin {command} failed: {reason}; {remedy}")
}
