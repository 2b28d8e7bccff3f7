//! The read half and the write half of a store.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use super::cell::SnapshotCell;
use super::not_ready::NotReady;
use super::revision::Revision;
use super::snapshot::Snapshot;
use super::status::{IgnoredKey, SourceReport, SourceState, Status};

/// The read half of the configuration.
#[derive(Clone, Debug)]
pub struct Store {
    cell: Arc<SnapshotCell>,
    revision: watch::Receiver<Option<Seen>>,
    status: watch::Receiver<SourceStatus>,
    /// Wakes the source when a reader waits for a proof that the configuration is current.
    demand: Arc<Notify>,
}

/// The state that readers see.
#[derive(Clone, Copy, Debug)]
struct Seen {
    epoch: u64,
    revision: Revision,
}

/// The state of the source.
#[derive(Clone, Debug)]
struct SourceStatus {
    source: &'static str,
    state: SourceState,
    since: SystemTime,
    ignored_keys: u64,
    ignored: Arc<[IgnoredKey]>,
    proven: Option<Instant>,
    report: SourceReport,
}

impl Store {
    /// The configuration as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.cell.load()
    }

    /// Waits until a configuration has been loaded, also an empty one, for at most `limit`.
    ///
    /// A store that is not ready serves nothing: every request is answered 503. A wait that failed can be repeated, and
    /// the reflector goes on trying meanwhile.
    ///
    /// # Errors
    ///
    /// When `limit` passes, or the reflector ends, before a configuration was loaded. The error says what the source
    /// reported last, so that a missing file or a wrong address is found without a log.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without timers.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_webhook::source::FixedSource;
    /// # use tower_webhook::{Registry, reflect};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (store, reflector) = reflect(FixedSource::new(), Registry::builtin());
    /// tokio::spawn(reflector.run());
    /// store.wait_ready(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), NotReady> {
        let waited = match tokio::time::timeout(limit, self.loaded()).await {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(_) => Some(limit),
        };
        let status = self.status.borrow();
        Err(NotReady { source: status.source, state: status.state.clone(), waited })
    }

    /// Waits without a limit. `false` if the reflector ended before a configuration was loaded.
    pub(crate) async fn loaded(&self) -> bool {
        self.revision.clone().wait_for(Option::is_some).await.is_ok()
    }

    /// Waits until readers see everything that was written up to `revision`: a writer that waits for the revision of
    /// its own put reads its own write.
    ///
    /// etcd counts every write to the cluster. A write below the prefix arrives at once. A write elsewhere counts as
    /// reached when a proof, which is asked for at once, shows that it changed nothing here. Returns `false` if the
    /// reflector was dropped, or if the source has another history meanwhile, in which the number has another meaning.
    ///
    /// After a reconnect without a list, and after a start from a saved copy, it may return `true` before every value
    /// has been compared with etcd's. If etcd was wiped and written again meanwhile, the comparison finds this later,
    /// and a new epoch begins. [`wait_fresh`](Self::wait_fresh) waits for the comparison.
    ///
    /// The wait has no limit of its own. Wrap it in [`tokio::time::timeout`]; dropping the future loses nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_webhook::source::FixedSource;
    /// # use tower_webhook::{Registry, reflect};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let (store, reflector) = reflect(FixedSource::new(), Registry::builtin());
    /// # tokio::spawn(reflector.run());
    /// use tokio::time::timeout;
    ///
    /// store.wait_ready(Duration::from_secs(5)).await.unwrap();
    ///
    /// // A timeout, and a revision that can no longer come, both count as no.
    /// let reached = timeout(Duration::from_millis(100), store.wait_for_revision(1_000_000)).await;
    /// assert!(!reached.unwrap_or(false));
    /// # }
    /// ```
    pub async fn wait_for_revision(&self, revision: Revision) -> bool {
        let mut revisions = self.revision.clone();
        let epoch = revisions.borrow_and_update().map(|seen| seen.epoch);
        // A proof may arrive sooner than an event, if the revision changed nothing here.
        if revisions.borrow().is_none_or(|seen| seen.revision < revision) {
            self.demand.notify_one();
        }
        let seen = revisions.wait_for(|seen| {
            seen.is_some_and(|seen| seen.revision >= revision || epoch.is_some_and(|epoch| epoch != seen.epoch))
        });
        // In another history the number has another meaning.
        seen.await.is_ok_and(|seen| seen.is_some_and(|seen| epoch.is_none_or(|epoch| epoch == seen.epoch)))
    }

    /// Waits until the served configuration is known to be what the source held at the time of this call, or later. The
    /// source is asked at once.
    ///
    /// Returns `false` if the reflector was dropped before that. A source that cannot prove anything, such as the fixed
    /// one, never answers. For a time limit see [`wait_for_revision`](Self::wait_for_revision).
    pub async fn wait_fresh(&self) -> bool {
        let asked = Instant::now();
        self.demand.notify_one();
        self.status.clone().wait_for(|status| status.proven.is_some_and(|at| at >= asked)).await.is_ok()
    }

    /// The status of the configuration, for operators.
    pub fn status(&self) -> Status {
        let source = self.status.borrow().clone();
        Status {
            source: source.source,
            state: source.state,
            state_since: source.since,
            ignored_keys: source.ignored_keys,
            ignored: source.ignored,
            proven: source.proven,
            report: source.report,
            snapshot: self.snapshot(),
        }
    }

    /// Reads the current configuration, without a lock and without touching a shared counter.
    pub fn read<R>(&self, read: impl FnOnce(&Snapshot) -> R) -> R {
        self.cell.read(read)
    }
}

/// The only write half.
#[derive(Debug)]
pub(crate) struct Writer {
    cell: Arc<SnapshotCell>,
    revision: watch::Sender<Option<Seen>>,
    status: watch::Sender<SourceStatus>,
    demand: Arc<Notify>,
}

impl Writer {
    /// The snapshot that readers see.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.cell.load()
    }

    /// Makes `snapshot` the one that readers see, then wakes the tasks that wait for its revision.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let seen = Seen { epoch: self.status.borrow().report.epoch, revision: snapshot.revision() };
        self.cell.store(Arc::new(snapshot));
        self.revision.send_replace(Some(seen));
    }

    /// Returns the previous state. A disconnection with another reason is the same state.
    pub(crate) fn set_state(&self, state: SourceState) -> SourceState {
        let mut before = SourceState::Starting;
        self.status.send_modify(|status| {
            if status.state.label() != state.label() {
                status.since = SystemTime::now();
            }
            before = std::mem::replace(&mut status.state, state);
        });
        before
    }

    /// Waits until a reader needs a proof that the configuration is current.
    pub(crate) async fn wanted(&self) {
        self.demand.notified().await;
    }

    pub(crate) fn set_ignored(&self, total: u64, listed: Vec<IgnoredKey>) {
        self.status.send_modify(|status| (status.ignored_keys, status.ignored) = (total, listed.into()));
    }

    pub(crate) fn report(&self, change: impl FnOnce(&mut SourceReport)) {
        self.status.send_modify(|status| change(&mut status.report));
    }

    pub(crate) fn set_proven(&self, at: Instant) {
        self.status.send_modify(|status| status.proven = Some(at));
    }
}

/// An empty store, into which nothing has been loaded.
pub(crate) fn store(source: &'static str) -> (Store, Writer) {
    let cell = Arc::new(SnapshotCell::new(Snapshot::default()));
    let (revision, revisions) = watch::channel(None);
    let (status, statuses) = watch::channel(SourceStatus {
        source,
        state: SourceState::Starting,
        since: SystemTime::now(),
        ignored_keys: 0,
        ignored: Arc::default(),
        proven: None,
        report: SourceReport::default(),
    });
    let demand = Arc::new(Notify::new());
    let store = Store { cell: Arc::clone(&cell), revision: revisions, status: statuses, demand: Arc::clone(&demand) };
    (store, Writer { cell, revision, status, demand })
}
