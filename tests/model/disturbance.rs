//! The disturbances that the model explores. Their number is bounded. A disturbance, such as a delayed message, a
//! partition or a frozen process, ends at any later time, or never.

/// A kind of disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Time advances while a request, its reply or a watch event is under way.
    Delay,
    /// The API server refuses a request.
    Refused,
    Cut,
    Freeze,
    Crash,
    /// The main process ends, but its child does not.
    CommandEnds,
    TerminationSignal,
    /// leaderrun is started again after it has ended.
    Restart,
    Delete,
    Empty,
    EmptyKeepingMark,
    EditHolder,
}

impl Disturbance {
    pub const ALL: [Self; 12] = [
        Self::Delay,
        Self::Refused,
        Self::Cut,
        Self::Freeze,
        Self::Crash,
        Self::CommandEnds,
        Self::TerminationSignal,
        Self::Restart,
        Self::Delete,
        Self::Empty,
        Self::EmptyKeepingMark,
        Self::EditHolder,
    ];
}

/// The messages between a machine and the API server that a partition drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    Both,
    Outward,
    Inward,
}

impl Cut {
    pub const ALL: [Self; 3] = [Self::Both, Self::Outward, Self::Inward];

    pub fn outward(cut: Option<Self>) -> bool {
        matches!(cut, Some(Self::Both | Self::Outward))
    }

    pub fn inward(cut: Option<Self>) -> bool {
        matches!(cut, Some(Self::Both | Self::Inward))
    }
}

/// One of leaderrun's two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Elector,
    Supervisor,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Elector, Self::Supervisor];
}
