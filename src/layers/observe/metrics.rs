//! Metrics of requests.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{Response, StatusCode};

use crate::base::metrics::{Counter, ENABLED, Histogram, counter, histogram};
use crate::event::DuplicateOf;
use crate::handshake::IsHandshake;
use crate::request::{Rejection, RejectionKind};

/// The metrics of requests. The recorder is asked for each series once, with the first request of its outcome.
#[derive(Clone)]
pub(super) struct Requests(Arc<[OnceLock<Series>; OUTCOMES]>);

impl Default for Requests {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| OnceLock::new())))
    }
}

struct Series {
    total: Counter,
    seconds: Histogram,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// 2xx: the webhook's module, or the application's handler, has taken the event.
    Delivered,
    /// 202: the event is in the queue, and will be delivered.
    Accepted,
    /// 2xx: the event had been taken before.
    Duplicate,
    /// A challenge was answered.
    Handshake,
    Refused(RejectionKind),
    Other,
    /// The sender hung up before the answer.
    Aborted,
}

const OUTCOMES: usize = RejectionKind::COUNT + 6;

impl Outcome {
    pub(super) fn of<B>(answer: &Response<B>) -> Self {
        match answer.extensions().get::<Rejection>() {
            Some(rejection) => Self::Refused(rejection.kind()),
            None if answer.extensions().get::<IsHandshake>().is_some() => Self::Handshake,
            None if !answer.status().is_success() => Self::Other,
            None if answer.extensions().get::<DuplicateOf>().is_some() => Self::Duplicate,
            None if answer.status() == StatusCode::ACCEPTED => Self::Accepted,
            None => Self::Delivered,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Handshake => "handshake",
            Self::Refused(kind) => kind.label(),
            Self::Other => "other",
            Self::Aborted => "aborted",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Refused(kind) => kind as usize,
            Self::Delivered => RejectionKind::COUNT,
            Self::Accepted => RejectionKind::COUNT + 1,
            Self::Duplicate => RejectionKind::COUNT + 2,
            Self::Other => RejectionKind::COUNT + 3,
            Self::Aborted => RejectionKind::COUNT + 4,
            Self::Handshake => RejectionKind::COUNT + 5,
        }
    }
}

impl Requests {
    fn record(&self, started: Instant, outcome: Outcome) {
        let series = self.0[outcome.index()].get_or_init(|| Series {
            total: counter!("tower_webhook_requests_total", "outcome" => outcome.label()),
            seconds: histogram!("tower_webhook_request_seconds", "outcome" => outcome.label()),
        });
        series.total.increment(1);
        series.seconds.record(started.elapsed());
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Measures one request. Dropped before it is stopped, it counts an aborted request.
#[derive(Debug)]
pub(super) struct Timer {
    requests: Option<Requests>,
    started: Option<Instant>,
}

impl Timer {
    pub(super) fn start(requests: &Requests) -> Self {
        Self { requests: ENABLED.then(|| requests.clone()), started: ENABLED.then(Instant::now) }
    }

    pub(super) fn stop<B>(&mut self, answer: &Response<B>) {
        self.record(Outcome::of(answer));
    }

    fn record(&mut self, outcome: Outcome) {
        if let (Some(requests), Some(started)) = (self.requests.take(), self.started) {
            requests.record(started, outcome);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.record(Outcome::Aborted);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::event::DUPLICATE;

    #[test]
    fn a_handlers_own_header_makes_no_duplicate() {
        let mut answer = Response::new(());
        answer.headers_mut().insert(DUPLICATE, HeaderValue::from_static("true"));
        assert_eq!(Outcome::of(&answer).label(), "delivered");
        answer.extensions_mut().insert(DuplicateOf(None));
        assert_eq!(Outcome::of(&answer).label(), "duplicate");
    }
}
