//! Events as they happen, as server-sent events: a stream that a page reads with `fetch` and an `Authorization` header.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::HeaderValue;
use serde_json::json;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::answer::{Answer, Problem, of};
use super::body::AdminBody;
use super::state::{Ask, Door, State};
use super::tokens::{AdminToken, Operator};
use super::views::{progress, row};
use crate::history::News;

/// How often a comment is sent, so that a connection that is gone is noticed.
const TICK: Duration = Duration::from_secs(10);

/// The most events in one piece of the answer.
const BATCH: usize = 64;

pub(super) fn open(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let news = ask.history()?.live();
    let Ok(place) = Arc::clone(&ask.state.streams).try_acquire_owned() else {
        return Err(Problem::busy("too many streams of events are being read; end one of them, and try again"));
    };
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let tokens = match &ask.state.door {
        Door::Tokens(tokens) => Some(tokens.changes()),
        Door::Open | Door::Closed(_) => None,
    };
    let live = Live {
        news,
        operator: ask.operator.clone(),
        state: Arc::clone(ask.state),
        tokens,
        ticks,
        has_begun: false,
        _place: place,
    };
    let mut answer = of(StatusCode::OK, HeaderValue::from_static("text/event-stream"), Bytes::new());
    *answer.body_mut() = AdminBody::live(stream::unfold(live, Live::next));
    Ok(answer)
}

/// A stream that is being read.
struct Live {
    news: broadcast::Receiver<Arc<News>>,
    operator: Operator,
    state: Arc<State>,
    tokens: Option<watch::Receiver<Arc<[AdminToken]>>>,
    ticks: Interval,
    has_begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// The next piece; `None` at the end of the stream.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if !self.has_begun {
            self.has_begun = true;
            return Some((Bytes::from_static(b": live\n\n"), self));
        }
        loop {
            let first = tokio::select! {
                // A token that was taken away must not see more.
                () = changed(&mut self.tokens) => return None,
                () = self.state.stop.clone() => return None,
                _ = self.ticks.tick() => return Some((Bytes::from_static(b": tick\n\n"), self)),
                received = self.news.recv() => received,
            };
            let mut text = String::new();
            match first {
                Ok(news) => self.write(&news, &mut text),
                Err(RecvError::Lagged(count)) => self.missed(count, &mut text),
                Err(RecvError::Closed) => return None,
            }
            for _ in 1..BATCH {
                match self.news.try_recv() {
                    Ok(news) => self.write(&news, &mut text),
                    Err(TryRecvError::Lagged(count)) => self.missed(count, &mut text),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if !text.is_empty() {
                return Some((text.into(), self));
            }
        }
    }

    fn write(&self, news: &News, text: &mut String) {
        if !self.operator.sees(news.webhook().namespace()) {
            return;
        }
        let (name, data) = match news {
            News::Received(received) => ("event", row(received)),
            News::Tried(tried) => ("attempt", progress(tried)),
        };
        text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    }

    /// How many were missed is told only to an operator who sees every namespace: it counts the events of all.
    fn missed(&self, count: u64, text: &mut String) {
        let count = self.operator.sees_all().then_some(count);
        text.push_str(&format!("event: missed\ndata: {}\n\n", json!({"count": count})));
    }
}

async fn changed(tokens: &mut Option<watch::Receiver<Arc<[AdminToken]>>>) {
    match tokens {
        // An error says that the tokens are gone: that is a change too.
        Some(tokens) => drop(tokens.changed().await),
        None => std::future::pending().await,
    }
}
