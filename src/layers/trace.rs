//! The trace of a request: what a history is told about the request once it was answered.
//!
//! The layers note what they know while they have it. The history gets one entry, with the answer or, if there is none,
//! when the last part of the request's processing is dropped.

mod verdict;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use self::verdict::{Answered, Way};
use crate::auth::{Guards, Matches};
use crate::base::lock::lock;
use crate::event::{DeliverError, DuplicateOf, EventId, Stamp};
use crate::handshake::IsHandshake;
use crate::history::{Body, Dedup, Entry, History, Kept, Outcome, Received, Step};
use crate::request::{Collected, Head, Peer, REDACTED, Rejection};
use crate::store::Revision;
use crate::webhook::{Promise, Webhook};

/// The status of a request whose sender hung up before the answer, by a convention of nginx.
const CLOSED_REQUEST: u16 = 499;

/// The most steps of a request's way, so that they need one allocation.
const STEPS: usize = 8;

/// The reason of an entry whose sender was not told the outcome.
const HUNG_UP: &str = "the sender hung up before the answer";

/// Follows one request.
pub(super) struct Trace {
    history: History,
    began: Instant,
    is_full: bool,
    draft: Mutex<Draft>,
}

/// The entry so far.
struct Draft {
    /// `None` once the history has it.
    received: Option<Box<Received>>,
    /// The whole body, which counts towards the memory for bodies meanwhile.
    body: Option<Collected>,
    /// The end of the last step that has ended.
    last: Duration,
    way: Way,
    /// Whether the sender is authenticated.
    is_permitted: bool,
    /// Whether the sender hung up, and the event is processed without it.
    is_detached: bool,
    /// The error of the last attempt.
    error: Option<DeliverError>,
    /// The guards that have judged the request, one set for each layer.
    guards: Vec<Guards>,
}

impl Trace {
    /// Begins to follow a request for `webhook`; `None` if nothing is kept of the webhook's requests, or if the history has no
    /// room now.
    pub(super) fn begin(history: &History, head: Head<'_>, webhook: &Webhook, revision: Revision) -> Option<Arc<Self>> {
        let kept = webhook.history();
        if kept == Kept::None || !history.has_room(webhook.key()) {
            return None;
        }
        let Stamp { id, at } = Stamp::now();
        let received = Box::new(Received {
            id,
            at,
            webhook: webhook.key().clone(),
            module: webhook.module(),
            data_type: webhook.data_type(),
            revision,
            is_accepted: webhook.promise() == Promise::Accepted,
            peer: Peer::of(head.extensions).map(Peer::client),
            method: head.method.clone(),
            path: head.uri.path().into(),
            headers: HeaderMap::new(),
            body: Body::Left(announced(head.headers)),
            outcome: Outcome::Refused,
            status: StatusCode::default(),
            duration: Duration::ZERO,
            kind: None,
            reason: None,
            dedup: None,
            secrets: Vec::new(),
            steps: Vec::with_capacity(STEPS),
        });
        let draft = Draft {
            received: Some(received),
            body: None,
            last: Duration::ZERO,
            way: Way::Coming,
            is_permitted: false,
            is_detached: false,
            error: None,
            guards: Vec::new(),
        };
        let (history, is_full) = (history.clone(), kept == Kept::Full);
        Some(Arc::new(Self { history, began: Instant::now(), is_full, draft: Mutex::new(draft) }))
    }

    /// The history that is told.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// A step of the request's way has ended, and the next one begins.
    pub(super) fn ended(&self, step: &'static str) {
        let now = self.began.elapsed();
        self.draft().ended(step, now);
    }

    /// These guards judge the request.
    pub(super) fn guarded(&self, guards: &Guards) {
        if self.is_full {
            self.draft().guards.push(guards.clone());
        }
    }

    /// The sender has given a proof.
    pub(super) fn permitted(&self, matches: &Matches) {
        let mut draft = self.draft();
        draft.is_permitted = true;
        if let Some(received) = &mut draft.received {
            let places = matches.iter().map(|(guard, position)| (guard, position.index()));
            received.secrets.extend(places.map(|(guard, at)| (guard, u8::try_from(at + 1).unwrap_or(u8::MAX))));
        }
    }

    /// The sender has to give another proof.
    pub(super) fn owes(&self) {
        self.draft().is_permitted = false;
    }

    /// The whole body has arrived.
    pub(super) fn arrived(&self, headers: &HeaderMap, body: &Collected) {
        let now = self.began.elapsed();
        let mut draft = self.draft();
        draft.ended("body", now);
        draft.way = Way::Arrived;
        let Some(received) = &mut draft.received else { return };
        received.body = Body::Left(body.bytes().len() as u64);
        if self.is_full {
            received.headers = headers.clone();
            draft.body = Some(body.clone());
        }
    }

    /// The event has this id.
    pub(super) fn named(&self, id: EventId) {
        if let Some(received) = &mut self.draft().received {
            received.id = id;
        }
    }

    /// The result of `dedup`.
    pub(super) fn deduplicated(&self, result: Dedup) {
        let now = self.began.elapsed();
        let mut draft = self.draft();
        draft.ended("dedup", now);
        if let Some(received) = &mut draft.received {
            received.dedup = Some(result);
        }
    }

    /// The event is about to be delivered, or to be put into the queue.
    pub(super) fn admitted(&self, id: EventId, promise: Promise) {
        let mut draft = self.draft();
        draft.way = match promise {
            Promise::Delivered => Way::Delivering,
            Promise::Accepted => Way::Queueing,
        };
        if let Some(received) = &mut draft.received {
            received.id = id;
        }
    }

    /// The sender hung up, and the event is processed without it.
    pub(super) fn detached(&self) {
        self.draft().is_detached = true;
    }

    /// The event was not delivered.
    pub(super) fn failed(&self, error: &DeliverError) {
        self.draft().error = Some(error.clone());
    }

    /// The request was answered; `None` if the service failed without an answer. Tells the history.
    pub(super) fn answered<B>(&self, response: Option<&Response<B>>) {
        let now = self.began.elapsed();
        let mut draft = self.draft();
        let Some(received) = draft.received.take() else { return };
        let answered = response.map_or(Answered::Broken, |response| {
            let extensions = response.extensions();
            match extensions.get::<Rejection>() {
                Some(rejection) => Answered::Refused(rejection),
                None if extensions.get::<IsHandshake>().is_some() => Answered::Handshake,
                None if !response.status().is_success() => Answered::Other,
                None => extensions.get().map_or(Answered::Taken, |DuplicateOf(first)| Answered::Duplicate(*first)),
            }
        });
        let status = response.map_or(StatusCode::INTERNAL_SERVER_ERROR, Response::status);
        self.tell(&mut draft, received, now, status, &answered);
    }

    fn tell(
        &self,
        draft: &mut Draft,
        mut received: Box<Received>,
        now: Duration,
        status: StatusCode,
        answered: &Answered<'_>,
    ) {
        let way = draft.way;
        received.end_step(answered.step(way), draft.last, now);
        received.status = status;
        received.duration = now;
        received.outcome = answered.outcome(way);
        (received.kind, received.reason) = answered.reason(draft.error.as_ref());
        if draft.is_detached && received.reason.is_none() {
            received.reason = Some(HUNG_UP.into());
        }
        let body = draft.body.take();
        if draft.is_permitted && answered.keeps_contents() {
            if let Some(body) = body {
                received.body = Body::Whole(body.into_bytes());
            }
            for (name, value) in &mut received.headers {
                if draft.guards.iter().any(|guards| guards.read_credential(name)) {
                    *value = HeaderValue::from_static(REDACTED);
                }
            }
        } else {
            received.headers = HeaderMap::new();
        }
        self.history.record(Entry::Received(received));
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        lock(&self.draft)
    }
}

/// Nothing processes the request any more: if it was not answered, its sender has hung up.
impl Drop for Trace {
    fn drop(&mut self) {
        let now = self.began.elapsed();
        let mut draft = self.draft();
        let Some(received) = draft.received.take() else { return };
        let status = StatusCode::from_u16(CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST);
        self.tell(&mut draft, received, now, status, &Answered::Aborted(HUNG_UP));
    }
}

impl Draft {
    fn ended(&mut self, step: &'static str, now: Duration) {
        if let Some(received) = &mut self.received {
            received.end_step(step, self.last, now);
        }
        self.last = now;
    }
}

impl Received {
    fn end_step(&mut self, name: &'static str, at: Duration, now: Duration) {
        self.steps.push(Step { name, at, duration: now.saturating_sub(at) });
    }
}

/// The length of the body that the request announces.
fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
