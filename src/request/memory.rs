//! The memory budget for request bodies.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::base::lock::lock;
use crate::base::shares::{Held, Scope};

/// The largest body, in bytes, that counts as small.
pub const SMALL_BODY: usize = 64 << 10;

/// The memory budget for request bodies. Clones share one budget.
///
/// A body is charged as its bytes arrive, until its event is delivered or handed to the queue, which holds at most 64 MiB
/// that are not on disk yet. An announced length reserves nothing. An eighth of the budget is reserved for bodies of up to
/// [`SMALL_BODY`] bytes, so that small events pass while large ones wait. A webhook may hold as many bytes as are still free,
/// and a namespace twice as many, but each may always hold one body of the largest size. So a tenant whose target hangs
/// leaves room for the others.
///
/// When there is no room for more bytes, the slowest large body that is still arriving is refused with 503
/// [`MemoryFull`](super::rejection::RejectionKind::MemoryFull) and `Retry-After`. It is chosen among the bodies of the same
/// webhook if the webhook has used up its share, otherwise among those of the namespace if that has used up its share,
/// otherwise among all. If the bytes of the arriving bodies do not suffice, only the body that needs the room is refused.
#[derive(Clone)]
pub struct BodyMemory(Arc<Shared>);

struct Shared {
    max_bytes: usize,
    largest: usize,
    held: AtomicUsize,
    /// Bodies beyond [`SMALL_BODY`] that are still arriving.
    arriving: Mutex<List>,
}

impl BodyMemory {
    /// A budget of `max_bytes`, in which each webhook may always hold one body of `largest` bytes. A budget too small for one
    /// such body besides the eighth for small ones is raised.
    pub fn new(max_bytes: usize, largest: usize) -> Self {
        let max_bytes = max_bytes.max(largest.saturating_add(largest / 7).saturating_add(1));
        let shared = Shared { max_bytes, largest, held: AtomicUsize::new(0), arriving: Mutex::default() };
        Self(Arc::new(shared))
    }

    /// The size of the budget in bytes.
    pub fn max_bytes(&self) -> usize {
        self.0.max_bytes
    }

    /// How many bytes are in use.
    pub fn held(&self) -> usize {
        self.0.held.load(Relaxed)
    }

    /// The charge of a body of which nothing has arrived yet. `share` is the webhook's, if the webhook is known.
    pub(crate) fn begin(&self, share: Option<Arc<Share>>) -> Charge {
        Charge { memory: Some(self.clone()), share, bytes: 0, arriving: None }
    }
}

impl fmt::Debug for BodyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyMemory").field("max_bytes", &self.max_bytes()).field("held", &self.held()).finish()
    }
}

/// How many bytes the bodies of one webhook hold, and the bodies of its namespace.
#[derive(Debug)]
pub(crate) struct Share {
    webhook: AtomicUsize,
    namespace: Arc<AtomicUsize>,
}

impl Share {
    /// The share of a webhook whose namespace counts its bytes in `namespace`.
    pub(crate) fn new(namespace: Arc<AtomicUsize>) -> Self {
        Self { webhook: AtomicUsize::new(0), namespace }
    }

    fn held(&self) -> [&AtomicUsize; 2] {
        [&self.webhook, &self.namespace]
    }
}

/// The bytes that one body holds, until this is dropped. A clone holds the same number again.
#[derive(Default)]
pub(crate) struct Charge {
    /// `None` if there is no budget: nothing is counted then.
    memory: Option<BodyMemory>,
    share: Option<Arc<Share>>,
    bytes: usize,
    arriving: Option<Arc<Arriving>>,
}

/// There is no room, or the room went to another body.
#[derive(Debug)]
pub(crate) struct NoRoom;

impl Charge {
    /// Makes the body hold `bytes` in total.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Some(memory) = self.memory.clone() else { return Ok(()) };
        let bytes = bytes.max(self.bytes);
        let more = bytes - self.bytes;
        let is_small = bytes <= SMALL_BODY;
        if is_small && memory.0.take(self.share.as_deref(), more, bytes) {
            self.bytes = bytes;
            return Ok(());
        }
        let mut list = memory.0.list();
        if self.is_evicted() {
            return Err(NoRoom);
        }
        while !memory.0.take(self.share.as_deref(), more, bytes) {
            // The victims together make enough room. If no choice does, none of them is refused.
            for victim in memory.0.victims(&list, self, more, bytes).ok_or(NoRoom)? {
                list.evict(&victim);
                // The bytes are free from here on, although the victim's task drops them only when it runs.
                memory.0.give_back(victim.share.as_deref(), victim.bytes.load(Relaxed));
                victim.waker.wake();
            }
        }
        self.bytes = bytes;
        if !is_small {
            let share = &self.share;
            let arriving = self.arriving.get_or_insert_with(|| list.add(share.clone()));
            arriving.bytes.store(bytes, Relaxed);
        }
        Ok(())
    }

    /// Whether the room was given to another body. If not, `waker` is woken when that happens.
    pub(crate) fn poll_evicted(&self, waker: &Waker) -> bool {
        let Some(arriving) = &self.arriving else { return false };
        arriving.waker.register(waker);
        self.is_evicted()
    }

    /// The body has arrived completely: its room can no longer be given to another body.
    pub(crate) fn arrived(&mut self) -> Result<(), NoRoom> {
        let (Some(memory), Some(arriving)) = (&self.memory, &self.arriving) else { return Ok(()) };
        let mut list = memory.0.list();
        if self.is_evicted() {
            return Err(NoRoom);
        }
        list.0.retain(|other| !Arc::ptr_eq(other, arriving));
        drop(list);
        self.arriving = None;
        Ok(())
    }

    /// Gives the bytes back, unless an eviction has done so.
    fn give_back(&mut self) {
        if self.arrived().is_ok()
            && let Some(memory) = &self.memory
        {
            memory.0.give_back(self.share.as_deref(), self.bytes);
        }
    }

    fn is_evicted(&self) -> bool {
        self.arriving.as_ref().is_some_and(|arriving| arriving.is_evicted.load(Relaxed))
    }
}

impl Clone for Charge {
    fn clone(&self) -> Self {
        if let Some(memory) = &self.memory {
            memory.0.add(self.share.as_deref(), self.bytes);
        }
        Self { memory: self.memory.clone(), share: self.share.clone(), bytes: self.bytes, arriving: None }
    }
}

impl Drop for Charge {
    // Inlined: most charges that are dropped hold nothing, because `take` has left them behind.
    #[inline]
    fn drop(&mut self) {
        if self.memory.is_some() {
            self.give_back();
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A large body that is still arriving. All fields except the waker change only while the list is locked.
struct Arriving {
    share: Option<Arc<Share>>,
    since: Instant,
    bytes: AtomicUsize,
    is_evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Arriving {
    fn bytes_per_second(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        self.bytes.load(Relaxed) as f64 / seconds.max(0.001)
    }

    /// `held`, as seen by a body of the share `of`, without the bytes of this body.
    fn taken_from(&self, held: Held, of: Option<&Share>) -> Held {
        let bytes = self.bytes.load(Relaxed) as u64;
        let of_scope = |scope| if self.is_in(scope, of) { bytes } else { 0 };
        Held {
            all: held.all.saturating_sub(bytes),
            webhook: held.webhook.saturating_sub(of_scope(Scope::Webhook)),
            namespace: held.namespace.saturating_sub(of_scope(Scope::Namespace)),
        }
    }

    fn is_in(&self, scope: Scope, of: Option<&Share>) -> bool {
        match (scope, self.share.as_deref(), of) {
            (Scope::All, ..) => true,
            // Compared by pointer: another version of the webhook has a share of its own.
            (Scope::Webhook, Some(mine), Some(other)) => std::ptr::eq(mine, other),
            (Scope::Namespace, Some(mine), Some(other)) => Arc::ptr_eq(&mine.namespace, &other.namespace),
            _ => false,
        }
    }
}

#[derive(Default)]
struct List(Vec<Arc<Arriving>>);

impl List {
    fn add(&mut self, share: Option<Arc<Share>>) -> Arc<Arriving> {
        let arriving = Arc::new(Arriving {
            share,
            since: Instant::now(),
            bytes: AtomicUsize::new(0),
            is_evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        self.0.push(Arc::clone(&arriving));
        arriving
    }

    /// The slowest body of the scope, except `others`.
    fn slowest(&self, scope: Scope, of: Option<&Share>, others: &[Arc<Arriving>]) -> Option<&Arc<Arriving>> {
        let now = Instant::now();
        let is_other = |body: &Arc<Arriving>| others.iter().any(|other| Arc::ptr_eq(other, body));
        let among = self.0.iter().filter(|body| body.is_in(scope, of) && !is_other(body));
        among.min_by(|one, other| one.bytes_per_second(now).total_cmp(&other.bytes_per_second(now)))
    }

    fn evict(&mut self, body: &Arc<Arriving>) {
        body.is_evicted.store(true, Relaxed);
        self.0.retain(|other| !Arc::ptr_eq(other, body));
    }
}

impl Shared {
    /// Takes `more` bytes for a body that then holds `bytes`, if there is room. Returns whether it did.
    fn take(&self, share: Option<&Share>, more: usize, bytes: usize) -> bool {
        let has_room = self.exceeded(self.add(share, more), bytes).is_none();
        if !has_room {
            self.give_back(share, more);
        }
        has_room
    }

    /// The limit that is exceeded, for a body of `bytes`.
    fn exceeded(&self, held: Held, bytes: usize) -> Option<Scope> {
        let capacity = match bytes <= SMALL_BODY {
            true => self.max_bytes,
            false => self.max_bytes - self.max_bytes / 8,
        };
        held.exceeded(capacity as u64, self.largest as u64)
    }

    /// The bodies to refuse, so that the body of `asking` can grow by `more` to `bytes`. `None` if no choice makes enough
    /// room: all others together are too small, or the asking body is the slowest.
    fn victims(&self, list: &List, asking: &Charge, more: usize, bytes: usize) -> Option<Vec<Arc<Arriving>>> {
        let share = asking.share.as_deref();
        let mut held = self.held_by(share).and(more as u64);
        let mut victims = Vec::new();
        while let Some(scope) = self.exceeded(held, bytes) {
            let slowest = list.slowest(scope, share, &victims)?;
            if asking.arriving.as_ref().is_some_and(|asking| Arc::ptr_eq(asking, slowest)) {
                return None;
            }
            held = slowest.taken_from(held, share);
            victims.push(Arc::clone(slowest));
        }
        Some(victims)
    }

    fn held_by(&self, share: Option<&Share>) -> Held {
        let load = |held: &AtomicUsize| held.load(Relaxed) as u64;
        let [webhook, namespace] = share.map_or([0, 0], |share| share.held().map(load));
        Held { all: load(&self.held), webhook, namespace }
    }

    /// Adds bytes, and returns the bytes held then.
    fn add(&self, share: Option<&Share>, bytes: usize) -> Held {
        let add = |held: &AtomicUsize| held.fetch_add(bytes, Relaxed).saturating_add(bytes) as u64;
        let [webhook, namespace] = share.map_or([0, 0], |share| share.held().map(add));
        Held { all: add(&self.held), webhook, namespace }
    }

    fn give_back(&self, share: Option<&Share>, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        for held in share.into_iter().flat_map(Share::held) {
            held.fetch_sub(bytes, Relaxed);
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        lock(&self.arriving)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use futures_util::task::{ArcWake, waker};

    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    /// The share of a new webhook in a namespace of its own.
    fn alone() -> Option<Arc<Share>> {
        beside(&Arc::default())
    }

    /// The share of a new webhook in this namespace.
    fn beside(namespace: &Arc<AtomicUsize>) -> Option<Arc<Share>> {
        Some(Arc::new(Share::new(Arc::clone(namespace))))
    }

    #[test]
    fn bytes_count_until_they_are_dropped() {
        let memory = BodyMemory::new(8 * MIB, MIB);
        let mut charge = memory.begin(alone());
        charge.grow(KIB).unwrap();
        charge.grow(MIB).unwrap();
        charge.grow(KIB).unwrap();
        assert_eq!(memory.held(), MIB, "a body does not shrink");
        charge.arrived().unwrap();
        let copy = charge.clone();
        assert_eq!(memory.held(), 2 * MIB);
        drop(charge);
        drop(copy);
        assert_eq!(memory.held(), 0);
        assert!(memory.0.list().0.is_empty());
    }

    #[test]
    fn a_webhook_takes_as_much_as_is_left_to_others_and_a_namespace_twice_as_much() {
        let (memory, namespace) = (BodyMemory::new(80 * MIB, MIB), Arc::default());
        let mut held = Vec::new();
        let mut fill = |share: Option<Arc<Share>>| {
            let before = held.len();
            loop {
                let mut charge = memory.begin(share.clone());
                if charge.grow(MIB).is_err() {
                    break held.len() - before;
                }
                charge.arrived().unwrap();
                held.push(charge);
            }
        };
        // 70 MiB are available to large bodies.
        assert_eq!(fill(beside(&namespace)), 35);
        assert_eq!(fill(beside(&namespace)) + fill(beside(&namespace)), 11);
        let others: Vec<_> = (0..4).map(|_| fill(alone())).collect();
        assert!(others.iter().all(|bodies| *bodies >= 1), "{others:?}");
        // The eighth for small bodies is still free.
        let mut small = memory.begin(alone());
        small.grow(SMALL_BODY).unwrap();
        drop(held);
        drop(small);
        assert_eq!(memory.held(), 0);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl ArcWake for Woken {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.store(true, SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_of_the_bodies_that_are_arriving_makes_room() {
        let memory = BodyMemory::new(8 * MIB, 4 * MIB);
        let (mut slow, mut quick) = (memory.begin(alone()), memory.begin(alone()));
        slow.grow(3 * MIB).unwrap();
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        quick.grow(3 * MIB).unwrap();
        let woken = Arc::new(Woken::default());
        assert!(!slow.poll_evicted(&waker(Arc::clone(&woken))));
        // 7 MiB are available to large bodies.
        quick.grow(4 * MIB + 1).unwrap_err();
        quick.grow(4 * MIB).unwrap();
        let mut third = memory.begin(alone());
        third.grow(MIB).unwrap();
        assert!(woken.0.load(SeqCst) && slow.poll_evicted(&waker(woken)), "the slow body is refused");
        assert_eq!(memory.held(), 5 * MIB);
        slow.grow(4 * MIB).unwrap_err();
        slow.arrived().unwrap_err();
        drop(slow);
        quick.arrived().unwrap();
        third.arrived().unwrap();
        drop((quick, third));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn no_body_makes_room_that_does_not_suffice() {
        let memory = BodyMemory::new(8 * MIB, 4 * MIB);
        let [mut arrived, mut arriving, mut asking] = [(); 3].map(|()| memory.begin(alone()));
        arrived.grow(4 * MIB).unwrap();
        arrived.arrived().unwrap();
        arriving.grow(MIB).unwrap();
        // 7 MiB are available to large bodies.
        asking.grow(4 * MIB).unwrap_err();
        assert_eq!(memory.held(), 5 * MIB);
        arriving.grow(2 * MIB).unwrap();
        arriving.arrived().unwrap();
        drop((arrived, arriving, asking));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_body_that_is_the_slowest_itself_is_refused() {
        let memory = BodyMemory::new(4 * MIB, MIB);
        let full: Vec<_> = (0..3)
            .map(|_| {
                let mut charge = memory.begin(alone());
                charge.grow(MIB).unwrap();
                charge.arrived().unwrap();
                charge
            })
            .collect();
        let mut more = memory.begin(alone());
        more.grow(SMALL_BODY + 1).unwrap();
        more.grow(MIB).unwrap_err();
        drop(full);
        more.grow(MIB).unwrap();
    }

    #[test]
    fn many_threads_leave_nothing_behind() {
        let memory = BodyMemory::new(4 * MIB, MIB);
        let shares: Vec<_> = (0..3).map(|_| alone()).collect();
        std::thread::scope(|scope| {
            for share in &shares {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let mut random = fastrand::Rng::new();
                        for _ in 0..2000 {
                            let mut charge = memory.begin(share.clone());
                            let mut bytes = 0;
                            while bytes < MIB && charge.grow(bytes).is_ok() {
                                bytes += random.usize(..300 * KIB);
                            }
                            let kept = (charge.arrived().is_ok() && random.bool()).then(|| charge.clone());
                            drop(charge);
                            drop(kept);
                        }
                    });
                }
            }
        });
        assert_eq!(memory.held(), 0);
        assert!(shares.iter().flatten().flat_map(|share| share.held()).all(|held| held.load(SeqCst) == 0));
        assert!(memory.0.list().0.is_empty());
    }
}
