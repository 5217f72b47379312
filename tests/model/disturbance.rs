//! What goes wrong. Each of these counts as one; what ends them (a late message arrives, a link heals,
//! a stopped process goes on) happens at any later moment, or never.

/// A kind of disturbance, to choose which happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Time passes while a request, its answer or watch events are under way.
    Late,
    /// The API server refuses a request.
    Refused,
    Cut,
    Freeze,
    Crash,
    /// The main process ends; what it forked does not.
    CommandEnds,
    AskedToEnd,
    /// After an end leaderrun is started again.
    Again,
    Delete,
    Empty,
    EmptyKeepingMark,
    EditHolder,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Late,
        Self::Refused,
        Self::Cut,
        Self::Freeze,
        Self::Crash,
        Self::CommandEnds,
        Self::AskedToEnd,
        Self::Again,
        Self::Delete,
        Self::Empty,
        Self::EmptyKeepingMark,
        Self::EditHolder,
    ];
}

/// What does not get through between a machine and the API server.
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
pub enum Part {
    Elector,
    Supervisor,
}

impl Part {
    pub const BOTH: [Self; 2] = [Self::Elector, Self::Supervisor];
}
