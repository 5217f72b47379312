//! Distributes the updates of a candidate to their listeners.

use std::fmt;
use std::sync::Arc;

use leaderrun_core::updates::Update;

/// The listeners for the updates of a candidate. Listeners must not block.
#[derive(Clone, Default)]
pub struct Observer(Vec<Listener>);

type Listener = Arc<dyn Fn(&Update) + Send + Sync>;

impl Observer {
    /// Creates an observer with one listener, which must not block.
    pub fn new(listener: impl Fn(&Update) + Send + Sync + 'static) -> Self {
        Self(vec![Arc::new(listener)])
    }

    /// Returns an observer with the listeners of both.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Calls all listeners with an update.
    pub fn notify(&self, update: Update) {
        self.0.iter().for_each(|listener| listener(&update));
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({} listeners)", self.0.len())
    }
}
