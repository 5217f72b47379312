//! Mutations: rules that are disabled to show that the simulation detects it.

/// A disabled rule that the promise depends on. A mutation changes the inputs and outputs of the state machines, which
/// themselves are the production code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Every rule holds.
    None,
    /// A tenure begins when the reply arrives.
    TenureFromReply,
    /// The tenure of a write that is confirmed by a read begins at the read.
    TenureFromRead,
    /// Updates replace any version.
    NoCompareAndSwap,
    /// Releases replace any version.
    UncheckedRelease,
    /// Each renewal equals the one before.
    EqualRenewals,
    /// Renewals change nothing in the store, but their replies count as renewals.
    AcceptUnchangedRenewals,
    /// The lock is released when the main process has ended.
    ReleaseAfterMainProcess,
    /// The lock is released when the supervisor is dead.
    ReleaseAfterSupervisorDeath,
    /// Candidates wait for their own lease duration, not the record's.
    OwnLeaseDuration,
    /// The latest duration that a run stated counts, not the longest.
    LatestStatedDuration,
    /// The time left is not checked before the spawn.
    NoCheckBeforeSpawn,
    /// A run recognises its own records by its identity, not by its run ID.
    OwnByIdentity,
    /// An overdue stop comes before the renewals in the queue.
    StopBeforeRenewals,
    /// A renewal during a stop for loss delays the kill.
    DelayedKill,
    /// A create that is carried out late acquires the lock, even if another run has held it meanwhile.
    LateCreateAcquires,
    /// Candidates ignore marks: an emptied record is free.
    IgnoreMarks,
    /// The grace period ends after the lease.
    GraceBeyondLease,
    /// The elector does not kill in place of a frozen supervisor.
    NoLastResort,
    /// Only the main process is killed.
    KillMainOnly,
    /// Only the first object of a pair is read.
    ReadFirstObjectOnly,
    /// Only the first object of a pair is written.
    WriteFirstObjectOnly,
    /// A claim that reached only one object of a pair is not rolled back.
    KeepHalfClaims,
    /// Candidates ignore when the command is due again.
    IgnoreNotBefore,
    /// The command gets its grace period even when another candidate is known to hold the lock.
    GraceAfterTakeover,
    /// Candidates ignore which version an acquisition replaced.
    IgnoreReplacedVersions,
    /// Stop and kill are not brought forward on a machine on which the kill is delayed.
    IgnoreDelays,
}
