//! A session with a NATS cluster, and publishing over it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::{Client, HeaderMap, Message, PublishErrorKind, Request, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::error;
use super::news::News;
use crate::event::{DeliverError, DeliverErrorKind};

/// How often the state of the connection is looked at, in case the client dropped an event about it.
const LOOK: Duration = Duration::from_secs(1);

/// The client keeps some bytes for each request that was never answered, for as long as it lives. After this many it is
/// replaced.
const MOST_UNANSWERED: usize = 10_000;

/// A refusal reaches us by another task of the client than the answer to a later request. The first one for a subject has
/// this much time.
const REFUSAL_DELAY: Duration = Duration::from_millis(20);

/// How often a delivery to a proven subject lets other tasks run before it looks for a refusal.
const YIELDS: usize = 2;

/// The time limit for the question whether a stream has a subject.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// A session. Clones share it.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    client: Client,
    news: watch::Sender<News>,
    unanswered: AtomicUsize,
}

/// A message to publish.
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The answer of JetStream.
#[derive(Deserialize)]
struct Stored {
    stream: Option<String>,
    seq: Option<u64>,
    error: Option<async_nats::jetstream::Error>,
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

impl Session {
    /// `news` hears the events of the client.
    pub(super) fn new(client: Client, news: watch::Sender<News>) -> Self {
        Self(Arc::new(Inner { client, news, unanswered: AtomicUsize::new(0) }))
    }

    /// Waits until the session takes no more deliveries.
    pub(super) async fn ended(&self) {
        let Inner { client, news, .. } = &*self.0;
        let mut watched = news.subscribe();
        loop {
            tokio::select! {
                _ = watched.wait_for(|news| news.is_lost || news.is_retired) => return,
                () = sleep(LOOK) => if client.connection_state() != ConnectionState::Connected {
                    news.send_modify(|news| news.is_lost = true);
                },
            }
        }
    }

    /// Publishes a message, and waits until a stream has stored it.
    pub(super) async fn store(&self, outgoing: Outgoing) -> Result<(), DeliverError> {
        let Outgoing { subject, headers, body } = outgoing;
        let request = Request::new().headers(headers).payload(body).timeout(None);
        let answer = match self.ask(&subject, &subject, request).await? {
            Answer::Message(answer) => answer,
            Answer::NoResponders => return Err(self.no_stream(&subject).await),
        };
        let no_stream = || {
            let text = "another program than a stream answered: it subscribes to the same subject, and the event may not be stored";
            DeliverError::new(DeliverErrorKind::Config, text)
        };
        let stored: Stored = serde_json::from_slice(&answer.payload).map_err(|_| no_stream())?;
        match stored {
            Stored { error: Some(error), .. } => Err(error::not_stored(&error)),
            Stored { stream: Some(_), seq: Some(_), .. } => Ok(()),
            _ => Err(no_stream()),
        }
    }

    /// Publishes a message, and waits until the server has read it.
    ///
    /// The first messages to a subject also wait for a refusal. After that the subject is proven, until a refusal is heard:
    /// permissions rarely change while a session lasts.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<(), DeliverError> {
        let Outgoing { subject, headers, body } = outgoing;
        let Inner { client, news, .. } = &*self.0;
        let (since, is_proven) = {
            let news = news.borrow();
            (news.refused, news.is_proven(&subject))
        };
        let published = tokio::select! {
            biased;
            published = client.publish_with_headers(subject.clone(), headers, body) => published,
            () = async { drop(news.subscribe().wait_for(|news| news.is_lost).await) } => return Err(lost()),
        };
        published.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => too_large(client),
            PublishErrorKind::InvalidSubject => invalid_subject(),
            PublishErrorKind::Send => lost(),
        })?;
        // A server works through the messages of a connection in order. So its answer to a later request, which nobody
        // listens to, means that it has read the message.
        self.ask(&client.new_inbox(), &subject, Request::new().timeout(None)).await?;
        match is_proven {
            true => {
                for _ in 0..YIELDS {
                    yield_now().await;
                }
            }
            false => sleep(REFUSAL_DELAY).await,
        }
        {
            let news = news.borrow();
            if news.refuses(&subject, since) || news.has_forgotten(since) {
                return Err(refused());
            }
        }
        if !is_proven {
            news.send_if_modified(|news| {
                news.prove(&subject, since);
                false
            });
        }
        Ok(())
    }

    /// Sends a request to `to`. Fails as soon as the connection is lost, or the server refuses `subject`. If the user may not
    /// send this request, nobody answers it.
    async fn ask(&self, to: &str, subject: &str, request: Request) -> Result<Answer, DeliverError> {
        let Inner { client, news, unanswered } = &*self.0;
        let mut watched = news.subscribe();
        let since = watched.borrow().refused;
        let mut pending = Pending { unanswered, news, is_answered: false };
        let interrupted = watched
            .wait_for(|news| news.is_lost || news.is_deaf || news.refuses(subject, since) || news.refuses(to, since));
        let answer = tokio::select! {
            biased;
            answer = client.send_request(to.to_owned(), request) => answer,
            news = interrupted => {
                return match news {
                    Ok(news) if news.is_lost => Err(lost()),
                    Ok(news) if news.is_deaf => Err(deaf()),
                    Ok(news) if news.refuses(subject, since) => Err(refused()),
                    Ok(_) => Ok(Answer::NoResponders),
                    Err(_) => Err(lost()),
                };
            }
        };
        pending.is_answered = true;
        match answer {
            Ok(answer) => Ok(Answer::Message(answer)),
            Err(error) => match error.kind() {
                RequestErrorKind::NoResponders => Ok(Answer::NoResponders),
                RequestErrorKind::MaxPayloadExceeded => Err(too_large(client)),
                RequestErrorKind::InvalidSubject => Err(invalid_subject()),
                RequestErrorKind::TimedOut | RequestErrorKind::Other => Err(lost()),
            },
        }
    }

    /// The reason why nothing answers for the subject: no stream has it, or its stream has no leader now.
    async fn no_stream(&self, subject: &str) -> DeliverError {
        let question = serde_json::json!({ "subject": subject }).to_string();
        let request = Request::new().payload(question.into()).timeout(None);
        let names = "$JS.API.STREAM.NAMES";
        let answer = timeout(LOOKUP_TIMEOUT, self.ask(names, names, request)).await;
        let (kind, text) = match answer {
            Ok(Ok(Answer::NoResponders)) => (
                DeliverErrorKind::Config,
                "the server has no JetStream, or this user has none: turn it on, or set `\"jetstream\": false`",
            ),
            Ok(Ok(Answer::Message(answer))) => match serde_json::from_slice::<Names>(&answer.payload) {
                Ok(Names { streams }) if streams.as_ref().is_none_or(Vec::is_empty) => (
                    DeliverErrorKind::Config,
                    "no stream has this subject: make a stream that has it, or correct `subject`",
                ),
                _ => (DeliverErrorKind::Unavailable, "the stream of this subject has no leader now"),
            },
            _ => (
                DeliverErrorKind::Unavailable,
                "no stream answers for this subject: it has no leader now, or there is none",
            ),
        };
        DeliverError::new(kind, text)
    }
}

enum Answer {
    Message(Message),
    /// Nobody listens to the subject.
    NoResponders,
}

/// A request on its way. Counts as unanswered if it is dropped before its answer.
struct Pending<'a> {
    unanswered: &'a AtomicUsize,
    news: &'a watch::Sender<News>,
    is_answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.unanswered.fetch_add(1, Ordering::Relaxed) == MOST_UNANSWERED {
            self.news.send_modify(|news| news.is_retired = true);
        }
    }
}

fn lost() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Connect, "the connection was lost before the answer")
}

fn refused() -> DeliverError {
    DeliverError::new(
        DeliverErrorKind::Config,
        "the connection's user may not publish to this subject: give it the permission",
    )
}

fn deaf() -> DeliverError {
    let text = "the connection's user may not subscribe to its inbox, so no answer arrives: allow `_INBOX.>`, or set \
                `inbox_prefix` of the connection";
    DeliverError::new(DeliverErrorKind::Config, text)
}

fn too_large(client: &Client) -> DeliverError {
    let text = format!("the event is larger than the server's `max_payload` of {} bytes", client.max_payload());
    DeliverError::new(DeliverErrorKind::Permanent, text)
}

fn invalid_subject() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Permanent, "the event's subject is not valid")
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
