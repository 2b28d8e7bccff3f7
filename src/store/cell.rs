//! A shared pointer that is read for every request and replaced rarely.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::snapshot::Snapshot;

/// The current snapshot and how often it has been replaced.
///
/// Each thread keeps the snapshot it read last, and takes the lock only when the count says that there is a newer one: a
/// read is otherwise one load of a shared word that is hardly ever written. Services cannot keep it instead, as servers
/// clone them for each request.
#[derive(Debug)]
pub(crate) struct SnapshotCell {
    generation: AtomicU64,
    snapshot: RwLock<Arc<Snapshot>>,
}

/// The snapshot that a thread read last from one cell.
///
/// An idle thread keeps an old snapshot alive until it reads again. The cost is the memory that the old snapshot does
/// not share with the current one.
struct Seen {
    cell: Weak<SnapshotCell>,
    generation: u64,
    snapshot: Arc<Snapshot>,
}

thread_local! {
    /// One entry for each store the thread reads: usually one.
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

impl SnapshotCell {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { generation: AtomicU64::new(0), snapshot: RwLock::new(Arc::new(snapshot)) }
    }

    pub(super) fn load(&self) -> Arc<Snapshot> {
        // The lock guards one assignment, which cannot panic half-way.
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn store(&self, snapshot: Arc<Snapshot>) {
        let old = std::mem::replace(&mut *self.snapshot.write().unwrap_or_else(PoisonError::into_inner), snapshot);
        // The counter grows after the snapshot was replaced: a thread that sees the new count finds the new snapshot. A
        // thread that still sees the old count serves the old snapshot once more, as if it had read a moment earlier.
        self.generation.fetch_add(1, Ordering::Release);
        // Dropped outside of the lock: it may be the last reference to a large snapshot.
        drop(old);
    }

    /// Reads the current snapshot.
    pub(super) fn read<R>(self: &Arc<Self>, read: impl FnOnce(&Snapshot) -> R) -> R {
        SEEN.with(|seen| match seen.try_borrow_mut() {
            Ok(mut seen) => read(self.newest(&mut seen)),
            // A nested read.
            Err(_) => read(&self.load()),
        })
    }

    fn newest<'a>(self: &Arc<Self>, seen: &'a mut Vec<Seen>) -> &'a Snapshot {
        // Loaded before the snapshot: if the snapshot is replaced in between, the next read loads it again, and no
        // replacement is missed.
        let generation = self.generation.load(Ordering::Acquire);
        let known = seen.iter().position(|seen| std::ptr::eq(seen.cell.as_ptr(), Arc::as_ptr(self)));
        let at = known.unwrap_or_else(|| {
            seen.retain(|seen| seen.cell.strong_count() > 0);
            seen.push(Seen { cell: Arc::downgrade(self), generation, snapshot: self.load() });
            seen.len() - 1
        });
        let seen = &mut seen[at];
        if seen.generation != generation {
            seen.snapshot = self.load();
            seen.generation = generation;
        }
        &seen.snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(cell: &Arc<SnapshotCell>) -> u64 {
        cell.read(Snapshot::revision)
    }

    #[test]
    fn a_reader_sees_each_replacement_of_each_cell() {
        let cells =
            [Arc::new(SnapshotCell::new(Snapshot::default())), Arc::new(SnapshotCell::new(Snapshot::default()))];
        for n in 1..10 {
            cells[0].store(Arc::new(Snapshot::at(n)));
            cells[1].store(Arc::new(Snapshot::at(100 * n)));
            assert_eq!((revision(&cells[0]), revision(&cells[1])), (n, 100 * n));
            assert_eq!(cells[0].read(|_| revision(&cells[1])), 100 * n, "a read within a read");
        }
    }

    #[test]
    fn dropping_a_store_drops_its_snapshot() {
        let cell = Arc::new(SnapshotCell::new(Snapshot::default()));
        revision(&cell);
        drop(cell);
        revision(&Arc::new(SnapshotCell::new(Snapshot::default())));
        SEEN.with(|seen| assert_eq!(seen.borrow().len(), 1));
    }

    #[test]
    fn under_many_writes_no_reader_goes_back() {
        let cell = Arc::new(SnapshotCell::new(Snapshot::default()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < 20_000 {
                        let revision = revision(&cell);
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
