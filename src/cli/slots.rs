//! Whether the other options fit a lock with several slots.

use super::origin::Origins;
use super::usage_error::UsageError;
use crate::lock::{LockName, SlotCount, check_name};
use crate::routing::RoutingTarget;

/// Checks that each slot can be a lock of its own, and that traffic is led to each one by an object of its own.
///
/// # Errors
/// What does not fit, why, and what to do.
pub fn check_slots(
    lock: &LockName,
    slots: Option<SlotCount>,
    target: Option<&RoutingTarget>,
    origins: Origins<'_>,
) -> Result<(), UsageError> {
    check_target(slots, target, origins)?;
    let (Some(_), LockName::Objects { kind, namespace, name }) = (slots, lock) else { return Ok(()) };
    let origin = origins.of("lock");
    if kind.formats().1.is_some() {
        let reason = format!("{} needs a lock in one object", origins.of("slots").given());
        let namespace = namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        return Err(UsageError::new(origin.given(), reason).try_instead(origin.with(&format!("{namespace}{name}"))));
    }
    check_name(&format!("{name}-{}", SlotCount::HIGHEST)).map_err(|problem| {
        let reason = format!("with the number of a slot behind it, its name {problem}");
        UsageError::new(origin.given(), reason).for_example(origin.with("my-job"))
    })
}

fn check_target(
    slots: Option<SlotCount>,
    target: Option<&RoutingTarget>,
    origins: Origins<'_>,
) -> Result<(), UsageError> {
    let Some(target) = target else { return Ok(()) };
    let (option, what, example) = match target {
        RoutingTarget::PodLabel(label) => ("pod_label", "a label", format!("{}={}-{{slot}}", label.key, label.value)),
        RoutingTarget::Service(name) => ("service", "a Service", format!("{name}-{{slot}}")),
    };
    let origin = origins.of(option);
    match (slots, target.has_slot()) {
        (Some(_), false) => {
            let reason = format!("each slot needs {what} of its own");
            Err(UsageError::new(origin.given(), reason).try_instead(origin.with(&example)))
        }
        (None, true) => {
            let error = UsageError::new(origin.given(), "there are no slots");
            Err(error.for_example(format!("{} --slots 3", origin.given())))
        }
        (Some(_), true) | (None, false) => Ok(()),
    }
}
