//! One shared pointer that is read all the time and written now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Snapshot;

/// The current snapshot and how often it has been replaced.
///
/// The lock is taken when the snapshot changes and when a reader notices that it did; a [`Reader`] that has the current
/// one only loads the counter.
#[derive(Debug)]
pub(crate) struct Cell {
    generation: AtomicU64,
    snapshot: RwLock<Arc<Snapshot>>,
}

impl Cell {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { generation: AtomicU64::new(0), snapshot: RwLock::new(Arc::new(snapshot)) }
    }

    pub(super) fn load(&self) -> Arc<Snapshot> {
        // The lock guards one assignment, which cannot panic half-way.
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn store(&self, snapshot: Arc<Snapshot>) {
        let old = std::mem::replace(&mut *self.snapshot.write().unwrap_or_else(PoisonError::into_inner), snapshot);
        // After the snapshot: who sees the new count finds the new snapshot. Who sees the old one in between is served
        // the old snapshot once more, as if it had asked a moment earlier.
        self.generation.fetch_add(1, Ordering::Release);
        // Outside of the lock, as it may be the last reference to much.
        drop(old);
    }
}

/// A reader that keeps the snapshot it saw last.
///
/// An idle one keeps an old snapshot alive until it is used again; what that costs is the difference to the current one.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    cell: Arc<Cell>,
    seen: u64,
    snapshot: Arc<Snapshot>,
}

impl Reader {
    pub(super) fn new(cell: Arc<Cell>) -> Self {
        // The count first: a snapshot that comes in between is then loaded once more, and never missed.
        let seen = cell.generation.load(Ordering::Acquire);
        let snapshot = cell.load();
        Self { cell, seen, snapshot }
    }

    /// The current snapshot.
    pub(crate) fn snapshot(&mut self) -> &Snapshot {
        let generation = self.cell.generation.load(Ordering::Acquire);
        if generation != self.seen {
            self.snapshot = self.cell.load();
            self.seen = generation;
        }
        &self.snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_replacement() {
        let cell = Arc::new(Cell::new(Snapshot::default()));
        let mut reader = Reader::new(Arc::clone(&cell));
        assert_eq!(reader.snapshot().revision(), 0);
        for revision in 1..10 {
            cell.store(Arc::new(Snapshot::at(revision)));
            assert_eq!(reader.snapshot().revision(), revision);
            assert_eq!(reader.clone().snapshot().revision(), revision);
        }
    }

    #[test]
    fn under_many_writes_no_reader_goes_back() {
        let cell = Arc::new(Cell::new(Snapshot::default()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut reader = Reader::new(Arc::clone(&cell));
                    let mut last = 0;
                    while last < 20_000 {
                        let revision = reader.snapshot().revision();
                        assert!(revision >= last);
                        last = revision;
                    }
                });
            }
            for revision in 1..=20_000 {
                cell.store(Arc::new(Snapshot::at(revision)));
            }
        });
    }
}
