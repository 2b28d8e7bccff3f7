//! What all routes share, and one request as its route sees it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, FutureExt, Shared, pending};
use tokio::sync::Semaphore;

use super::answer::Problem;
use super::query::Query;
use super::tokens::{AdminTokens, Operator};
use crate::base::log_limit::LogLimit;
use crate::config::WebhookKey;
use crate::delivery::DEFAULT_DEADLINE;
use crate::event::EventId;
use crate::history::{Action, Entry, History, Outcome};
use crate::queue::Queue;
use crate::store::Store;

/// Answers that are made or read at a time: some hold a whole event.
const ANSWERS: usize = 4;

/// Streams of events at a time.
const STREAMS: usize = 16;

/// Requests that may wait for a revision at a time.
const WAITS: usize = 32;

#[derive(Clone)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) queue: Option<Queue>,
    pub(super) history: Option<History>,
    pub(super) door: Door,
    /// How long a test event or a replay may take.
    pub(super) deadline: Duration,
    /// Resolves when the server begins to stop.
    pub(super) stop: Shared<BoxFuture<'static, ()>>,
    pub(super) started_at: SystemTime,
    pub(super) places: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) waits: Arc<Semaphore>,
    /// Limits the lines about requests that are not let in: anybody can cause them.
    pub(super) strangers: Arc<LogLimit<()>>,
}

/// Who is let in.
#[derive(Clone)]
pub(super) enum Door {
    /// Nobody, for this reason.
    Closed(Cow<'static, str>),
    Tokens(AdminTokens),
    /// Everybody: the application has a guard of its own.
    Open,
}

impl State {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            queue: None,
            history: None,
            door: Door::Closed("the admin routes have neither tokens nor a guard, so nobody is let in".into()),
            deadline: DEFAULT_DEADLINE,
            stop: pending().boxed().shared(),
            started_at: SystemTime::now(),
            places: Arc::new(Semaphore::new(ANSWERS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            waits: Arc::new(Semaphore::new(WAITS)),
            strangers: Arc::default(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.clone().now_or_never().is_some()
    }
}

/// A request of an operator.
pub(super) struct Ask<'a> {
    pub(super) state: &'a Arc<State>,
    pub(super) operator: Operator,
    pub(super) query: Query,
    /// The texts that stand for the pieces in braces of the route's path.
    pub(super) pieces: Vec<&'a str>,
}

impl Ask<'_> {
    pub(super) fn queue(&self) -> Result<&Queue, Problem> {
        self.state.queue.as_ref().ok_or_else(|| Problem::not_found("there is no queue: no event is accepted"))
    }

    pub(super) fn history(&self) -> Result<&History, Problem> {
        self.state.history.as_ref().ok_or_else(|| Problem::not_found("there is no history: events are not recorded"))
    }

    /// The piece of the path that is an event's id.
    pub(super) fn id(&self) -> Result<EventId, Problem> {
        let wrong = || Problem::bad_request("the id is not the id of an event; expected a UUID");
        self.pieces.first().and_then(|id| id.parse().ok()).ok_or_else(wrong)
    }

    /// Records that the operator has done something with an event, in the log and in the history.
    pub(super) fn did(&self, what: &'static str, event: EventId, webhook: &WebhookKey, outcome: Option<Outcome>) {
        self.tell(what, event, webhook);
        self.note(what, event, outcome);
    }

    /// Logs it with the name of the token.
    pub(super) fn tell(&self, action: &'static str, event_id: EventId, webhook: &WebhookKey) {
        let by = self.operator.name();
        tracing::info!(by, action, %event_id, %webhook, "an operator has acted");
    }

    /// Logs that the operator has done it with many events.
    pub(super) fn tell_many(&self, action: &'static str, matched: usize, done: usize) {
        let by = self.operator.name();
        tracing::info!(by, action, matched, done, "an operator has acted on many events");
    }

    /// Adds the action to the history of an event.
    pub(super) fn note(&self, what: &'static str, event: EventId, outcome: Option<Outcome>) {
        if let Some(history) = &self.state.history {
            let (at, by) = (SystemTime::now(), self.operator.name().into());
            history.record(Entry::Action(Box::new(Action { event, at, what, by, outcome })));
        }
    }
}
