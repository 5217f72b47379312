//! The activity of a candidate, and its labels in metrics.

/// The activity of a candidate with respect to its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The lock has not been read yet.
    Starting,
    /// The lock is held by another candidate, or may still be.
    Waiting,
    /// The lock is free, but the command is not due yet.
    NotDue,
    /// The candidate may claim the lock.
    Claiming,
    /// The command may be alive.
    Leading,
    /// No process of the command is left. The lock is being released, unless it was lost.
    Releasing,
}

impl Activity {
    /// The labels of all activities.
    pub const LABELS: &[&str] = &["starting", "waiting", "not_due", "claiming", "leading", "releasing"];

    /// Returns the label of this activity.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::NotDue => "not_due",
            Self::Claiming => "claiming",
            Self::Leading => "leading",
            Self::Releasing => "releasing",
        }
    }
}
