//! What the guard and everybody around it say to each other.

use alloc::string::String;
use alloc::vec::Vec;

use crate::election::Outcome;
use crate::exit::Exit;
use crate::messages::{End, Order};
use crate::tenure::Tenure;
use crate::updates::Loss;

/// What the election tells the guard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// From here on a lease may be won that has to be given back.
    Claiming,
    /// It was not won.
    NotWon,
    /// The lease is won: here is what the command may know of it.
    Lead {
        tenure: Tenure,
        environment: Vec<(String, String)>,
    },
    Extend(Tenure),
    /// End the command as if leaderrun were told to end.
    StepDown,
    Lose,
    Finished(Outcome),
}

/// What the guard tells the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Nothing of the command is left; it may have ended well, with status 0.
    TreeGone { well: bool },
    /// Come to an end.
    Stop,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Action {
    /// Tell the supervisor.
    Order(Order),
    /// Tell the election.
    Notify(Notice),
    /// Kill the supervisor, and then every descendant, again and again, until none is left.
    LastResort(Failure),
    /// Something worth telling.
    Tell(News),
    /// End leaderrun.
    End(Exit),
}

/// How a supervisor can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    Died,
    /// It did not have the command dead in time.
    Late,
}

/// What people want to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// The command may live for as long as this tenure lasts.
    Leading(Tenure),
    Lost(Loss),
    /// The command is about to be asked to end.
    Ending,
    CommandEnded(End),
    /// Nothing of the command is left.
    Gone,
    NotAcquired,
    /// The lease was given back.
    Released,
    NotReleased,
    /// The command is asked to end by this signal, for the first time.
    AskedToEnd(i32),
    /// This signal ended the wait for the lease.
    WaitsNoLonger(i32),
    /// There was no command, and now there will be none.
    SupervisorDied,
}
