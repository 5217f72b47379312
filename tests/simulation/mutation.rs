//! Mutations: rules that are disabled, one at a time, to show that the simulation detects their absence.

/// A disabled rule that leaderrun's promise depends on. Each variant describes the behavior without its rule. A
/// mutation changes the inputs of the state machines, or how their actions are carried out. The state machines
/// themselves are the production code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// No rule is disabled.
    None,
    /// A tenure begins when the reply arrives.
    TenureFromReply,
    /// The tenure of a write that is confirmed by a read begins at the read.
    TenureFromRead,
    /// Updates replace any version.
    NoCompareAndSwap,
    /// Releases replace any version.
    UncheckedRelease,
    /// A renewal writes the stored record unchanged, so the API server creates no new version.
    EqualRenewals,
    /// The API server stores no renewals, but its replies name new versions, so the candidate counts them as renewals.
    AcceptUnchangedRenewals,
    /// The lock is released when the main process has ended.
    ReleaseAfterMainProcess,
    /// The lock is released when the supervisor is dead.
    ReleaseAfterSupervisorDeath,
    /// Candidates wait for their own lease duration, not the record's.
    OwnLeaseDuration,
    /// A write whose lease duration the API server has shortened counts as an acquisition or a renewal.
    TenureOfShortenedWrite,
    /// Candidates wait for the latest lease duration that a run has written, not for the longest.
    LatestWrittenDuration,
    /// The command is started although its tenure may be over.
    NoCheckBeforeSpawn,
    /// A run recognizes its own records by its identity, not by its run ID.
    OwnByIdentity,
    /// The supervisor carries out an overdue stop before it reads the renewals that have arrived.
    StopBeforeRenewals,
    /// A renewal that arrives while the command is being stopped after a loss delays the kill.
    DelayedKill,
    /// A create that is carried out late acquires the lock, even if another run has held it in the meantime.
    LateCreateAcquires,
    /// Candidates ignore leaderrun's mark: a record whose holder another client has removed counts as free.
    IgnoreMarks,
    /// The grace period ends after the lease.
    GraceBeyondLease,
    /// The elector does not kill in place of a frozen supervisor.
    NoElectorKill,
    /// Only the main process is killed.
    KillMainOnly,
    /// Only the first object of a pair is read.
    ReadFirstObjectOnly,
    /// Only the first object of a pair is written.
    WriteFirstObjectOnly,
    /// A half claim, which was written to only one object of a pair, is not rolled back.
    KeepHalfClaims,
    /// Candidates run the command before it is due: they ignore `leaderrun/not-before`.
    IgnoreNotBefore,
    /// The command gets its grace period even when another candidate is known to hold the lock.
    GraceAfterTakeover,
    /// Candidates ignore which version an acquisition replaced.
    IgnoreReplacedVersions,
    /// The stop and the kill are not brought forward on a machine on which the kill is delayed.
    IgnoreDelays,
}
