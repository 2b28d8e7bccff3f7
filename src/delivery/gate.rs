//! How many events may be under way at a time, and how many may wait for that: a target that hangs holds up its own
//! webhook, and a sender that floods its own namespace.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::base::lock::lock;
use crate::request::Share;

/// Events of one webhook that are being delivered while their senders wait.
const MAX_PER_WEBHOOK: usize = 256;

/// The same for all webhooks of a namespace.
const MAX_PER_NAMESPACE: usize = 1024;

/// So many more may wait for a place.
const WAITING: usize = 4;

/// And for so long.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The gates of one webhook: its own and that of its namespace.
pub(crate) struct Gates {
    webhook: Gate,
    namespace: Arc<Namespace>,
    /// The webhook's share of the memory for bodies.
    share: Arc<Share>,
}

/// What all webhooks of a namespace share.
struct Namespace {
    gate: Gate,
    /// The bytes that the bodies of the namespace hold.
    held: Arc<AtomicUsize>,
}

/// As long as it is there, the event has its places.
pub(crate) struct Pass<'a> {
    _webhook: SemaphorePermit<'a>,
    _namespace: SemaphorePermit<'a>,
}

/// Too many wait already, or it took too long.
#[derive(Debug)]
pub(crate) struct Crowded;

impl Gates {
    pub(crate) async fn enter(&self) -> Result<Pass<'_>, Crowded> {
        Ok(Pass { _webhook: self.webhook.enter().await?, _namespace: self.namespace.gate.enter().await? })
    }

    /// The webhook's share of the memory for bodies.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates").field("free", &self.webhook.places.available_permits()).finish_non_exhaustive()
    }
}

struct Gate {
    places: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl Gate {
    fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places), waiting: AtomicUsize::new(0), max_waiting: places * WAITING }
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, Crowded> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        // In a box, so that the usual way stays small.
        Box::pin(self.wait()).await
    }

    async fn wait(&self) -> Result<SemaphorePermit<'_>, Crowded> {
        let _waiting = Waiting::begin(self)?;
        timeout(MAX_WAIT, self.places.acquire()).await.ok().and_then(Result::ok).ok_or(Crowded)
    }
}

/// Counts as long as it is there.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(gate: &'a Gate) -> Result<Self, Crowded> {
        let waiting = Self(&gate.waiting);
        match gate.waiting.fetch_add(1, Ordering::Relaxed) {
            before if before < gate.max_waiting => Ok(waiting),
            _ => Err(Crowded),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The gates of all namespaces, each as long as a webhook has it.
#[derive(Clone, Default)]
pub(crate) struct NamespaceGates(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    namespaces: HashMap<Box<str>, Weak<Namespace>, RandomState>,
    /// When there are so many, those of namespaces that are gone are looked for.
    sweep_at: usize,
}

impl NamespaceGates {
    /// The gates of a webhook in this namespace.
    pub(crate) fn for_webhook(&self, namespace: &str) -> Gates {
        let namespace = self.of(namespace);
        let share = Arc::new(Share::new(Arc::clone(&namespace.held)));
        Gates { webhook: Gate::new(MAX_PER_WEBHOOK), namespace, share }
    }

    fn of(&self, namespace: &str) -> Arc<Namespace> {
        let mut known = lock(&self.0);
        if let Some(shared) = known.namespaces.get(namespace).and_then(Weak::upgrade) {
            return shared;
        }
        if known.namespaces.len() >= known.sweep_at {
            known.namespaces.retain(|_, shared| shared.strong_count() > 0);
            known.sweep_at = 64.max(2 * known.namespaces.len());
        }
        let shared = Arc::new(Namespace { gate: Gate::new(MAX_PER_NAMESPACE), held: Arc::default() });
        known.namespaces.insert(namespace.into(), Arc::downgrade(&shared));
        shared
    }
}

impl fmt::Debug for NamespaceGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceGates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_pass_so_many_wait_and_the_rest_is_sent_away() {
        let gate = Gate::new(2);
        let (first, _second) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let waiting: Vec<_> = (0..8).map(|_| gate.enter()).collect();
        let mut waiting = futures_util::future::join_all(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("they wait"),
            () = std::future::ready(()) => {}
        }
        assert!(gate.enter().await.is_err(), "too many wait");
        drop(first);
        let passed = waiting.await.into_iter().filter(Result::is_ok).count();
        assert_eq!(passed, 1, "one place became free");
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let gate = Gate::new(1);
        let _place = gate.enter().await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(gate.enter().await.is_err());
        assert_eq!(began.elapsed(), MAX_WAIT);
    }

    #[test]
    fn webhooks_of_a_namespace_share_its_gate_as_long_as_there_are_any() {
        let gates = NamespaceGates::default();
        let (one, other) = (gates.for_webhook("a"), gates.for_webhook("a"));
        assert!(Arc::ptr_eq(&one.namespace, &other.namespace));
        assert!(!Arc::ptr_eq(&one.namespace, &gates.for_webhook("b").namespace));
        for n in 0..1000 {
            gates.for_webhook(&format!("n{n}"));
        }
        assert!(gates.0.lock().unwrap().namespaces.len() <= 128);
    }
}
