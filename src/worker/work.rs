//! The work under way: which events are read, tried, put off and reported.

use std::future::pending;
use std::io;
use std::iter::repeat_with;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;

use super::attempt::{Outcome, attempt_once, give_up, orphan, report_given_up};
use super::metrics;
use super::schedule::{Limits, Schedule};
use super::waiting::Waits;
use crate::delivery::{Line, WebhookCounters, lines};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::history::{History, Kept};
use crate::queue::{Due, Handout, Loaded, Queue, State, StoredEvent, Ticket};
use crate::store::{Found, Store};
use crate::webhook::Webhook;

/// How many events are started or read at a time.
const BATCH: usize = 64;

/// How many events are looked at before other tasks have a turn: a fenced webhook may have millions.
const MAX_LOOKS: usize = 16 * BATCH;

/// An event of at most this many bytes is tried on the worker's own task until it first has to wait. Most deliveries then
/// need no task of their own.
const SMALL: u32 = 16 << 10;

/// When an event is looked at again that could not be read, or whose webhook has no valid configuration.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The state of a running worker.
pub(super) struct Work {
    queue: Queue,
    store: Store,
    deadline: Duration,
    history: Option<History>,
    counters: Option<WebhookCounters>,
    schedule: Schedule,
    /// Events that wait for their next attempt.
    waiting: Waits,
    under_way: JoinSet<Ended>,
    /// Whether events are being read. Events that become ready meanwhile are read together.
    is_reading: bool,
    /// Delivered events that were not reported to the queue yet.
    delivered: Vec<Ticket>,
    /// Removes expired dead letters. A stop does not wait for this task.
    tidying: Option<JoinHandle<()>>,
}

/// The result of a task.
enum Ended {
    /// Events were read.
    Read(Vec<(Ticket, Option<Arc<Webhook>>, Loaded)>),
    /// An attempt was made.
    Tried(Ticket, Outcome),
}

impl Work {
    pub(super) fn new(
        queue: Queue,
        store: Store,
        deadline: Duration,
        limits: Limits,
        history: Option<History>,
        counters: Option<WebhookCounters>,
    ) -> Self {
        Self {
            queue,
            store,
            deadline,
            history,
            counters,
            schedule: Schedule::new(limits),
            waiting: Waits::default(),
            under_way: JoinSet::new(),
            is_reading: false,
            delivered: Vec::new(),
            tidying: None,
        }
    }

    /// Whether no task reads or tries an event.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// When the next waiting event is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.next()
    }

    /// Waits until a task ends, and takes the results of all that have ended. Never returns while there is no task.
    pub(super) async fn one_ended(&mut self) {
        let Some(ended) = self.under_way.join_next().await else { return pending().await };
        self.ended(ended);
        while let Some(ended) = self.under_way.try_join_next() {
            self.ended(ended);
        }
    }

    /// Starts the next events. Returns whether there may be more to start.
    pub(super) fn begin(&mut self) -> bool {
        if self.is_reading {
            return false;
        }
        let (mut tickets, mut webhooks, mut looked_at) = (Vec::new(), Vec::new(), 0);
        while tickets.len() < BATCH
            && looked_at < MAX_LOOKS
            && let Some(ticket) = self.schedule.next()
        {
            looked_at += 1;
            match self.find(&ticket) {
                // Checked before the event is read, because a webhook may be fenced for long.
                Err(NotYet) => self.settle(ticket, Outcome::NotYet(LOOK_AGAIN)),
                Ok(webhook) => {
                    tickets.push(ticket);
                    webhooks.push(webhook);
                }
            }
        }
        if tickets.is_empty() {
            return looked_at == MAX_LOOKS;
        }
        let fresh = self.queue.backend().take_fresh(&tickets).into_iter().chain(repeat_with(|| None));
        let fresh: Vec<_> = fresh.take(tickets.len()).collect();
        // The events of a webhook are started in order, so no later event is started until these are read.
        self.is_reading = fresh.iter().any(Option::is_none);
        if !self.is_reading {
            let found = fresh.into_iter().flatten().map(|event| Loaded::Found(event, State::default()));
            tickets.into_iter().zip(webhooks).zip(found).for_each(|((ticket, webhook), loaded)| {
                self.attempt(ticket, webhook, loaded);
            });
            return true;
        }
        let queue = self.queue.clone();
        self.under_way.spawn(async move {
            let to_read: Vec<_> = tickets
                .iter()
                .zip(&fresh)
                .filter(|(_, event)| event.is_none())
                .map(|(ticket, _)| ticket.clone())
                .collect();
            let read = AssertUnwindSafe(async { queue.backend().load(&to_read).await })
                .catch_unwind()
                .await
                .unwrap_or_default();
            // For an event that the backend returned nothing about.
            let unknown = || Loaded::NotNow(io::Error::other("the queue returned no result"));
            let mut read = read.into_iter().chain(repeat_with(unknown));
            let mut loaded = |event: Option<StoredEvent>| match event {
                Some(event) => Loaded::Found(event, State::default()),
                None => read.next().unwrap_or_else(unknown),
            };
            let all = tickets.into_iter().zip(webhooks).zip(fresh);
            Ended::Read(all.map(|((ticket, webhook), event)| (ticket, webhook, loaded(event))).collect())
        });
        false
    }

    /// Reports delivered events to the queue.
    pub(super) fn report_delivered(&mut self) {
        if !self.delivered.is_empty() {
            metrics::attempted("delivered", self.delivered.len());
            self.queue.backend().finish(&self.delivered);
            self.delivered.clear();
        }
    }

    pub(super) fn hear(&mut self, handout: Handout) {
        match handout {
            Handout::Due(events) => events.into_iter().for_each(|due| self.take(due)),
            Handout::Hurry(tickets) => {
                self.waiting.take(&tickets).into_iter().for_each(|ticket| self.schedule.push(ticket));
            }
            Handout::Ended(tickets) => {
                drop(self.waiting.take(&tickets));
                self.schedule.forget(&tickets);
            }
        }
    }

    fn take(&mut self, due: Due) {
        match due.not_before.map(Instant::from_std) {
            Some(until) => self.wait_until(due.ticket, until),
            None => self.schedule.push(due.ticket),
        }
    }

    pub(super) fn expire_dead_letters(&mut self, age: Duration) {
        if self.tidying.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let queue = self.queue.clone();
        self.tidying = Some(tokio::spawn(async move {
            match queue.backend().expire_dead_letters(age).await {
                Ok(0) => {}
                Ok(removed) => tracing::warn!(removed, "removed dead letters that were too old"),
                Err(error) => tracing::warn!(%error, "cannot remove dead letters that are too old"),
            }
        }));
    }

    /// Makes the waiting events ready whose time has come.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        while let Some(ticket) = self.waiting.pop_due(now) {
            self.schedule.push(ticket);
        }
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended::Read(loaded)) => {
                self.is_reading = false;
                loaded.into_iter().for_each(|(ticket, webhook, loaded)| self.attempt(ticket, webhook, loaded));
            }
            Ok(Ended::Tried(ticket, outcome)) => self.settle(ticket, outcome),
            // Both kinds of task catch panics, so this happens only when the runtime shuts down.
            Err(error) => {
                self.is_reading = false;
                tracing::error!(%error, "a task of the worker was aborted");
            }
        }
    }

    /// Tries an event that was read. `webhook` is `None` if it is not configured any more.
    fn attempt(&mut self, ticket: Ticket, webhook: Option<Arc<Webhook>>, loaded: Loaded) {
        let (event, state) = match loaded {
            Loaded::Found(event, state) => (event, state),
            Loaded::Gone => return self.schedule.ended(&ticket),
            Loaded::Lost(error) => {
                if let Some(left_out) = lines::admit(&ticket.webhook, Line::Lost) {
                    tracing::error!(sequence = ticket.sequence, webhook = %ticket.webhook, %error, left_out, "an accepted event is lost");
                }
                return self.schedule.ended(&ticket);
            }
            Loaded::NotNow(error) => {
                if let Some(left_out) = lines::admit(&ticket.webhook, Line::Unreadable) {
                    tracing::error!(sequence = ticket.sequence, webhook = %ticket.webhook, %error, left_out, "cannot read an event from the queue: it is tried again");
                }
                return self.settle(ticket, Outcome::NotYet(LOOK_AGAIN));
            }
        };
        let Some(webhook) = webhook else {
            let outcome = orphan(event.id, &ticket.webhook, state, self.history.as_ref());
            return self.settle(ticket, outcome);
        };
        let (queue, deadline, id) = (self.queue.clone(), self.deadline, event.id);
        let history = self.history.clone().filter(|_| webhook.history() != Kept::None);
        let is_small = ticket.bytes <= SMALL;
        let mut tried = Box::pin(async move {
            let history = history.as_ref();
            let tried = attempt_once(&queue, &ticket, event, &webhook, &state, history, deadline);
            let outcome = AssertUnwindSafe(tried).catch_unwind().await.unwrap_or_else(|_| {
                let error = DeliverError::new(DeliverErrorKind::Permanent, "the attempt panicked");
                let state = State { attempts: state.attempts + 1, done: state.done };
                report_given_up(history, id, &ticket.webhook, webhook.module(), &state, &error);
                give_up(id, &ticket.webhook, state, error)
            });
            (ticket, outcome)
        });
        match is_small.then(|| tried.as_mut().now_or_never()).flatten() {
            Some((ticket, outcome)) => self.settle(ticket, outcome),
            None => {
                let trying = self.queue.trying(id);
                self.under_way.spawn(async move {
                    let (ticket, outcome) = tried.await;
                    drop(trying);
                    Ended::Tried(ticket, outcome)
                });
            }
        }
    }

    /// The event's webhook as it is configured now; `None` if it is not configured any more.
    fn find(&self, ticket: &Ticket) -> Result<Option<Arc<Webhook>>, NotYet> {
        self.store.read(|snapshot| match snapshot.find(&(&ticket.webhook).into()) {
            Found::Serving(webhook) => Ok(Some(Arc::clone(webhook))),
            Found::Unknown => Ok(None),
            Found::Fenced | Found::NotLoaded => Err(NotYet),
        })
    }

    fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
        self.schedule.ended(&ticket);
        self.count(&ticket, &outcome);
        match outcome {
            Outcome::Delivered => self.delivered.push(ticket),
            Outcome::Again(state, wait, _) => {
                let until = Instant::now() + wait;
                if let Some(ticket) = self.queue.backend().put_off(ticket, state, wait) {
                    self.wait_until(ticket, until);
                }
            }
            Outcome::Dead(id, state, error) => self.queue.backend().bury(ticket, id, state, &error),
            Outcome::NotYet(wait) => self.wait_until(ticket, Instant::now() + wait),
        }
    }

    fn count(&self, ticket: &Ticket, outcome: &Outcome) {
        let Some(counters) = &self.counters else { return };
        match outcome {
            Outcome::Delivered => counters.attempted(&ticket.webhook, "delivered"),
            Outcome::Again(_, _, kind) => counters.attempted(&ticket.webhook, kind.label()),
            Outcome::Dead(_, _, error) => counters.attempted(&ticket.webhook, error.kind().label()),
            Outcome::NotYet(_) => {}
        }
    }

    fn wait_until(&mut self, ticket: Ticket, until: Instant) {
        self.waiting.push(ticket, until);
    }
}

/// The webhook cannot take events now.
struct NotYet;
