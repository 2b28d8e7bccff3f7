//! A history in memory, for tests: it keeps each entry as it was reported.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tower_webhook::config::WebhookKey;
use tower_webhook::event::EventId;
use tower_webhook::history::{
    Activity, Attempt, Backend, BackendFuture, Entry, Event, EventQuery, History, HistoryStatus, Outcome, Page,
    Received, Summary,
};

/// The entries, in the order in which they were reported.
#[derive(Clone, Default)]
pub(crate) struct InMemory(Arc<Mutex<Vec<Entry>>>, Arc<AtomicBool>);

impl InMemory {
    pub(crate) fn history(&self) -> History {
        History::new(Arc::new(self.clone()))
    }

    /// Says from now on whether there is no room.
    pub(crate) fn is_full(&self, is_full: bool) {
        self.1.store(is_full, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        let entries = self.0.lock().unwrap();
        let of = |entry: &Entry| match entry {
            Entry::Received(received) => Some((**received).clone()),
            _ => None,
        };
        entries.iter().filter_map(of).collect()
    }

    /// The one request that was reported.
    pub(crate) fn only(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received.into_iter().next().unwrap()
    }

    /// The attempts, by the time at which they began.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        let entries = self.0.lock().unwrap();
        let of = |entry: &Entry| match entry {
            Entry::Attempt(attempt) => Some((**attempt).clone()),
            _ => None,
        };
        let mut attempts: Vec<_> = entries.iter().filter_map(of).collect();
        attempts.sort_by_key(|attempt| (attempt.number, attempt.item, attempt.at));
        attempts
    }

    /// The outcome of an event, as a store of entries has it: that of the newest attempt, or else of the request.
    pub(crate) fn outcome(&self, id: EventId) -> Option<Outcome> {
        let entries = self.0.lock().unwrap();
        let attempts = entries.iter().filter_map(|entry| match entry {
            Entry::Attempt(attempt) if attempt.event == id => Some((attempt.at, attempt.outcome)),
            _ => None,
        });
        let received = entries.iter().find_map(|entry| match entry {
            Entry::Received(received) if received.id == id => Some(received.outcome),
            _ => None,
        });
        attempts.max_by_key(|(at, _)| *at).map(|(_, outcome)| outcome).or(received)
    }
}

impl Backend for InMemory {
    fn has_room(&self, _: &WebhookKey) -> bool {
        !self.1.load(Ordering::Relaxed)
    }

    fn record(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }

    fn events(&self, _: EventQuery) -> BackendFuture<'_, Page> {
        unimplemented!("the tests read the entries")
    }

    fn summary(&self, _: EventQuery) -> BackendFuture<'_, Summary> {
        unimplemented!("the tests read the entries")
    }

    fn activity(&self, _: Option<Arc<[Box<str>]>>) -> BackendFuture<'_, Vec<Activity>> {
        unimplemented!("the tests read the entries")
    }

    fn event(&self, _: EventId) -> BackendFuture<'_, Option<Event>> {
        unimplemented!("the tests read the entries")
    }

    fn erase(&self, _: EventId) -> BackendFuture<'_, bool> {
        unimplemented!("the tests read the entries")
    }

    fn status(&self) -> HistoryStatus {
        HistoryStatus { events: self.count() as u64, ..HistoryStatus::default() }
    }
}
