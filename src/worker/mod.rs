//! Delivers what was accepted.
//!
//! A [`Worker`] takes the events of a [`Backlog`] and gives them to the modules of their webhooks, whatever backend the
//! queue has.

mod attempt;
mod metrics;
mod schedule;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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

use self::attempt::{Outcome, attempt_once, give_up, orphan};
use self::schedule::{Limits, Schedule};
use crate::delivery::{DEFAULT_DEADLINE, Line, lines};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::queue::{Backlog, Due, Loaded, Queue, State, StoredEvent, Ticket};
use crate::store::{Found, Store};
use crate::webhook::Webhook;

/// How many events are begun or read at a time.
const AT_A_TIME: usize = 64;

/// How many events are looked at before everybody else has a turn: those of a fenced webhook may be millions.
const LOOKED_AT: usize = 16 * AT_A_TIME;

/// An event of so many bytes at most is tried by the worker itself, until it first has to wait. Most need no task then.
const SMALL: u32 = 16 << 10;

/// When an event is looked at again whose webhook has no valid configuration, or that could not be read.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often the metrics are set.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// How often old dead letters are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How long dead letters are kept if the worker is not told: 14 days.
const DEAD_LETTER_AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Delivers the events of a [`Queue`]: without it they only wait.
///
/// Many events are under way at a time, at most so many of one webhook and of one namespace; namespaces take turns. An
/// event that waits to be tried again holds none of these places.
///
/// If it is dropped before it was told to stop, the queue refuses events from then on.
#[must_use = "accepted events are delivered by `run`"]
pub struct Worker {
    backlog: Backlog,
    deadline: Duration,
    dead_letter_age: Duration,
    limits: Limits,
}

impl Worker {
    /// Delivers these events.
    pub fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
            deadline: DEFAULT_DEADLINE,
            dead_letter_age: DEAD_LETTER_AGE,
            limits: Limits { webhook: 32, namespace: 128, total: 1024, bytes: 64 << 20 },
        }
    }

    /// The queue whose events it delivers.
    pub fn queue(&self) -> &Queue {
        self.backlog.queue()
    }

    /// How long one attempt may take; 30 s if this is not called.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long dead letters are kept; 14 days if this is not called.
    pub fn dead_letter_age(mut self, age: Duration) -> Self {
        self.dead_letter_age = age;
        self
    }

    /// How many events may be under way at a time: of one webhook, of one namespace, in all. 32, 128 and 1024 if this is
    /// not called.
    pub fn concurrency(mut self, webhook: usize, namespace: usize, total: usize) -> Self {
        self.limits =
            Limits { webhook: webhook.max(1), namespace: namespace.max(1), total: total.max(1), ..self.limits };
        self
    }

    /// Delivers by the webhooks of `store` until `stop` resolves. Then nothing new is begun, and it ends when what is under
    /// way has ended; what is left stays in the queue. Dropped, it breaks off what is under way: that is delivered again
    /// after the next start.
    pub async fn run(mut self, store: Store, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut stopping = false;
        let configuration = store.clone();
        let mut loaded = pin!(configuration.wait_ready());
        let mut is_loaded = false;
        let mut work = Work {
            queue: self.backlog.queue().clone(),
            store,
            deadline: self.deadline,
            schedule: Schedule::new(self.limits),
            waiting: BinaryHeap::new(),
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
            // Without a configuration each event would be put off, and what is accepted later would overtake it.
            let has_more = is_loaded && !stopping && work.begin();
            work.note_delivered();
            let next = work.waiting.peek().map(|Reverse(waiting)| waiting.until);
            tokio::select! {
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.backlog.end();
                }
                _ = &mut loaded, if !is_loaded => is_loaded = true,
                Some(events) = self.backlog.next() => events.into_iter().for_each(|due| work.take(due)),
                Some(ended) = work.under_way.join_next() => {
                    work.ended(ended);
                    while let Some(ended) = work.under_way.try_join_next() {
                        work.ended(ended);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() && !stopping => work.wake(),
                // Everybody else has a turn in between.
                () = yield_now(), if has_more => {}
                _ = measure.tick() => {
                    work.queue.measure();
                    lines::tell_rest();
                }
                _ = tidy.tick(), if !stopping => work.expire_dead_letters(self.dead_letter_age),
            }
        }
        work.note_delivered();
        lines::tell_rest();
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
    schedule: Schedule,
    /// Those that are tried again later.
    waiting: BinaryHeap<Reverse<Waiting>>,
    under_way: JoinSet<Ended>,
    /// Events are being read: what becomes ready meanwhile is read together.
    is_reading: bool,
    /// Those of which the queue has not been told yet.
    delivered: Vec<Ticket>,
    /// Removes old dead letters. The stop does not wait for it.
    tidying: Option<JoinHandle<()>>,
}

/// The order is that of the time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    until: Instant,
    sequence: u64,
    ticket: Ticket,
}

/// What a task has done.
enum Ended {
    /// Events were read.
    Read(Vec<(Ticket, Option<Arc<Webhook>>, Loaded)>),
    /// An attempt was made.
    Tried(Ticket, Outcome),
}

impl Work {
    /// Begins what may be begun. Whether there may be more.
    fn begin(&mut self) -> bool {
        if self.is_reading {
            return false;
        }
        let (mut tickets, mut webhooks, mut looked_at) = (Vec::new(), Vec::new(), 0);
        while tickets.len() < AT_A_TIME
            && looked_at < LOOKED_AT
            && let Some(ticket) = self.schedule.next()
        {
            looked_at += 1;
            match self.find(&ticket) {
                // Before it is read: a webhook may be fenced for long.
                Err(NotYet) => self.settle(ticket, Outcome::NotYet(LOOK_AGAIN)),
                Ok(webhook) => {
                    tickets.push(ticket);
                    webhooks.push(webhook);
                }
            }
        }
        if tickets.is_empty() {
            return looked_at == LOOKED_AT;
        }
        let fresh = self.queue.backend().take_fresh(&tickets).into_iter().chain(repeat_with(|| None));
        let fresh: Vec<_> = fresh.take(tickets.len()).collect();
        // What is to be read holds up what came after it: the events of a webhook go in order.
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
            // Of what the backend says nothing about nothing is known.
            let unknown = || Loaded::NotNow(io::Error::other("the queue did not answer"));
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

    /// Tells the queue of what was delivered.
    fn note_delivered(&mut self) {
        if !self.delivered.is_empty() {
            metrics::attempted("delivered", self.delivered.len());
            self.queue.backend().finish(&self.delivered);
            self.delivered.clear();
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
                Ok(forgotten) => tracing::warn!(forgotten, "dead letters were too old"),
                Err(error) => tracing::warn!(%error, "old dead letters cannot be removed"),
            }
        }));
    }

    /// Events whose time has come.
    fn wake(&mut self) {
        let now = Instant::now();
        while let Some(Reverse(waiting)) = self.waiting.peek()
            && waiting.until <= now
        {
            if let Some(Reverse(waiting)) = self.waiting.pop() {
                self.schedule.push(waiting.ticket);
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended::Read(loaded)) => {
                self.is_reading = false;
                loaded.into_iter().for_each(|(ticket, webhook, loaded)| self.attempt(ticket, webhook, loaded));
            }
            Ok(Ended::Tried(ticket, outcome)) => self.settle(ticket, outcome),
            // Both catch panics: only the end of the runtime breaks them off.
            Err(error) => {
                self.is_reading = false;
                tracing::error!(%error, "a task of the worker broke off");
            }
        }
    }

    /// `None` if its webhook is gone.
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
                    tracing::error!(sequence = ticket.sequence, webhook = %ticket.webhook, %error, left_out, "an event cannot be read");
                }
                return self.settle(ticket, Outcome::NotYet(LOOK_AGAIN));
            }
        };
        let Some(webhook) = webhook else {
            let outcome = orphan(event.id, &ticket.webhook, state);
            return self.settle(ticket, outcome);
        };
        let (queue, deadline) = (self.queue.clone(), self.deadline);
        let is_small = ticket.bytes <= SMALL;
        let mut tried = Box::pin(async move {
            let id = event.id;
            let tried =
                AssertUnwindSafe(attempt_once(&queue, &ticket, event, webhook, &state, deadline)).catch_unwind();
            let outcome = tried.await.unwrap_or_else(|_| {
                let error = DeliverError::new(DeliverErrorKind::Permanent, "the attempt panicked");
                give_up(id, &ticket.webhook, State { attempts: state.attempts + 1, done: state.done }, error)
            });
            (ticket, outcome)
        });
        match is_small.then(|| tried.as_mut().now_or_never()).flatten() {
            Some((ticket, outcome)) => self.settle(ticket, outcome),
            None => {
                self.under_way.spawn(tried.map(|(ticket, outcome)| Ended::Tried(ticket, outcome)));
            }
        }
    }

    /// The webhook as it is configured now; `None` if it is gone.
    fn find(&self, ticket: &Ticket) -> Result<Option<Arc<Webhook>>, NotYet> {
        self.store.read(|snapshot| match snapshot.find(&(&ticket.webhook).into()) {
            Found::Serving(webhook) => Ok(Some(Arc::clone(webhook))),
            Found::Unknown => Ok(None),
            Found::Fenced | Found::NotLoaded => Err(NotYet),
        })
    }

    fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
        self.schedule.ended(&ticket);
        match outcome {
            Outcome::Delivered => self.delivered.push(ticket),
            Outcome::Again(state, wait) => {
                let until = Instant::now() + wait;
                if let Some(ticket) = self.queue.backend().put_off(ticket, state, wait) {
                    self.wait_until(ticket, until);
                }
            }
            Outcome::Dead(id, state, error) => self.queue.backend().bury(ticket, id, state, &error),
            Outcome::NotYet(wait) => self.wait_until(ticket, Instant::now() + wait),
        }
    }

    fn wait_until(&mut self, ticket: Ticket, until: Instant) {
        let waiting = Waiting { until, sequence: ticket.sequence, ticket };
        self.waiting.push(Reverse(waiting));
    }
}

/// Its webhook cannot take an event now.
struct NotYet;
