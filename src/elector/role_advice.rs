//! Decides which refusals are logged together with the Role that grants the missing permission.

use crate::lock::LockError;

/// How many refusals are remembered with their advice.
const MAX_EXPLAINED: usize = 8;

/// The permission that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Read,
    Write,
    Watch,
}

/// Decides which advice is logged with a refusal.
#[derive(Debug, Default)]
pub struct RoleAdvice {
    /// The state of each [`Permission`].
    permissions: [PermissionState; 3],
    is_role_logged: bool,
    /// Error messages of refusals, each with the text that was logged for it, so that a repeated refusal is logged with
    /// the same text.
    explained: Vec<(String, FailureMessage)>,
}

/// The message about a failed request, in some cases with the Role that grants the missing permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureMessage {
    pub text: String,
    pub role: Option<String>,
}

impl From<String> for FailureMessage {
    fn from(text: String) -> Self {
        Self { text, role: None }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct PermissionState {
    /// Whether a request was permitted before. If so, a single refusal gets no advice, because an API server that is
    /// just starting refuses requests until it has read the Roles.
    was_allowed: bool,
    /// Whether the last such request was refused, although an earlier one was permitted.
    was_just_refused: bool,
}

impl RoleAdvice {
    /// Records that a request was permitted.
    pub fn handle_success(&mut self, permission: Permission) {
        self.permissions[permission as usize] = PermissionState { was_allowed: true, was_just_refused: false };
    }

    /// Records a failed request. Returns its message. If a permission seems to be missing, the message contains the
    /// Role, or a command that prints it.
    pub fn explain(&mut self, lock: &str, permission: Permission, error: &LockError) -> FailureMessage {
        let (message, Some(role)) = (&error.message, &error.role) else { return error.message.clone().into() };
        let state = &mut self.permissions[permission as usize];
        if state.was_allowed && !std::mem::replace(&mut state.was_just_refused, true) {
            return message.clone().into();
        }
        if let Some((_, explained)) = self.explained.iter().find(|(other, _)| other == message) {
            return explained.clone();
        }
        let explained = if self.is_role_logged {
            format!("{message}; leaderrun manifest --lock {lock} prints the whole Role").into()
        } else {
            FailureMessage { text: message.clone(), role: Some(role.clone()) }
        };
        self.is_role_logged = true;
        self.explained.truncate(MAX_EXPLAINED - 1);
        self.explained.insert(0, (message.clone(), explained.clone()));
        explained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::LockErrorKind;

    fn refused(verb: &str) -> LockError {
        let message = format!("not allowed to {verb} leases");
        LockError { kind: LockErrorKind::Forbidden, message, retry_after: None, role: Some("kind: Role".into()) }
    }

    #[test]
    fn only_the_first_missing_permission_is_explained_with_the_role() {
        let mut advice = RoleAdvice::default();
        let first = advice.explain("a/b", Permission::Read, &refused("get"));
        assert_eq!(first.role.as_deref(), Some("kind: Role"));
        assert_eq!(
            advice.explain("a/b", Permission::Read, &refused("get")),
            first,
            "a repeated refusal is explained in the same way"
        );
        let second = advice.explain("a/b", Permission::Watch, &refused("watch"));
        assert_eq!(second.text, "not allowed to watch leases; leaderrun manifest --lock a/b prints the whole Role");
        assert_eq!(second.role, None);
    }

    #[test]
    fn a_single_refusal_after_a_permitted_request_gets_no_advice() {
        let mut advice = RoleAdvice::default();
        let explain = |advice: &mut RoleAdvice| advice.explain("a/b", Permission::Write, &refused("update"));
        advice.handle_success(Permission::Write);
        assert_eq!(explain(&mut advice).role, None);
        advice.handle_success(Permission::Write);
        assert_eq!(explain(&mut advice).role, None);
        assert!(explain(&mut advice).role.is_some());
    }

    #[test]
    fn permissions_are_tracked_separately() {
        let mut advice = RoleAdvice::default();
        advice.handle_success(Permission::Read);
        assert!(advice.explain("a/b", Permission::Watch, &refused("watch")).role.is_some());
    }
}
