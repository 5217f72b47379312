//! Determines from the options how traffic is routed to the leader's command.

use std::net::IpAddr;

use super::arguments::RoutingArguments;
use super::origin::{Origin, Origins};
use super::usage_error::UsageError;
use crate::lock::{LockName, SlotCount, check_name};
use crate::routing::{MAX_LOCK_NAME_LENGTH, PodLabel, Routing, RoutingTarget, Service};

/// Returns the routing, if it is configured.
///
/// # Errors
/// Fails if an option requires `--service` and it is missing; if more than one address of a family was given; if the
/// name of the pod is needed but not known; or if traffic cannot be routed to the leader of this lock.
pub fn routing(
    arguments: RoutingArguments,
    lock: &LockName,
    slots: Option<SlotCount>,
    host: &str,
    origins: Origins<'_>,
) -> Result<Option<Routing>, UsageError> {
    let target = arguments.target.to_target();
    let RoutingArguments { pod, ports, addresses, .. } = arguments;
    if !matches!(target, Some(RoutingTarget::Service(_))) {
        let requiring_service = [("ports", !ports.is_empty()), ("addresses", !addresses.is_empty())];
        if let Some((option, _)) = requiring_service.iter().find(|(_, is_given)| *is_given) {
            let given = origins.of(option).given();
            let error = UsageError::new(&given, "this option requires --service");
            return Err(error.for_example(format!("{given} --service my-service")));
        }
    }
    let routing = match target {
        None => return Ok(None),
        Some(RoutingTarget::PodLabel(label)) => {
            let pod = pod_name(pod, host, &origins.of("pod_label"))?;
            Routing::PodLabel(PodLabel { label, pod })
        }
        Some(RoutingTarget::Service(name)) => {
            check_addresses(&addresses, &origins.of("addresses"))?;
            Routing::Service(Service { name, ports, addresses })
        }
    };
    check_lock(lock, slots, origins)?;
    Ok(Some(routing))
}

/// Checks that there is no more than one address of each family.
fn check_addresses(addresses: &[IpAddr], option: &Origin<'_>) -> Result<(), UsageError> {
    match addresses {
        [] | [_] => Ok(()),
        [one, other] if one.is_ipv4() != other.is_ipv4() => Ok(()),
        [first, ..] => {
            let reason = "give at most one IPv4 and one IPv6 address";
            Err(UsageError::new(option.given(), reason).for_example(option.with(&first.to_string())))
        }
    }
}

/// Returns the name of this pod, which `option` requires: the value of `--pod`, or the host name.
///
/// # Errors
/// Fails if there is no `--pod` and the host name cannot be the name of a pod.
pub fn pod_name(pod: Option<String>, host: &str, option: &Origin<'_>) -> Result<String, UsageError> {
    if let Some(pod) = pod {
        return Ok(pod);
    }
    check_name(host).map(|()| host.to_owned()).map_err(|reason| {
        let (given, reason) = (option.given(), format!("the host name {host:?} is not the name of a pod: it {reason}"));
        UsageError::new(&given, reason).for_example(format!("{given} --pod worker-0"))
    })
}

/// Checks that the lock is in a cluster, and that the name of each slot's lock is short enough to be part of the key
/// with which routing marks the leader's object.
fn check_lock(lock: &LockName, slots: Option<SlotCount>, origins: Origins<'_>) -> Result<(), UsageError> {
    let origin = origins.of("lock");
    // The limit leaves room for the greatest possible slot number, so it does not depend on the number of slots.
    let longest = MAX_LOCK_NAME_LENGTH - slots.map_or(0, |_| format!("-{}", SlotCount::MAX_NUMBER).len());
    if !lock.kind.is_in_cluster() {
        let reason = "routing traffic to the leader requires a lock in a cluster";
        return Err(UsageError::new(origin.given(), reason).for_example(origin.with("default/my-job")));
    }
    let length = lock.name.len();
    if length > longest {
        let reason =
            format!("the name has {length} characters, but at most {longest} are allowed when traffic is routed");
        return Err(UsageError::new(origin.given(), reason).for_example(origin.with("my-job")));
    }
    Ok(())
}
