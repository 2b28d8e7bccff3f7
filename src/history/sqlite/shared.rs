//! The state that the store, its writer and its readers share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::activity::Counts;
use super::buffer::{Buffer, Limits};
use crate::base::lock::lock;
use crate::history::HistoryStatus;

/// A write that takes longer than this means that the disk hangs; the history then reports that it fails.
const HANGS: Duration = Duration::from_secs(5);

pub(super) struct Shared {
    pub(super) buffer: Buffer,
    pub(super) activity: Mutex<Counts>,
    /// The figures of the file at the writer's last look.
    status: Mutex<HistoryStatus>,
    has_failed: AtomicBool,
    /// When the writer began its current write.
    busy: Mutex<Option<Instant>>,
    /// Which file the readers read: it grows when another file takes its place.
    file: AtomicU64,
    /// Whether a reader has found damage.
    is_damaged: AtomicBool,
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            buffer: Buffer::new(limits),
            activity: Mutex::default(),
            status: Mutex::default(),
            has_failed: AtomicBool::new(false),
            busy: Mutex::new(None),
            file: AtomicU64::new(0),
            is_damaged: AtomicBool::new(false),
        }
    }

    pub(super) fn status(&self) -> HistoryStatus {
        let (dropped, dropped_bodies) = self.buffer.dropped();
        HistoryStatus { dropped, dropped_bodies, is_failing: self.is_failing(), ..*lock(&self.status) }
    }

    pub(super) fn set_status(&self, status: HistoryStatus) {
        *lock(&self.status) = status;
    }

    /// Whether the last write failed, or the disk hangs.
    pub(super) fn is_failing(&self) -> bool {
        let hangs = || lock(&self.busy).is_some_and(|since| since.elapsed() > HANGS);
        self.has_failed.load(Ordering::Relaxed) || hangs()
    }

    /// Returns whether the write before failed.
    pub(super) fn set_failed(&self, has_failed: bool) -> bool {
        self.has_failed.swap(has_failed, Ordering::Relaxed)
    }

    pub(super) fn set_busy(&self, is_busy: bool) {
        *lock(&self.busy) = is_busy.then(Instant::now);
    }

    pub(super) fn file(&self) -> u64 {
        self.file.load(Ordering::Acquire)
    }

    /// Says that another file is there.
    pub(super) fn next_file(&self) {
        self.file.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn found_damage(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_damage(&self) -> bool {
        self.is_damaged.swap(false, Ordering::Relaxed)
    }
}
