//! The worker: delivers accepted events from a queue.
//!
//! A [`Worker`] takes the events of a [`Backlog`] and delivers them to the modules of their webhooks, whatever backend the
//! queue has.

mod attempt;
mod metrics;
mod schedule;
mod waiting;
mod work;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::schedule::Limits;
use self::work::Work;
use crate::delivery::{DEFAULT_DEADLINE, WebhookCounters, lines};
use crate::history::History;
use crate::queue::{Backlog, Queue};
use crate::store::Store;

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
        let queue = self.backlog.queue().clone();
        let mut work = Work::new(queue, store, self.deadline, self.limits, self.history, self.counters);
        let mut measure = interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidy = interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(stopping && work.is_idle()) {
            // Before the configuration is loaded, each event would be put off, and later events would overtake it.
            let has_more = is_loaded && !stopping && work.begin();
            work.report_delivered();
            let next = work.next_due();
            tokio::select! {
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.backlog.end();
                }
                _ = &mut loaded, if !is_loaded => is_loaded = true,
                Some(handout) = self.backlog.next() => work.hear(handout),
                () = work.one_ended() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() && !stopping => work.wake(),
                // Other tasks have a turn in between.
                () = yield_now(), if has_more => {}
                _ = measure.tick() => {
                    self.backlog.queue().measure();
                    lines::log_rest();
                }
                _ = tidy.tick(), if !stopping => work.expire_dead_letters(self.dead_letter_age),
            }
        }
        work.report_delivered();
        lines::log_rest();
        self.backlog.queue().backend().end().await;
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("limits", &self.limits).finish_non_exhaustive()
    }
}
