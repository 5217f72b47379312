//! What a candidate is doing, as metrics call it.

/// What a candidate is doing, as far as its lock is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It has not read the lock yet.
    Starting,
    /// The lock is held by another candidate, or may be.
    Waiting,
    /// The lock is free, but not to be acquired yet.
    NotDue,
    /// The lock may be acquired.
    Claiming,
    /// The command may be alive.
    Leading,
    /// Nothing of the command is left, and the lock is released.
    Releasing,
}

impl Activity {
    /// The labels of all activities, as metrics have them.
    pub const LABELS: &[&str] = &["starting", "waiting", "not_due", "claiming", "leading", "releasing"];

    /// Returns the label of this one.
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
