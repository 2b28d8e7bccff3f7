//! Resolves names, such that names whose lookup hangs do not delay others.
//!
//! The system's resolver occupies a thread for each lookup, for as long as the name servers are silent. So the number
//! of lookups is limited, and each namespace has a share; concurrent requests for the same name share one lookup; and
//! the outcome is cached briefly.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::prefix::Prefix;
use crate::base::lock::lock;
use crate::config::WebhookKey;

/// The most lookups at a time, by all webhooks together.
const MOST_LOOKUPS: usize = 64;

/// How long an answer, and how long a failure, is cached.
const KNOWN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));

/// The most names in the cache.
const MOST_KNOWN: usize = 1024;

/// The namespace of lookups that all tenants depend on. They do not wait for room, which tenants could use up. The name
/// contains a dot, so no tenant has it.
pub(super) const OWN: &str = ".";

tokio::task_local! {
    /// The webhook that this task sends for. A client passes only the URL to its connector.
    static ON_BEHALF_OF: WebhookKey;
}

/// Makes the connections of `work` on behalf of `webhook`: its namespace's share of lookups is used.
pub(crate) async fn on_behalf_of<T>(webhook: WebhookKey, work: impl Future<Output = T>) -> T {
    ON_BEHALF_OF.scope(webhook, work).await
}

/// The namespace that this task makes a connection for.
pub(super) fn namespace() -> Arc<str> {
    ON_BEHALF_OF.try_with(|webhook| webhook.namespace().into()).unwrap_or_default()
}

/// The addresses of a name, or why there are none.
pub(super) type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;

type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;

#[derive(Clone)]
pub(super) struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Lookup,
    state: Mutex<State>,
    /// Notified when an answer arrives or there is room for a lookup.
    changed: Notify,
    /// See [`announced`](super::nat64::announced).
    prefixes: Mutex<Option<Vec<Prefix>>>,
}

#[derive(Default)]
struct State {
    known: HashMap<Arc<str>, (Answer, Instant)>,
    /// The names that are being looked up.
    names: HashMap<Arc<str>, Arc<str>>,
    /// The number of these lookups, by the namespace that asked first.
    namespaces: HashMap<Arc<str>, usize>,
}

impl Resolver {
    /// Uses the system's resolver.
    pub(super) fn system() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    pub(super) fn new(lookup: Lookup) -> Self {
        let (state, changed, prefixes) = (Mutex::default(), Notify::new(), Mutex::default());
        Self(Arc::new(Shared { lookup, state, changed, prefixes }))
    }

    /// The addresses of `name`. A namespace may have as many lookups in progress as there is room left, and [`OWN`] any
    /// number.
    pub(super) async fn resolve(&self, name: &str, namespace: Arc<str>) -> Answer {
        let name: Arc<str> = name.to_ascii_lowercase().into();
        loop {
            // Registered before the check, so that no notification is missed.
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.0.state().ask(&name, &namespace, Instant::now()) {
                Step::Known(answer) => return answer,
                Step::Wait => {}
                Step::Look => {
                    let looking = Looking { shared: Arc::clone(&self.0), name: Arc::clone(&name), answer: None };
                    tokio::task::spawn_blocking(move || looking.look());
                }
            }
            changed.await;
        }
    }

    /// Removes the addresses of `name` from the cache, because none of them can be reached.
    pub(super) fn forget(&self, name: &str) {
        self.0.state().known.remove(name.to_ascii_lowercase().as_str());
    }

    /// The prefixes that the network announced last, if a lookup was ever answered.
    pub(super) fn prefixes(&self) -> MutexGuard<'_, Option<Vec<Prefix>>> {
        lock(&self.0.prefixes)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

enum Step {
    Known(Answer),
    /// The name is being looked up, or there is no room.
    Wait,
    /// The caller must look it up; it is counted already.
    Look,
}

impl State {
    fn ask(&mut self, name: &Arc<str>, namespace: &Arc<str>, now: Instant) -> Step {
        if let Some((answer, until)) = self.known.get(name)
            && now < *until
        {
            return Step::Known(answer.clone());
        }
        let under_way = self.namespaces.get(namespace).copied().unwrap_or(0);
        let has_room = &**namespace == OWN || under_way < MOST_LOOKUPS.saturating_sub(self.names.len());
        if self.names.contains_key(name) || !has_room {
            return Step::Wait;
        }
        self.names.insert(Arc::clone(name), Arc::clone(namespace));
        *self.namespaces.entry(Arc::clone(namespace)).or_default() += 1;
        Step::Look
    }

    fn answered(&mut self, name: &Arc<str>, answer: Answer, now: Instant) {
        if let Some(namespace) = self.names.remove(name)
            && let Some(under_way) = self.namespaces.get_mut(&namespace)
        {
            *under_way -= 1;
            if *under_way == 0 {
                self.namespaces.remove(&namespace);
            }
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.retain(|_, (_, until)| now < *until);
        }
        if self.known.len() >= MOST_KNOWN
            && let Some(soonest) =
                self.known.iter().min_by_key(|(_, (_, until))| *until).map(|(name, _)| Arc::clone(name))
        {
            self.known.remove(&soonest);
        }
        let time = if answer.is_ok() { KNOWN.0 } else { KNOWN.1 };
        self.known.insert(Arc::clone(name), (answer, now + time));
    }
}

/// A lookup in progress. Dropping it reports the outcome, even if its thread panics or never starts.
struct Looking {
    shared: Arc<Shared>,
    name: Arc<str>,
    answer: Option<Answer>,
}

impl Looking {
    fn look(mut self) {
        self.answer = Some((self.shared.lookup)(&self.name).map(Arc::from).map_err(Arc::new));
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or_else(|| Err(Arc::new(io::Error::other("the lookup was aborted"))));
        self.shared.state().answered(&self.name, answer, Instant::now());
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
impl Resolver {
    /// The number of lookups in progress for `namespace`.
    pub(super) fn under_way(&self, namespace: &str) -> usize {
        self.0.state().namespaces.get(namespace).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(30);

    /// A mock of the system's resolver: names in `.hangs` get no answer while the test runs.
    fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
        match name.rsplit_once('.') {
            Some((_, "hangs")) => {
                std::thread::sleep(Duration::from_secs(2));
                Err(io::Error::other("no answer"))
            }
            Some((_, "missing")) => Err(io::Error::other("no such name")),
            _ => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
        }
    }

    async fn ask(resolver: &Resolver, name: &str, namespace: &str) -> Answer {
        resolver.resolve(name, namespace.into()).await
    }

    fn start(resolver: &Resolver, name: String, namespace: &'static str) {
        let resolver = resolver.clone();
        tokio::spawn(async move { ask(&resolver, &name, namespace).await });
    }

    #[tokio::test]
    async fn names_without_an_answer_do_not_delay_other_namespaces() {
        let resolver = Resolver::new(lookup);
        for namespace in ["greedy", "greedier", "greediest"] {
            for number in 0..200 {
                start(&resolver, format!("{namespace}-{number}.hangs"), namespace);
            }
            tokio::time::sleep(MOMENT).await;
        }
        assert_eq!(["greedy", "greedier", "greediest"].map(|name| resolver.under_way(name)), [32, 16, 8]);
        let answer = timeout(MOMENT * 5, ask(&resolver, "shop.example", "modest")).await;
        assert_eq!(answer.unwrap().unwrap().len(), 1);
        assert_eq!(resolver.under_way("modest"), 0);
        // A name that waits for its namespace's turn does not delay others.
        start(&resolver, "late.example".to_owned(), "greedy");
        tokio::time::sleep(MOMENT).await;
        timeout(MOMENT * 5, ask(&resolver, "late.example", "modest")).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_lookup() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::new(|name| {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(MOMENT);
            lookup(name)
        });
        let all = (0..500).map(|number| {
            let resolver = resolver.clone();
            let (name, namespace) = (["a.example", "A.Example"][number % 2], ["one", "other"][number % 2]);
            tokio::spawn(async move { ask(&resolver, name, namespace).await })
        });
        for answer in timeout(LONG, futures_util::future::join_all(all)).await.unwrap() {
            answer.unwrap().unwrap();
        }
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
        resolver.forget("A.example");
        ask(&resolver, "a.example", "one").await.unwrap();
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn the_outcome_of_a_lookup_is_cached_briefly() {
        let (mut state, now) = (State::default(), Instant::now());
        let (good, bad, one): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "b".into(), "one".into());
        for name in [&good, &bad] {
            assert!(matches!(state.ask(name, &one, now), Step::Look));
            assert!(matches!(state.ask(name, &one, now), Step::Wait));
        }
        state.answered(&good, Ok([IpAddr::from([192, 0, 2, 1])].into()), now);
        state.answered(&bad, Err(Arc::new(io::Error::other("no"))), now);
        for (after, good_is_known, bad_is_known) in [(0, true, true), (1_900, true, true), (2_000, true, false)] {
            let now = now + Duration::from_millis(after);
            let mut is_known = |name| matches!(state.ask(name, &one, now), Step::Known(_));
            assert_eq!((is_known(&good), is_known(&bad)), (good_is_known, bad_is_known), "{after}");
        }
        assert!(matches!(state.ask(&good, &one, now + Duration::from_secs(5)), Step::Look));
    }

    #[test]
    fn the_cache_is_limited() {
        let (mut state, now) = (State::default(), Instant::now());
        for number in 0..5_000 {
            let name: Arc<str> = number.to_string().into();
            assert!(matches!(state.ask(&name, &name, now), Step::Look));
            state.answered(&name, Ok([].into()), now);
            assert!(state.known.len() <= MOST_KNOWN);
        }
        assert!(state.names.is_empty() && state.namespaces.is_empty());
    }

    #[tokio::test]
    async fn a_lookup_that_panics_is_a_failure() {
        let resolver = Resolver::new(|_| panic!("a broken resolver"));
        assert!(timeout(LONG, ask(&resolver, "a.example", "one")).await.unwrap().is_err());
        assert_eq!(resolver.under_way("one"), 0);
    }
}
