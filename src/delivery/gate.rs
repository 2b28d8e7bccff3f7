//! Limits how many events are delivered at a time, per webhook and per namespace. A target that hangs delays only its own
//! webhook, and a sender that floods delays only its own namespace.

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

/// The largest number of events of one webhook that are delivered at a time while their senders wait.
const MAX_PER_WEBHOOK: usize = 256;

/// The same for all webhooks of a namespace together.
const MAX_PER_NAMESPACE: usize = 1024;

/// Length of the queue for a permit, as a multiple of the number of permits.
const WAITING: usize = 4;

/// Longest time in the queue.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The gates of one webhook: its own and that of its namespace.
pub(crate) struct Gates {
    webhook: Gate,
    namespace: Arc<Namespace>,
    /// The webhook's share of the memory for bodies.
    share: Arc<Share>,
}

/// The gate and the body memory that all webhooks of a namespace share.
struct Namespace {
    gate: Gate,
    /// Bytes of all request bodies of the namespace.
    held: Arc<AtomicUsize>,
}

/// Holds one permit of the webhook and one of its namespace.
pub(crate) struct Pass<'a> {
    _webhook: SemaphorePermit<'a>,
    _namespace: SemaphorePermit<'a>,
}

/// The queue for a permit is full, or the wait took too long.
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
        f.debug_struct("Gates").field("free", &self.webhook.permits.available_permits()).finish_non_exhaustive()
    }
}

struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl Gate {
    fn new(permits: usize) -> Self {
        Self { permits: Semaphore::new(permits), waiting: AtomicUsize::new(0), max_waiting: permits * WAITING }
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, Crowded> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        // Boxed, so that the future of the common case stays small.
        Box::pin(self.wait()).await
    }

    async fn wait(&self) -> Result<SemaphorePermit<'_>, Crowded> {
        let _waiting = Waiting::begin(self)?;
        timeout(MAX_WAIT, self.permits.acquire()).await.ok().and_then(Result::ok).ok_or(Crowded)
    }
}

/// Counts as waiting until it is dropped.
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

/// The gates of all namespaces. Each one lives as long as a webhook uses it.
#[derive(Clone, Default)]
pub(crate) struct NamespaceGates(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    namespaces: HashMap<Box<str>, Weak<Namespace>, RandomState>,
    /// The number of entries at which entries of unused namespaces are removed.
    sweep_at: usize,
}

impl NamespaceGates {
    /// The gates of a new webhook in this namespace.
    pub(crate) fn for_webhook(&self, namespace: &str) -> Gates {
        let namespace = self.namespace(namespace);
        let share = Arc::new(Share::new(Arc::clone(&namespace.held)));
        Gates { webhook: Gate::new(MAX_PER_WEBHOOK), namespace, share }
    }

    fn namespace(&self, namespace: &str) -> Arc<Namespace> {
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
    async fn a_full_gate_queues_a_bounded_number_and_refuses_the_rest() {
        let gate = Gate::new(2);
        let (first, _second) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let waiting: Vec<_> = (0..8).map(|_| gate.enter()).collect();
        let mut waiting = futures_util::future::join_all(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("no permit is free yet"),
            () = std::future::ready(()) => {}
        }
        assert!(gate.enter().await.is_err(), "the queue is full");
        drop(first);
        let passed = waiting.await.into_iter().filter(Result::is_ok).count();
        assert_eq!(passed, 1, "one permit became free");
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_permit_is_bounded() {
        let gate = Gate::new(1);
        let _permit = gate.enter().await.unwrap();
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
