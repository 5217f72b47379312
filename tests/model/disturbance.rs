//! The disturbances that the model explores. Their number is bounded. A disturbance that lasts, such as a delayed
//! message, a partition or a frozen process, may end at any later time, or never.

/// A kind of disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Time advances while a request, its reply or a watch event is in flight.
    Delay,
    /// The API server refuses a request.
    Refused,
    /// The messages between a machine and the API server are lost.
    Partition,
    /// A process of leaderrun is frozen: it does nothing until it is thawed.
    Freeze,
    /// A process of leaderrun is killed.
    Crash,
    /// The command's main process ends, but the child that it started does not.
    MainProcessEnds,
    /// leaderrun gets SIGTERM.
    TerminationSignal,
    /// leaderrun is started again after it has ended.
    Restart,
    /// Another client deletes the lock's object.
    Delete,
    /// Another client removes the holder and leaderrun's mark.
    RemoveHolderAndMark,
    /// Another client removes only the holder.
    RemoveHolder,
    /// Another client replaces the name of the holder.
    EditHolder,
}

impl Disturbance {
    pub const ALL: [Self; 12] = [
        Self::Delay,
        Self::Refused,
        Self::Partition,
        Self::Freeze,
        Self::Crash,
        Self::MainProcessEnds,
        Self::TerminationSignal,
        Self::Restart,
        Self::Delete,
        Self::RemoveHolderAndMark,
        Self::RemoveHolder,
        Self::EditHolder,
    ];
}

/// The messages between a machine and the API server that a partition drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partition {
    Both,
    /// Messages to the API server.
    Outbound,
    /// Messages to the machine.
    Inbound,
}

impl Partition {
    pub const ALL: [Self; 3] = [Self::Both, Self::Outbound, Self::Inbound];

    pub fn drops_outbound(partition: Option<Self>) -> bool {
        matches!(partition, Some(Self::Both | Self::Outbound))
    }

    pub fn drops_inbound(partition: Option<Self>) -> bool {
        matches!(partition, Some(Self::Both | Self::Inbound))
    }
}

/// One of leaderrun's two processes, which a [`Freeze`](Disturbance::Freeze) or [`Crash`](Disturbance::Crash) affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Elector,
    Supervisor,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Elector, Self::Supervisor];
}
