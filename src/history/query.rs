//! What an operator asks, and what a history answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;

use super::entry::{Action, Attempt, Dedup, Outcome, Received, Step};
use crate::config::WebhookKey;
use crate::event::EventId;

/// Selects events. Every condition that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// The namespaces that may be shown at all; `None` means every namespace.
    pub namespaces: Option<Arc<[Box<str>]>>,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only the webhook with this id, in any namespace unless one is given.
    pub webhook: Option<String>,
    /// Only these outcomes; empty means every outcome.
    pub outcomes: Vec<Outcome>,
    /// Only this kind of refusal or error.
    pub kind: Option<String>,
    /// Only these statuses, both included.
    pub status: Option<(u16, u16)>,
    /// Only events with this text: in the id, the webhook, the reason, the peer or the kept beginning of the body.
    pub text: Option<String>,
    /// Only events at or after this time.
    pub since: Option<SystemTime>,
    /// Only events before this time.
    pub until: Option<SystemTime>,
    /// Only events older than this one: the [`Page::next`] of the page before.
    pub after: Option<EventId>,
    /// The largest number of events in a page.
    pub limit: usize,
}

/// One event in a list.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event's id.
    pub id: EventId,
    /// When the request's head had been received.
    pub at: SystemTime,
    /// The webhook.
    pub webhook: WebhookKey,
    /// The webhook's module.
    pub module: Arc<str>,
    /// Whether the webhook answers once the event is in the queue.
    pub is_accepted: bool,
    /// The client's address.
    pub peer: Option<IpAddr>,
    /// The request's method.
    pub method: Method,
    /// The length of the body, in bytes.
    pub size: u64,
    /// The outcome so far.
    pub outcome: Outcome,
    /// The answer's status; 0 while it is not known.
    pub status: u16,
    /// The time from the head of the request to the answer.
    pub duration: Duration,
    /// The kind of the refusal or of the last error; `None` once the event is delivered.
    pub kind: Option<Box<str>>,
    /// The reason of the refusal or the last error; `None` once the event is delivered.
    pub reason: Option<Box<str>>,
    /// How many attempts were made. The attempts of a chain's modules with one number count as one.
    pub attempts: u32,
    /// When the next attempt is due.
    pub next: Option<SystemTime>,
}

impl From<&Received> for Row {
    fn from(received: &Received) -> Self {
        Self {
            id: received.id,
            at: received.at,
            webhook: received.webhook.clone(),
            module: Arc::clone(&received.module),
            is_accepted: received.is_accepted,
            peer: received.peer,
            method: received.method.clone(),
            size: received.body.size(),
            outcome: received.outcome,
            status: received.status.as_u16(),
            duration: received.duration,
            kind: received.kind.map(Box::from),
            reason: received.reason.clone(),
            attempts: 0,
            next: None,
        }
    }
}

/// One event, with everything that is kept of it. No secret is in it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event as in a list.
    pub row: Row,
    /// The request's path, without its query.
    pub path: Box<str>,
    /// The revision of the configuration that the request was answered by.
    pub revision: u64,
    /// The header fields that are kept, in order. The value of a field with a secret is
    /// [`REDACTED`](crate::request::REDACTED).
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The kept beginning of the body; `None` if nothing is kept.
    pub body: Option<Vec<u8>>,
    /// Whether the body is as received, and no header field is left out. The values of some fields may still be masked: they
    /// are [`REDACTED`](crate::request::REDACTED). An event may be replayed if it is exact, and if its modules use none of
    /// the masked fields.
    pub is_exact: bool,
    /// The result of `dedup`.
    pub dedup: Option<Dedup>,
    /// The guards that have several secrets, and the position of the one that fits, counted from 1.
    pub secrets: Vec<(Box<str>, u8)>,
    /// The parts of the request's way.
    pub steps: Vec<Step>,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What operators did.
    pub actions: Vec<Action>,
    /// The next newer and the next older event of the webhook.
    pub newer: Option<EventId>,
    /// The next older event of the webhook.
    pub older: Option<EventId>,
}

/// A page of events, newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Row>,
    /// Where the next page begins: the [`EventQuery::after`] of the next query. `None` if this is the last page.
    pub next: Option<EventId>,
}

/// Counts of events.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The events that match the whole query, except for its page.
    pub total: u64,
    /// Whether counting was stopped early, because there are too many.
    pub is_at_least: bool,
    /// By outcome, in the order of [`Outcome::ALL`]: the query without its outcomes and kind.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// By kind, the most frequent first: the query without its kind.
    pub kinds: Vec<(Box<str>, u64)>,
    /// 60 intervals of equal length, oldest first, from [`EventQuery::since`] to [`EventQuery::until`]; without them, the
    /// last hour: the query without its outcomes, kind and times.
    pub buckets: Vec<Bucket>,
}

/// The events of one interval.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The beginning of the interval.
    pub at: SystemTime,
    /// By outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
}

/// The last hour of a webhook.
#[derive(Clone, Debug)]
pub struct Activity {
    /// The webhook.
    pub webhook: WebhookKey,
    /// By minute, oldest first, and by outcome, in the order of [`Outcome::ALL`].
    pub minutes: Vec<[u64; Outcome::ALL.len()]>,
    /// 95 of 100 requests were answered within this time.
    pub p95: Duration,
    /// The newest event.
    pub last: Option<SystemTime>,
    /// The newest refused request.
    pub last_refused: Option<SystemTime>,
}
