//! Claims: the first request with an id may process the event; all others wait for its outcome.

use std::fmt;
#[cfg(feature = "durable")]
use std::io;
#[cfg(feature = "durable")]
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::durable::Durable;
#[cfg(feature = "durable")]
use super::journal::Journal;
use super::metrics;
use super::rule::EventDigest;
use super::table::{Answer, Known, Table, Taken};
#[cfg(feature = "durable")]
use crate::base::clock::Clock;
use crate::base::lock::lock;

/// The default of [`ClaimsOptions::max_entries`]: one million, in about 100 MB.
pub const DEFAULT_MAX_ENTRIES: usize = 1_000_000;

/// The largest number of shards, each with its own lock. Fewer are used if there are few entries.
const MAX_SHARDS: usize = 64;

const ENTRIES_PER_SHARD: usize = 1024;

/// The store of [`Dedup`](crate::layers::Dedup): the events that are being processed, and those that were taken.
///
/// Clones share one store. The store belongs to one process: if several processes share the work, each retry must reach
/// the process that got the first request, or the duplicate is processed.
#[derive(Clone)]
pub struct Claims {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Arc<[Mutex<Table>]>,
    entries: AtomicUsize,
    /// Ages are measured by the monotonic clock, so that setting the wall clock makes no event expire.
    started: Instant,
    journal: Option<Box<dyn Durable>>,
}

impl Claims {
    /// Remembers up to [`DEFAULT_MAX_ENTRIES`] events until the process ends.
    pub fn in_memory() -> Self {
        ClaimsOptions::new().in_memory()
    }

    /// Remembers events in `directory` as well, across restarts and crashes: up to [`DEFAULT_MAX_ENTRIES`].
    /// See [`ClaimsOptions::open`].
    ///
    /// # Errors
    ///
    /// The same as [`ClaimsOptions::open`].
    #[cfg(feature = "durable")]
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        ClaimsOptions::new().open(directory)
    }

    /// The number of events in the store. It includes events that are being processed, and expired ones that are not
    /// removed yet.
    pub fn entries(&self) -> usize {
        self.inner.entries.load(Ordering::Relaxed)
    }

    /// Claims `event`, to be remembered for `ttl` seconds if it is taken.
    pub(crate) fn claim(&self, event: EventDigest, ttl: u32) -> Claim {
        let inner = &self.inner;
        let now = inner.now();
        let claim = |table: &mut Table| {
            if table.has_undated()
                && let Some(wall) = inner.journal.as_ref().and_then(|journal| journal.time_for_expiry())
            {
                table.date(wall, now);
            }
            table.claim(event, now)
        };
        match inner.change(event, claim) {
            Known::First => Claim::First(Pending { claims: self.clone(), event, ttl, is_settled: false }),
            Known::Pending => Claim::InProgress,
            Known::Taken(answer) => Claim::Duplicate(answer),
        }
    }
}

impl Inner {
    /// Seconds since the start of the store.
    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn change<T>(&self, event: EventDigest, f: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = lock(&self.shards[event.part(self.shards.len())]);
        let (entries, forgotten) = (table.len(), table.forgotten());
        let outcome = f(&mut table);
        // Under the lock: otherwise the sum could drop below zero for a moment.
        let added = table.len().wrapping_sub(entries);
        let entries = self.entries.fetch_add(added, Ordering::Relaxed).wrapping_add(added);
        let forgotten = table.forgotten() - forgotten;
        drop(table);
        metrics::entries(entries, forgotten);
        outcome
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("entries", &self.entries()).finish_non_exhaustive()
    }
}

/// Settings of [`Claims`].
#[derive(Clone, Debug)]
pub struct ClaimsOptions {
    max_entries: usize,
}

impl ClaimsOptions {
    /// The defaults: at most [`DEFAULT_MAX_ENTRIES`] events.
    pub fn new() -> Self {
        Self { max_entries: DEFAULT_MAX_ENTRIES }
    }

    /// How many taken events are remembered; at least one. An event takes about a hundred bytes, and so does a webhook in
    /// each of up to 64 shards. Events that are being processed come on top, and are never forgotten.
    ///
    /// If there are more, some are forgotten before their time: the oldest of the largest webhook of the largest namespace.
    /// One webhook alone may use all the room. But it takes nothing from a namespace that has no more than an equal share,
    /// nor from a webhook that has no more than an equal share of its namespace, even if they come later. A scope of
    /// [`DedupLayer::rule`](crate::layers::DedupLayer::rule) counts as a namespace. Each shard has its own shares, so they
    /// are exact only to within some events.
    #[must_use]
    pub fn max_entries(mut self, max_entries: usize) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Remembers events until the process ends.
    pub fn in_memory(&self) -> Claims {
        self.build(None, self.shards())
    }

    /// Remembers events in `directory` as well. The directory is created if it is missing, and belongs to this store alone.
    /// Blocks while it reads the directory.
    ///
    /// A taken event is handed to the operating system before its sender is answered, so it survives a crash of the
    /// process. It is synced within a second, so a power cut may lose the last second. A lost event is processed again if
    /// its sender sends it again. An event that is being processed is never written: after a crash its sender, which got no
    /// answer, sends it again, and it is processed.
    ///
    /// Events of an earlier process do not expire before the wall clock has agreed with the monotonic one for ten minutes,
    /// so that a clock that is wrong for a moment makes no event expire.
    ///
    /// The directory holds up to about twice [`max_entries`](Self::max_entries) records of 48 bytes. Records of remembered
    /// events stay there, however many come after them.
    ///
    /// Damaged records are skipped. If the disk fails later, events are remembered in memory only, with a log line and a
    /// metric.
    ///
    /// # Errors
    ///
    /// When the directory cannot be created, read or written, or another process has it open.
    #[cfg(feature = "durable")]
    pub fn open(&self, directory: impl AsRef<Path>) -> io::Result<Claims> {
        self.open_by(Clock::start(), directory.as_ref())
    }

    #[cfg(feature = "durable")]
    fn open_by(&self, clock: Clock, directory: &Path) -> io::Result<Claims> {
        let shards = self.shards();
        let theirs = Arc::clone(&shards);
        let is_remembered =
            move |event: EventDigest, answer| lock(&theirs[event.part(theirs.len())]).remembers(event, answer);
        let journal = Journal::open(directory, self.max_entries, clock, is_remembered, |event, taken| {
            lock(&shards[event.part(shards.len())]).recover(event, taken);
        })?;
        Ok(self.build(Some(Box::new(journal)), shards))
    }

    fn shards(&self) -> Arc<[Mutex<Table>]> {
        let shards = (self.max_entries / ENTRIES_PER_SHARD).clamp(1, MAX_SHARDS);
        (0..shards).map(|_| Mutex::new(Table::new(self.max_entries.div_ceil(shards)))).collect()
    }

    fn build(&self, journal: Option<Box<dyn Durable>>, shards: Arc<[Mutex<Table>]>) -> Claims {
        let entries = shards.iter().map(|shard| lock(shard).len()).sum::<usize>();
        metrics::entries(entries, shards.iter().map(|shard| lock(shard).forgotten()).sum());
        Claims { inner: Arc::new(Inner { shards, entries: entries.into(), started: Instant::now(), journal }) }
    }
}

impl Default for ClaimsOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The outcome of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The event may be processed.
    First(Pending),
    /// Another request is processing the event.
    InProgress,
    /// The event was taken, with this answer.
    Duplicate(Answer),
}

/// The claim to an event that is being processed. When it is dropped before [`taken`](Self::taken), the event can be
/// claimed again.
#[derive(Debug)]
pub(crate) struct Pending {
    claims: Claims,
    event: EventDigest,
    ttl: u32,
    is_settled: bool,
}

impl Pending {
    /// Records that the event was taken. The future, if there is one, resolves when the record survives a crash.
    pub(crate) fn taken(mut self, answer: Answer) -> Option<BoxFuture<'static, ()>> {
        self.is_settled = true;
        let inner = &self.claims.inner;
        let at = inner.now();
        let taken = Taken { answer, at, until: at.saturating_add(self.ttl) };
        inner.change(self.event, |table| table.take(self.event, taken));
        inner.journal.as_ref().map(|journal| journal.append(self.event, answer, self.ttl))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_settled {
            self.claims.inner.change(self.event, |table| table.release(self.event));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use uuid::Uuid;

    use super::*;

    fn event(number: u16) -> EventDigest {
        let [high, low] = number.to_be_bytes();
        let mut event = [0; 16];
        (event[4], event[5]) = (low, high);
        EventDigest(event)
    }

    fn answer(number: u128) -> Answer {
        Answer { status: StatusCode::OK, event_id: Uuid::from_u128(number) }
    }

    fn first(claims: &Claims, event: EventDigest) -> Pending {
        match claims.claim(event, 60) {
            Claim::First(pending) => pending,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_dropped_claim_can_be_claimed_again() {
        let claims = Claims::in_memory();
        let pending = first(&claims, event(1));
        assert!(matches!(claims.clone().claim(event(1), 60), Claim::InProgress));
        drop(pending);
        assert_eq!(claims.entries(), 0);
        let thread = {
            let claims = claims.clone();
            std::thread::spawn(move || {
                let _pending = first(&claims, event(1));
                panic!("expected by the test");
            })
        };
        assert!(thread.join().is_err());
        assert!(first(&claims, event(1)).taken(answer(7)).is_none(), "without a journal there is nothing to wait for");
        assert!(matches!(claims.claim(event(1), 60), Claim::Duplicate(found) if found == answer(7)));
        assert_eq!(claims.entries(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_remembered_for_its_time() {
        let claims = Claims::in_memory();
        first(&claims, event(1)).taken(answer(7));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(matches!(claims.claim(event(1), 60), Claim::Duplicate(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(matches!(claims.claim(event(1), 60), Claim::First(_)));
    }

    #[test]
    fn the_number_of_events_is_bounded() {
        for max_entries in [0, 1, 100, 5000] {
            let claims = ClaimsOptions::new().max_entries(max_entries).in_memory();
            for number in 0..20_000 {
                first(&claims, event(number)).taken(answer(7));
            }
            // Each shard has its share, and the last one is rounded up.
            let entries = claims.entries();
            assert!((max_entries.max(1)..=max_entries + MAX_SHARDS).contains(&entries), "{max_entries}: {entries}");
            assert!(matches!(claims.claim(event(19_999), 60), Claim::Duplicate(_)), "the newest is known");
            assert!(matches!(claims.claim(event(0), 60), Claim::First(_)), "the oldest is not");
        }
    }

    #[cfg(feature = "durable")]
    #[tokio::test]
    async fn events_of_an_earlier_process_expire_once_the_clock_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let options = ClaimsOptions::new();
        let open = |clock| options.open_by(clock, folder.path()).unwrap();
        let claims = open(Clock::start());
        for (number, ttl) in [(1, 1), (2, 60)] {
            let Claim::First(pending) = claims.claim(event(number), ttl) else { panic!("it is new") };
            pending.taken(answer(7)).unwrap().await;
        }
        drop(claims);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let claims = open(Clock::start());
        for number in 1..=2 {
            assert!(matches!(claims.claim(event(number), 60), Claim::Duplicate(_)), "{number}");
        }
        drop(claims);
        let claims = open(Clock::started_before(crate::base::clock::AGREED));
        assert!(matches!(claims.claim(event(1), 60), Claim::First(_)), "its time is over");
        assert!(matches!(claims.claim(event(2), 60), Claim::Duplicate(_)));
    }

    #[test]
    fn debug_shows_no_event() {
        let claims = Claims::in_memory();
        first(&claims, event(1)).taken(answer(7));
        assert_eq!(format!("{claims:?}"), "Claims { entries: 1, .. }");
    }
}
