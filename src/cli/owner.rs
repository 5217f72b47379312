//! Determines from the options which object owns the lock's objects.

use super::arguments::OwnerArguments;
use super::origin::Origins;
use super::routing::pod_name;
use super::usage_error::UsageError;
use crate::lock::{LockName, OwnerConfig, OwnerName};

/// Returns the owner of the lock's objects, if one is configured. `pod` is the value of `--pod`.
///
/// # Errors
/// Fails if the lock is not in a cluster, or if `--owner auto` needs the name of the pod, there is no `--pod`, and the
/// host name cannot be the name of a pod.
pub fn owner(
    arguments: OwnerArguments,
    lock: &LockName,
    pod: Option<&String>,
    host: &str,
    origins: Origins<'_>,
) -> Result<Option<OwnerConfig>, UsageError> {
    let Some(name) = arguments.owner else { return Ok(None) };
    let origin = origins.of("owner");
    if !lock.kind.is_in_cluster() {
        let reason = format!("{} is not in a cluster, so it has no owner", origins.of("lock").given());
        return Err(UsageError::new(origin.given(), reason).remedy(format!("leave {} out", origin.name())));
    }
    let pod = match name {
        OwnerName::Auto => pod_name(pod.cloned(), host, &origin)?,
        OwnerName::Object { .. } => String::new(),
    };
    Ok(Some(OwnerConfig { name, pod }))
}
