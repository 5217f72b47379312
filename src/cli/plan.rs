//! Turns the arguments into the configuration of a run or a subcommand, and checks that they are consistent.

use std::ffi::{OsStr, OsString};
use std::iter;

use humantime::format_duration;
use leaderrun_core::election::{ElectionConfig, Preference};
use leaderrun_core::record::RunId;
use leaderrun_core::supervisor::StopOptions;
use tracing_subscriber::filter::LevelFilter;
use uuid::Uuid;

use super::Invocation;
use super::arguments::{
    ClusterArguments, ElectionArguments, LockArguments, LogArguments, RunArguments, SubcommandArguments,
};
use super::documents;
use super::origin::{Origin, Origins, leaderrun_with};
use super::owner::owner;
use super::routing::routing;
use super::slots::check_slots;
use super::timing::timing;
use super::usage_error::UsageError;
use super::variables;
use crate::elector::{ElectorConfig, QuotedOptions};
use crate::kubernetes::{ClusterOptions, Given};
use crate::lock::LockName;
use crate::subcommands::{DoctorRequest, ListRequest, LockTarget, ManifestRequest, StatusRequest, Subcommand, Wait};
use crate::supervisor::SupervisorConfig;

/// How long, in lease durations, the elector may be silent towards the supervisor before it is considered frozen. After
/// a loss, once the command is gone, the supervisor kills a frozen elector, because it may block the lock for all
/// candidates.
const FROZEN_ELECTOR_LEASE_DURATIONS: u32 = 2;

/// Plans a run.
///
/// # Errors
/// Fails if options contradict each other or cannot be used, if the name of the command is empty, or if the host name
/// cannot be read.
pub fn plan_run(
    arguments: RunArguments,
    command: Vec<OsString>,
    origins: Origins<'_>,
) -> Result<Invocation, UsageError> {
    let LockTarget { lock, cluster } = lock_target(arguments.lock, arguments.cluster, origins)?;
    let timing = timing(&arguments.times, origins)?;
    let log_level = log_level(&arguments.log, origins)?;
    if command.first().is_some_and(|name| name.is_empty()) {
        return Err(UsageError::new("-- ''", "the name of the command is empty").for_example("-- echo leading"));
    }
    let host = host_name()?;
    let slots = arguments.slots.slots;
    check_slots(&lock, slots, arguments.routing.target.to_target().as_ref(), origins)?;
    check_claim_delay(&arguments.election, origins)?;
    // A pod with hostNetwork has the host name of its node, so --pod takes precedence.
    let name = arguments.routing.pod.clone().unwrap_or_else(|| host.clone());
    let owner = owner(arguments.owner, &lock, arguments.routing.pod.as_ref(), &host, origins)?;
    let routing = routing(arguments.routing, &lock, slots, &host, origins)?;
    let run = RunId::new(Uuid::new_v4().to_string());
    let election = ElectionConfig {
        identity: arguments.election.identity.unwrap_or_else(|| format!("{name}_{run}")),
        run: run.clone(),
        timing: timing.clone(),
        wait: arguments.election.wait,
        min_hold: arguments.election.every.or(arguments.election.min_hold),
        ignores_min_hold: arguments.election.ignore_min_hold,
        preference: Preference {
            claim_delay: arguments.election.claim_delay,
            preempt_after: arguments.election.preempt,
        },
    };
    let elector = ElectorConfig {
        lock,
        slots,
        owner,
        cluster,
        election,
        on_lost: arguments.election.on_lost,
        stop_signal: arguments.command.stop_signal,
        repeats: arguments.election.every.is_some(),
        conflict_status: arguments.election.conflict_exit_code,
        options: QuotedOptions {
            wait: origins.of("wait").given(),
            kill_after: origins.of("kill_after").given(),
            max_run: origins.of("max_run").given(),
            doctor: doctor_line(origins.arguments),
        },
        routing,
        http: arguments.monitoring.http,
        ready_when: arguments.monitoring.ready_when,
        unhealthy_after: arguments.monitoring.unhealthy_after,
        notify_by: arguments.monitoring.notify,
        log_format: arguments.log.log_format,
        log_time: arguments.log.log_time,
        log_level,
        unknown_variable_warnings: variables::warnings_about_unknown(std::env::vars_os()),
    };
    let blocks_while_frozen = elector.lock.kind.blocks_while_frozen();
    let frozen_elector_timeout = blocks_while_frozen.then(|| timing.lease_duration() * FROZEN_ELECTOR_LEASE_DURATIONS);
    let stop_options = StopOptions {
        stop_signal: arguments.command.stop_signal,
        lost_grace: timing.lost_grace(),
        kill_after: arguments.command.kill_after,
        max_run: arguments.command.max_run,
    };
    let supervisor = SupervisorConfig {
        command,
        stop_options,
        wait_for: arguments.command.wait_for,
        foreground: arguments.command.foreground,
        removed_variables: variables::not_inherited(std::env::vars_os()),
        run,
        frozen_elector_timeout,
        max_advance: timing.max_advance(),
    };
    Ok(Invocation::Run(Box::new(elector), supervisor))
}

/// Returns the command line of `leaderrun doctor` for a run with these arguments.
fn doctor_line(arguments: &[OsString]) -> String {
    let own_arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    leaderrun_with(iter::once(OsStr::new("doctor")).chain(own_arguments.map(OsString::as_os_str)))
}

/// Checks that a candidate does not give up before its claim delay has passed. `--wait 0s` needs no check, because then
/// the claim delay extends the wait.
fn check_claim_delay(arguments: &ElectionArguments, origins: Origins<'_>) -> Result<(), UsageError> {
    let ElectionArguments { wait, claim_delay, .. } = arguments;
    match wait {
        Some(wait) if !wait.is_zero() && wait <= claim_delay => {
            let (wait, delay) = (origins.of("wait"), origins.of("claim_delay"));
            let reason = format!("it must be longer than {}, or this candidate would never lead", delay.given());
            let longer = format_duration(*claim_delay * 2).to_string().replace(' ', "");
            Err(UsageError::new(wait.given(), reason).try_instead(wait.with(&longer)))
        }
        _ => Ok(()),
    }
}

/// Plans a subcommand.
///
/// # Errors
/// Fails if options contradict each other or cannot be used. For `doctor`, also fails if the host name cannot be read.
pub fn plan_subcommand(arguments: SubcommandArguments, origins: Origins<'_>) -> Result<Invocation, UsageError> {
    Ok(Invocation::Subcommand(match arguments {
        SubcommandArguments::Status { target, slots, output, watch } => {
            let target = lock_target(target.lock, target.cluster, origins)?;
            check_slots(&target.lock, slots, None, origins)?;
            Subcommand::Status(StatusRequest { target, slots, output, watch })
        }
        SubcommandArguments::List { namespace, all_namespaces, output, watch, cluster } => {
            let origin = origins.of("namespace");
            if all_namespaces && origin.is_on_command_line() {
                let reason = format!("cannot be used together with {}", origins.of("all_namespaces").name());
                return Err(UsageError::new(origin.given(), reason).remedy("leave one of them out"));
            }
            let cluster = cluster_options(cluster, origins);
            Subcommand::List(ListRequest { namespace, all_namespaces, cluster, output, watch })
        }
        SubcommandArguments::Manifest { target, slots, owner, service_account, routing, priority } => {
            let target = lock_target(target.lock, target.cluster, origins)?;
            let (slots, routing_target) = (slots.slots, routing.to_target());
            check_slots(&target.lock, slots, routing_target.as_ref(), origins)?;
            let owner = owner.owner;
            Subcommand::Manifest(ManifestRequest { target, slots, owner, service_account, routing_target, priority })
        }
        SubcommandArguments::StepDown { target, wait } => {
            let wait = match wait {
                None => Wait::Never,
                Some(None) => Wait::Forever,
                Some(Some(limit)) => Wait::For(limit),
            };
            Subcommand::StepDown(lock_target(target.lock, target.cluster, origins)?, wait)
        }
        SubcommandArguments::Release { target, force: _, observe } => {
            Subcommand::Release(lock_target(target.lock, target.cluster, origins)?, observe)
        }
        SubcommandArguments::Doctor { run, command } => {
            Subcommand::Doctor(Box::new(doctor_request(*run, command, origins)?))
        }
        SubcommandArguments::Check { min_remaining } => Subcommand::Check(min_remaining),
        SubcommandArguments::Completion { shell } => return Ok(Invocation::Print(documents::completion(shell))),
        SubcommandArguments::Man => return Ok(Invocation::Print(documents::man_page())),
    }))
}

fn doctor_request(
    run: RunArguments,
    command: Vec<OsString>,
    origins: Origins<'_>,
) -> Result<DoctorRequest, UsageError> {
    let timing = timing(&run.times, origins)?;
    let routing_target = run.routing.target.to_target();
    let target = lock_target(run.lock, run.cluster, origins)?;
    let slots = run.slots.slots;
    check_slots(&target.lock, slots, routing_target.as_ref(), origins)?;
    let host = host_name()?;
    let owner = owner(run.owner, &target.lock, run.routing.pod.as_ref(), &host, origins)?;
    let routing = routing(run.routing, &target.lock, slots, &host, origins)?;
    // The level is not needed, but the options must not contradict each other.
    log_level(&run.log, origins)?;
    let uses_clock = run.election.min_hold.is_some() || run.election.every.is_some();
    let http = run.monitoring.http;
    Ok(DoctorRequest { target, slots, owner, timing, routing_target, routing, uses_clock, http, command })
}

fn lock_target(lock: LockArguments, cluster: ClusterArguments, origins: Origins<'_>) -> Result<LockTarget, UsageError> {
    Ok(LockTarget { lock: lock_name(lock, origins)?, cluster: cluster_options(cluster, origins) })
}

/// Returns the cluster options, with the names by which they were given.
fn cluster_options(arguments: ClusterArguments, origins: Origins<'_>) -> ClusterOptions {
    let ClusterArguments { kubeconfig, context, impersonate } = arguments;
    ClusterOptions {
        kubeconfig: kubeconfig.map(|value| Given { value, name: origins.of("kubeconfig").name() }),
        context: context.map(|value| Given { value, name: origins.of("context").name() }),
        impersonate,
    }
}

/// Returns the lock. If `--lock` contains no namespace, the lock gets the namespace from `--namespace`.
fn lock_name(arguments: LockArguments, origins: Origins<'_>) -> Result<LockName, UsageError> {
    let LockArguments { mut lock, namespace: chosen } = arguments;
    let Some(chosen) = chosen else { return Ok(lock) };
    let origin = origins.of("namespace");
    let given_lock = origins.of("lock");
    // An option on the command line takes precedence over a variable.
    let is_overruled = is_overruled(&origin, &given_lock);
    match &lock.namespace {
        None if lock.kind.is_in_cluster() => lock.namespace = Some(chosen),
        Some(namespace) if *namespace != chosen && !is_overruled => {
            let reason = format!("{} is in another namespace", given_lock.given());
            return Err(UsageError::new(origin.given(), reason).try_instead(origin.with(namespace)));
        }
        None if !is_overruled => {
            let reason = format!("{} is not in a cluster, so it has no namespace", given_lock.given());
            return Err(UsageError::new(origin.given(), reason).remedy(format!("leave {} out", origin.name())));
        }
        Some(_) | None => {}
    }
    Ok(lock)
}

/// Returns whether only `other` was given on the command line, so that it takes precedence over `origin`.
fn is_overruled(origin: &Origin<'_>, other: &Origin<'_>) -> bool {
    !origin.is_on_command_line() && other.is_on_command_line()
}

/// Returns the log level. Fails if `-q` and `-v` are both given. If only one of them is given on the command line, it
/// takes precedence over the other's variable.
fn log_level(arguments: &LogArguments, origins: Origins<'_>) -> Result<LevelFilter, UsageError> {
    let (quiet, verbose) = (origins.of("quiet"), origins.of("verbose"));
    let is_quiet = arguments.quiet && !(arguments.verbose > 0 && is_overruled(&quiet, &verbose));
    let verbosity = if arguments.quiet && is_overruled(&verbose, &quiet) { 0 } else { arguments.verbose };
    match (is_quiet, verbosity) {
        (true, 1..) => {
            let reason = format!("cannot be used together with {}", verbose.name());
            Err(UsageError::new(quiet.name(), reason).remedy("leave one of them out"))
        }
        (true, 0) => Ok(LevelFilter::WARN),
        (false, 0) => Ok(LevelFilter::INFO),
        (false, 1) => Ok(LevelFilter::DEBUG),
        (false, _) => Ok(LevelFilter::TRACE),
    }
}

fn host_name() -> Result<String, UsageError> {
    let name = nix::unistd::gethostname();
    let name = name.map_err(|errno| UsageError::new("", format!("cannot read the host name: {}", errno.desc())))?;
    Ok(name.to_string_lossy().into_owned())
}
