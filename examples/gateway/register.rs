//! The open connections of a kind, for searches among all of them.

use std::collections::{HashMap, hash_map};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two searches: each examines all connections.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Register<T>(Mutex<State<T>>);

struct State<T> {
    next: u64,
    open: HashMap<u64, Arc<T>>,
    searched: Option<Instant>,
}

/// Keeps a connection in the register until this is dropped.
pub(crate) struct Place<T> {
    register: Arc<Register<T>>,
    id: u64,
}

impl<T> Register<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { next: 0, open: HashMap::new(), searched: None })))
    }

    pub(crate) fn enter(self: &Arc<Self>, connection: &Arc<T>) -> Place<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Arc::clone(connection));
        Place { register: Arc::clone(self), id }
    }

    /// Searches all connections. `None` without a search if the last one was less than [`PAUSE`] ago, or another thread is
    /// searching.
    pub(crate) fn search<R>(&self, search: impl FnOnce(hash_map::Values<'_, u64, Arc<T>>, Instant) -> R) -> Option<R> {
        let mut state = self.0.try_lock().ok()?;
        let now = Instant::now();
        if state.searched.is_some_and(|last| now < last + PAUSE) {
            return None;
        }
        state.searched = Some(now);
        Some(search(state.open.values(), now))
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut state = self.register.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = state.open.remove(&self.id);
        drop(state);
        // Without the lock: it may be the last reference.
        drop(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_search_sees_the_open_connections_and_the_next_one_waits() {
        let register = Register::new();
        let (first, second) = (Arc::new(1), Arc::new(2));
        let place = register.enter(&first);
        let _second = register.enter(&second);
        let sum = || register.search(|all, _| all.map(|number| **number).sum::<i32>());
        assert_eq!(sum(), Some(3));
        drop(place);
        assert_eq!((sum(), Arc::strong_count(&first)), (None, 1));
        tokio::time::advance(PAUSE).await;
        assert_eq!(sum(), Some(2));
    }
}
