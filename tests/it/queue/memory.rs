//! A backend in memory that does only what the contract demands, written against the public interface.

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use tower_webhook::event::{DeliverError, EventId};
use tower_webhook::queue::{
    Accepted, Backend, BackendFuture, Backlog, DeadLetter, DeadLetterQuery, Loaded, Offer, Queue, QueueError,
    QueueStatus, State, StoredEvent, Ticket, ToWorker, WaitingEvent, WaitingPage, WaitingQuery, handouts,
};

use super::contract::Storage;

/// The data that outlives a process.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    newest: u64,
    entries: BTreeMap<u64, Entry>,
    /// The next call of `load` panics before it returns a future.
    panics: bool,
}

struct Entry {
    ticket: Ticket,
    event: StoredEvent,
    state: State,
    not_before: Option<Instant>,
    /// When the next attempt is due, by the wall clock.
    due: Option<SystemTime>,
    dead: Option<(Instant, DeadLetter)>,
}

impl Storage for Memory {
    async fn open(&self, max_bytes: u64) -> (Queue, Backlog) {
        let (to_worker, handouts) = handouts();
        let process = Process { memory: self.clone(), max_bytes, is_refusing: Mutex::new(false), to_worker };
        let entries: Vec<_> = {
            let kept = self.lock();
            let waiting = kept.entries.values().filter(|entry| entry.dead.is_none());
            waiting.map(|entry| (entry.ticket.clone(), entry.not_before)).collect()
        };
        for (ticket, not_before) in entries {
            process.hand_out_at(ticket, not_before);
        }
        Queue::new(Arc::new(process), handouts)
    }
}

impl Memory {
    pub(super) fn panic_once(&self) {
        self.lock().panics = true;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }
}

impl Kept {
    fn change(&mut self, ticket: &Ticket, change: impl FnOnce(&mut Entry)) {
        self.entries.get_mut(&ticket.sequence).map(change);
    }

    fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| u64::from(entry.ticket.bytes)).sum()
    }

    fn dead(&self) -> impl Iterator<Item = (&Entry, &DeadLetter, Instant)> {
        self.entries.values().filter_map(|entry| entry.dead.as_ref().map(|(at, letter)| (entry, letter, *at)))
    }

    fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.dead.is_none())
    }

    fn remove(&mut self, wanted: impl Fn(&DeadLetter, Instant) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !entry.dead.as_ref().is_some_and(|(at, letter)| wanted(letter, *at)));
        before - self.entries.len()
    }
}

/// A process that has opened the memory.
struct Process {
    memory: Memory,
    max_bytes: u64,
    is_refusing: Mutex<bool>,
    to_worker: ToWorker,
}

impl Process {
    fn hand_out_at(&self, ticket: Ticket, at: Option<Instant>) {
        let (to_worker, memory) = (self.to_worker.clone(), self.memory.clone());
        match at {
            None => _ = to_worker.hand_out(vec![ticket.into()]),
            Some(at) => {
                tokio::spawn(async move {
                    tokio::time::sleep_until(at.into()).await;
                    let waits = |entry: &Entry| entry.dead.is_none() && entry.not_before == Some(at);
                    if memory.lock().entries.get(&ticket.sequence).is_some_and(waits) {
                        to_worker.hand_out(vec![ticket.into()]);
                    }
                });
            }
        }
    }
}

impl Backend for Process {
    fn accept(&self, offer: Offer<'_>) -> Result<BackendFuture<'static, Result<Accepted, QueueError>>, QueueError> {
        if *self.is_refusing.lock().unwrap() {
            return Err(QueueError::Failed);
        }
        let event = StoredEvent::from(offer.delivery);
        let bytes = event.body.len() as u32 + 100;
        let mut kept = self.memory.lock();
        if u64::from(bytes) > self.max_bytes / 2 {
            return Err(QueueError::TooLarge);
        }
        if kept.bytes() + u64::from(bytes) > self.max_bytes {
            return Err(QueueError::Full);
        }
        kept.newest += 1;
        let ticket = Ticket { sequence: kept.newest, webhook: offer.delivery.webhook().key().clone(), bytes };
        let state = State::default();
        let entry = Entry { ticket: ticket.clone(), event, state, not_before: None, due: None, dead: None };
        kept.entries.insert(ticket.sequence, entry);
        drop(kept);
        self.hand_out_at(ticket, None);
        Ok(Box::pin(ready(Ok(Accepted::Stored))))
    }

    fn refuse(&self) {
        *self.is_refusing.lock().unwrap() = true;
    }

    fn load<'a>(&'a self, tickets: &'a [Ticket]) -> BackendFuture<'a, Vec<Loaded>> {
        let mut kept = self.memory.lock();
        if std::mem::take(&mut kept.panics) {
            drop(kept);
            panic!("the backend panics");
        }
        let load = |ticket: &Ticket| match kept.entries.get(&ticket.sequence) {
            Some(entry) => Loaded::Found(entry.event.clone(), entry.state.clone()),
            None => Loaded::Gone,
        };
        Box::pin(ready(tickets.iter().map(load).collect()))
    }

    fn note(&self, ticket: &Ticket, state: State) {
        self.memory.lock().change(ticket, |entry| entry.state = state);
    }

    fn put_off(&self, ticket: Ticket, state: State, wait: Duration) -> Option<Ticket> {
        let at = Instant::now() + wait;
        let due = Some(SystemTime::now() + wait);
        let put_off = |entry: &mut Entry| (entry.state, entry.not_before, entry.due) = (state, Some(at), due);
        self.memory.lock().change(&ticket, put_off);
        self.hand_out_at(ticket, Some(at));
        None
    }

    fn finish(&self, tickets: &[Ticket]) {
        let mut kept = self.memory.lock();
        tickets.iter().for_each(|ticket| drop(kept.entries.remove(&ticket.sequence)));
    }

    fn bury(&self, ticket: Ticket, id: EventId, state: State, error: &DeliverError) {
        let letter = DeadLetter {
            id,
            webhook: ticket.webhook.clone(),
            attempts: state.attempts,
            died_at: SystemTime::now(),
            kind: error.kind(),
            reason: error.to_string().into(),
            size: ticket.bytes,
        };
        let dead = Some((Instant::now(), letter));
        self.memory.lock().change(&ticket, |entry| (entry.state, entry.dead) = (state, dead));
    }

    fn end(&self) -> BackendFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn status(&self) -> QueueStatus {
        let kept = self.memory.lock();
        let dead_letters = kept.dead().count();
        let waiting = kept.entries.len() - dead_letters;
        QueueStatus {
            waiting,
            under_way: 0,
            oldest: kept.waiting().next().map(|entry| entry.event.received_at),
            dead_letters,
            bytes: kept.bytes(),
            max_bytes: self.max_bytes,
            is_failing: false,
        }
    }

    fn waiting(&self, query: WaitingQuery) -> BackendFuture<'_, io::Result<WaitingPage>> {
        let kept = self.memory.lock();
        let all: Vec<_> = kept.waiting().filter(|entry| query.includes(&entry.ticket.webhook)).map(waits).collect();
        let total = all.len();
        let after = all.into_iter().filter(|event| query.after.is_none_or(|id| id < event.id));
        Box::pin(ready(Ok(WaitingPage { total, events: after.take(query.limit).collect() })))
    }

    fn waiting_event(&self, id: EventId) -> BackendFuture<'_, io::Result<Option<(WaitingEvent, StoredEvent)>>> {
        let kept = self.memory.lock();
        let found = kept.waiting().find(|entry| entry.event.id == id);
        Box::pin(ready(Ok(found.map(|entry| (waits(entry), entry.event.clone())))))
    }

    fn retry_now(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>> {
        let mut kept = self.memory.lock();
        let (mut found, mut due) = (0, Vec::new());
        let wanted = |entry: &&mut Entry| entry.dead.is_none() && ids.contains(&entry.event.id);
        for entry in kept.entries.values_mut().filter(wanted) {
            found += 1;
            entry.due = None;
            // Otherwise the worker holds the ticket.
            if entry.not_before.take().is_some_and(|at| at > Instant::now()) {
                due.push(entry.ticket.clone());
            }
        }
        drop(kept);
        due.into_iter().for_each(|ticket| self.hand_out_at(ticket, None));
        Box::pin(ready(Ok(found)))
    }

    fn drop_waiting(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<Vec<EventId>>> {
        let mut kept = self.memory.lock();
        let wanted = |entry: &&Entry| ids.contains(&entry.event.id);
        let dropped: Vec<_> =
            kept.waiting().filter(wanted).map(|entry| (entry.event.id, entry.ticket.clone())).collect();
        let (dropped, tickets): (Vec<_>, Vec<_>) = dropped.into_iter().unzip();
        tickets.iter().for_each(|ticket| drop(kept.entries.remove(&ticket.sequence)));
        drop(kept);
        self.to_worker.ended(tickets);
        Box::pin(ready(Ok(dropped)))
    }

    fn dead_letters(&self, query: DeadLetterQuery) -> BackendFuture<'_, io::Result<Vec<DeadLetter>>> {
        let kept = self.memory.lock();
        let wanted = |letter: &DeadLetter, at: Instant| {
            query.after.is_none_or(|id| id < letter.id)
                && query.selects(&letter.webhook, letter.kind, &letter.reason, at.elapsed())
        };
        let letters = kept.dead().filter(|(_, letter, at)| wanted(letter, *at)).map(|(_, letter, _)| letter.clone());
        Box::pin(ready(Ok(letters.take(query.limit).collect())))
    }

    fn dead_letter(&self, id: EventId) -> BackendFuture<'_, io::Result<Option<(DeadLetter, StoredEvent)>>> {
        let kept = self.memory.lock();
        let found = kept.dead().find(|(_, letter, _)| letter.id == id);
        Box::pin(ready(Ok(found.map(|(entry, letter, _)| (letter.clone(), entry.event.clone())))))
    }

    fn replay(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>> {
        let mut kept = self.memory.lock();
        let dead = |entry: &&mut Entry| entry.dead.as_ref().is_some_and(|(_, letter)| ids.contains(&letter.id));
        let mut replayed = Vec::new();
        for entry in kept.entries.values_mut().filter(dead) {
            (entry.dead, entry.not_before, entry.state) = (None, None, entry.state.replayed());
            replayed.push(entry.ticket.clone());
        }
        drop(kept);
        let count = replayed.len();
        replayed.into_iter().for_each(|ticket| self.hand_out_at(ticket, None));
        Box::pin(ready(Ok(count)))
    }

    fn remove_dead_letters(&self, ids: Vec<EventId>) -> BackendFuture<'_, io::Result<usize>> {
        Box::pin(ready(Ok(self.memory.lock().remove(|letter, _| ids.contains(&letter.id)))))
    }

    fn expire_dead_letters(&self, age: Duration) -> BackendFuture<'_, io::Result<usize>> {
        Box::pin(ready(Ok(self.memory.lock().remove(|_, at| at.elapsed() > age))))
    }
}

fn waits(entry: &Entry) -> WaitingEvent {
    WaitingEvent {
        id: entry.event.id,
        webhook: entry.ticket.webhook.clone(),
        attempts: entry.state.attempts,
        size: entry.ticket.bytes,
        next_attempt: entry.due,
        under_way: false,
    }
}
