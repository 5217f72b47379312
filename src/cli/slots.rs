//! Checks that the lock and the routing target are compatible with `--slots`, or with its absence.

use super::origin::Origins;
use super::usage_error::UsageError;
use crate::lock::{LockName, SlotCount, default_kind};
use crate::routing::{RoutingTarget, SLOT_PLACEHOLDER};

/// Checks that each slot can have its own lock and, if traffic is routed, its own label or Service.
///
/// # Errors
/// Fails if the slots cannot each have their own lock, label or Service, or if the label or Service contains a
/// placeholder for the slot number although the lock has no slots.
pub fn check_slots(
    lock: &LockName,
    slots: Option<SlotCount>,
    target: Option<&RoutingTarget>,
    origins: Origins<'_>,
) -> Result<(), UsageError> {
    check_target(slots, target, origins)?;
    if slots.is_none() {
        return Ok(());
    }
    let origin = origins.of("lock");
    if !lock.kind.can_have_slots() {
        let reason = format!("{} needs a lock that is stored in a single object", origins.of("slots").given());
        let in_single_object = LockName { kind: default_kind(), ..lock.clone() };
        return Err(UsageError::new(origin.given(), reason).try_instead(origin.with(&in_single_object.to_string())));
    }
    lock.kind.check_name(&lock.in_slot(SlotCount::MAX_NUMBER).name).map_err(|problem| {
        // The remedy is dropped from the message, because it would suggest a name without a slot number.
        let (problem, _) = problem.split_once("; ").unwrap_or((&problem, ""));
        let reason = format!("the slot number is appended to the name, and the result is not valid: {problem}");
        UsageError::new(origin.given(), reason).for_example(origin.with("my-job"))
    })
}

fn check_target(
    slots: Option<SlotCount>,
    target: Option<&RoutingTarget>,
    origins: Origins<'_>,
) -> Result<(), UsageError> {
    let Some(target) = target else { return Ok(()) };
    let (option, noun, example) = match target {
        RoutingTarget::PodLabel(label) => ("pod_label", "label", format!("{}={}-{{slot}}", label.key, label.value)),
        RoutingTarget::Service(name) => ("service", "Service", format!("{name}-{{slot}}")),
    };
    let origin = origins.of(option);
    match (slots, target.has_slot_placeholder()) {
        (Some(_), false) => {
            let reason = format!("each slot needs its own {noun}");
            Err(UsageError::new(origin.given(), reason).try_instead(origin.with(&example)))
        }
        (None, true) => {
            let reason = format!("{SLOT_PLACEHOLDER} can only be used with --slots");
            Err(UsageError::new(origin.given(), reason).try_instead(format!("{} --slots 3", origin.given())))
        }
        (Some(_), true) | (None, false) => Ok(()),
    }
}
