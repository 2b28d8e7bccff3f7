//! The worker: delivers accepted events from a queue.
//!
//! A [`Worker`] takes the events of a [`Backlog`] and delivers them to the modules of their webhooks, whatever backend the
//! queue has.

mod attempt;
mod metrics;
mod schedule;
mod waiting;

use std::fmt;
use std::future::Future;
use std::io;
use std::iter::repeat_with;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::attempt::{Outcome, attempt_once, give_up, orphan, report_given_up};
use self::schedule::{Limits, Schedule};
use self::waiting::Waits;
use crate::delivery::{DEFAULT_DEADLINE, Line, WebhookCounters, lines};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::history::{History, Kept};
use crate::queue::{Backlog, Due, Handout, Loaded, Queue, State, StoredEvent, Ticket};
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

/// How often the metrics are set.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// How often expired dead letters are removed.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The default of [`Worker::dead_letter_age`]: 14 days.
const DEAD_LETTER_AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Delivers the events of a [`Queue`], which only wait without a worker.
///
/// Many events are delivered at a time, up to a limit for each webhook and each namespace; namespaces take turns. An event
/// that waits for its next attempt does not count towards these limits.
///
/// If the worker is dropped before it was stopped, the queue refuses events from then on.
#[must_use = "accepted events are delivered by `run`"]
pub struct Worker {
    backlog: Backlog,
    deadline: Duration,
    dead_letter_age: Duration,
    limits: Limits,
    history: Option<History>,
    counters: Option<WebhookCounters>,
}

impl Worker {
    /// A worker for the events of this backlog.
    pub fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
            deadline: DEFAULT_DEADLINE,
            dead_letter_age: DEAD_LETTER_AGE,
            limits: Limits { webhook: 32, namespace: 128, total: 1024, bytes: 64 << 20 },
            history: None,
            counters: None,
        }
    }

    /// The queue whose events the worker delivers.
    pub fn queue(&self) -> &Queue {
        self.backlog.queue()
    }

    /// How long one attempt may take. The default is 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Tells `history` of each attempt, as the key `history` of its webhook allows.
    /// [`ReceiverBuilder::history`](crate::receiver::ReceiverBuilder::history) does so too.
    pub fn history(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    /// Counts attempts by webhook or by namespace.
    /// [`ReceiverBuilder::count_by_webhook`](crate::receiver::ReceiverBuilder::count_by_webhook) sets this too.
    pub fn count_by_webhook(mut self, counters: WebhookCounters) -> Self {
        self.counters = Some(counters);
        self
    }

    /// How long dead letters are kept. The default is 14 days.
    pub fn dead_letter_age(mut self, age: Duration) -> Self {
        self.dead_letter_age = age;
        self
    }

    /// How many events may be delivered at a time: of one webhook, of one namespace, and in total. The defaults are 32, 128
    /// and 1024; zero counts as one.
    pub fn concurrency(mut self, webhook: usize, namespace: usize, total: usize) -> Self {
        self.limits =
            Limits { webhook: webhook.max(1), namespace: namespace.max(1), total: total.max(1), ..self.limits };
        self
    }

    /// Delivers events to the webhooks of `store` until `stop` resolves. Then it starts no further event, and returns when
    /// the running deliveries have ended; all other events stay in the queue. If the future is dropped, the running
    /// deliveries are aborted, and their events are delivered again after the next start.
    pub async fn run(mut self, store: Store, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut stopping = false;
        let configuration = store.clone();
        let mut loaded = pin!(configuration.loaded());
        let mut is_loaded = false;
        let mut work = Work {
            queue: self.backlog.queue().clone(),
            store,
            deadline: self.deadline,
            history: self.history,
            counters: self.counters,
            schedule: Schedule::new(self.limits),
            waiting: Waits::default(),
            under_way: JoinSet::new(),
            is_reading: false,
            delivered: Vec::new(),
            tidying: None,
        };
        let mut measure = interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidy = interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(stopping && work.under_way.is_empty()) {
            // Before the configuration is loaded, each event would be put off, and later events would overtake it.
            let has_more = is_loaded && !stopping && work.begin();
            work.report_delivered();
            let next = work.waiting.next();
            tokio::select! {
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.backlog.end();
                }
                _ = &mut loaded, if !is_loaded => is_loaded = true,
                Some(handout) = self.backlog.next() => work.hear(handout),
                Some(ended) = work.under_way.join_next() => {
                    work.ended(ended);
                    while let Some(ended) = work.under_way.try_join_next() {
                        work.ended(ended);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() && !stopping => work.wake(),
                // Other tasks have a turn in between.
                () = yield_now(), if has_more => {}
                _ = measure.tick() => {
                    work.queue.measure();
                    lines::log_rest();
                }
                _ = tidy.tick(), if !stopping => work.expire_dead_letters(self.dead_letter_age),
            }
        }
        work.report_delivered();
        lines::log_rest();
        work.queue.backend().end().await;
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("limits", &self.limits).finish_non_exhaustive()
    }
}

struct Work {
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
    /// Starts the next events. Returns whether there may be more to start.
    fn begin(&mut self) -> bool {
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
    fn report_delivered(&mut self) {
        if !self.delivered.is_empty() {
            metrics::attempted("delivered", self.delivered.len());
            self.queue.backend().finish(&self.delivered);
            self.delivered.clear();
        }
    }

    fn hear(&mut self, handout: Handout) {
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

    fn expire_dead_letters(&mut self, age: Duration) {
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
    fn wake(&mut self) {
        let now = Instant::now();
        while let Some(ticket) = self.waiting.pop_due(now) {
            self.schedule.push(ticket);
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
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
