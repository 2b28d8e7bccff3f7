//! Who may process an event: the first who asks, until it is known what became of it.

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

/// How many events are remembered if nothing is said.
pub const DEFAULT_MAX_ENTRIES: usize = 1_000_000;

/// So many locks share the work once there are enough entries for each.
const MAX_SHARDS: usize = 64;

const ENTRIES_PER_SHARD: usize = 1024;

/// The events that are being processed, and those that were taken: what [`Dedup`](crate::layers::Dedup) asks.
///
/// A clone is the same store. It is of one process: two that share the work each need to get the retries of their own
/// senders, or a duplicate that goes to the other is processed.
#[derive(Clone)]
pub struct Claims {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Arc<[Mutex<Table>]>,
    entries: AtomicUsize,
    /// Ages are measured by the monotonic clock: whoever sets the other one makes nothing be forgotten.
    started: Instant,
    journal: Option<Box<dyn Durable>>,
}

impl Claims {
    /// Remembers events until the process ends.
    pub fn in_memory() -> Self {
        ClaimsOptions::new().in_memory()
    }

    /// Remembers events in `directory` too, over a restart and a crash. See [`ClaimsOptions::open`].
    ///
    /// # Errors
    ///
    /// As there.
    #[cfg(feature = "durable")]
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        ClaimsOptions::new().open(directory)
    }

    /// How many events are known, those that are being processed and those whose time is over but that are not yet
    /// removed included.
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
    /// In seconds since the start.
    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn change<T>(&self, event: EventDigest, f: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = lock(&self.shards[event.part(self.shards.len())]);
        let (entries, forgotten) = (table.len(), table.forgotten());
        let outcome = f(&mut table);
        // While it is locked: else the sum could be less than nothing for a moment.
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
    /// At most [`DEFAULT_MAX_ENTRIES`] events.
    pub fn new() -> Self {
        Self { max_entries: DEFAULT_MAX_ENTRIES }
    }

    /// How many events that were taken are remembered, at about a hundred bytes each, and as much for each webhook in each
    /// of up to 64 parts; at least one. Those that are being processed come on top; they are never forgotten.
    ///
    /// If there are more, some are forgotten before their time: the oldest of the webhook that has the most, of the
    /// namespace that has the most. One webhook alone may have all the room; but it takes nothing from a namespace that has
    /// no more than an equal share, nor from a webhook that has no more than an equal share of its namespace's, also when
    /// they come later. A scope of [`DedupLayer::rule`](crate::layers::DedupLayer::rule) counts as a namespace. The shares are
    /// those of each part, so that they are exact only to within some events.
    #[must_use]
    pub fn max_entries(mut self, max_entries: usize) -> Self {
        self.max_entries = max_entries;
        self
    }

    /// Remembers events until the process ends.
    pub fn in_memory(&self) -> Claims {
        self.build(None, self.shards())
    }

    /// Remembers events in `directory` too, which is made if it is missing and belongs to this store alone.
    ///
    /// An event that was taken is handed to the operating system before its sender is answered: it outlives a crash of
    /// the process. Within a second it is synced: a power cut may forget the last second. What is forgotten is processed
    /// again if its sender sends it again; nothing is lost. An event that is being processed is never written: after a
    /// crash the sender, who got no answer, sends it again, and it is processed.
    ///
    /// What an earlier process has taken does not expire before the wall clock has agreed with the monotonic one for ten
    /// minutes: a clock that is wrong for a moment makes nothing be forgotten.
    ///
    /// The directory holds up to about twice [`max_entries`](Self::max_entries) records of 48 bytes. What is remembered
    /// stays there, however much comes after it.
    ///
    /// Damaged records are skipped. If the disk fails later, events are remembered in memory only; the log and the
    /// metrics tell.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, read or written, or another process has it. It blocks meanwhile.
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

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The event may be processed.
    First(Pending),
    /// Somebody else is about it.
    InProgress,
    /// It was taken, with this answer.
    Duplicate(Answer),
}

/// An event that is being processed. Dropped, by whatever comes in between, it is anybody's again.
#[derive(Debug)]
pub(crate) struct Pending {
    claims: Claims,
    event: EventDigest,
    ttl: u32,
    is_settled: bool,
}

impl Pending {
    /// The event was taken. The future, if there is one, is over when this will outlive a crash.
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
    fn a_claim_that_is_dropped_is_anybodys() {
        let claims = Claims::in_memory();
        let pending = first(&claims, event(1));
        assert!(matches!(claims.clone().claim(event(1), 60), Claim::InProgress));
        drop(pending);
        assert_eq!(claims.entries(), 0);
        let thread = {
            let claims = claims.clone();
            std::thread::spawn(move || {
                let _pending = first(&claims, event(1));
                panic!("as it should");
            })
        };
        assert!(thread.join().is_err());
        assert!(first(&claims, event(1)).taken(answer(7)).is_none(), "nothing is to be waited for");
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
    async fn what_an_earlier_process_has_taken_expires_once_the_clock_is_believed() {
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
