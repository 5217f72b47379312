//! Rules taken away, to see that the simulation notices.

/// A rule that the promise rests on, broken where the machines meet the world: the machines themselves
/// are the production ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Every rule holds.
    None,
    /// T0 is taken when the reply arrives.
    SentAfterReply,
    /// A write that is recognised by reading counts from the read.
    SettledByReadCountsFromRead,
    /// Updates replace whatever there is.
    NoCompareAndSwap,
    /// A release empties the lease, whoever holds it by now.
    ReleaseWhoever,
    /// Renewals are equal to the one before.
    EqualRenewals,
    /// And a reply that says so counts as a renewal.
    RenewalsChangeNothing,
    /// The lease is released when the main process has ended.
    ReleaseWhenMainEnded,
    /// The lease is released when the supervisor is dead.
    ReleaseWhenSupervisorDied,
    /// Candidates wait their own lease duration, not the record's.
    OwnDuration,
    /// Of a run that candidates know, the last duration counts, not the longest.
    LastDuration,
    /// The time left is not checked before the spawn.
    NoCheckBeforeSpawn,
    /// "Mine" is what bears my name.
    MineByName,
    /// An overdue stop comes before the renewals that have come meanwhile.
    StopBeforeRenewals,
    /// A renewal during a stop for loss puts off the kill.
    KillPutOff,
    /// A create that is carried out late wins, whoever has held the lease meanwhile.
    LateCreateWins,
    /// Candidates do not know marks: whatever was emptied is free.
    NoWaitAfterEmptying,
    /// The grace is not inside the lease.
    GraceBeyondLease,
    /// Nobody kills in place of a supervisor that is frozen.
    NoLastResort,
    /// The kill ends with the main process.
    KillMainOnly,
    /// Who looks at two objects believes the first one.
    FirstCounts,
    /// Who should hold two objects holds the first one.
    HoldsFirst,
    /// A claim that reached only one of two objects is not given back.
    HalfClaimsStay,
    /// Candidates do not heed when the command is due again.
    NotBeforeIgnored,
    /// A lease that is known to be lost is treated like one that may be.
    GraceWhenKnownLost,
}
