//! Sessions with a NATS cluster, and publishing over them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, Message, PublishErrorKind, Request, RequestErrorKind, ServerAddr,
    ServerError,
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::config::Login;
use super::error;
use crate::egress::{ClientTls, Egress};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server};

/// The time limit for a session with one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for an attempt at all servers.
const DIAL_TIMEOUT: Duration = Duration::from_secs(9);

/// A server that is silent for three times as long is given up.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// The most events that wait to be written to the connection.
const QUEUE: usize = 64;

/// How often the state of the connection is looked at, in case the client dropped an event about it.
const LOOK: Duration = Duration::from_secs(1);

/// The client keeps some bytes for each request that was never answered, for as long as it lives. After this many it is
/// replaced.
const MOST_UNANSWERED: usize = 10_000;

/// The most refusals that are remembered: fewer than the client keeps for us, which is 128.
const MOST_REFUSALS: usize = 100;

/// A refusal reaches us by another task of the client than the answer to a later request. It has this much time.
const REFUSAL_DELAY: Duration = Duration::from_millis(5);

/// The time limit for the question whether a stream has a subject.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How sessions are made.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) egress: Egress,
    pub(super) servers: Vec<Server>,
    pub(super) login: Login,
    pub(super) tls: Arc<ClientTls>,
    pub(super) is_tls: bool,
    pub(super) tls_first: bool,
    pub(super) inbox_prefix: Option<String>,
}

/// A session. Clones share it.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    client: Client,
    news: watch::Sender<News>,
    unanswered: AtomicUsize,
}

/// The server's news about the session.
#[derive(Default)]
struct News {
    /// The connection is lost, and with it the answers that are due.
    is_lost: bool,
    /// The server is about to stop, or the client must be replaced: answers still come.
    is_retired: bool,
    /// The user may not subscribe, so no answer can arrive.
    is_deaf: bool,
    /// The number of refusals so far.
    refused: u64,
    /// The subjects of the last refusals, with their numbers.
    refusals: VecDeque<(u64, Box<str>)>,
}

#[derive(Debug, PartialEq)]
enum Refusal {
    /// The user may not publish to this subject.
    Publish(Box<str>),
    /// The user may not subscribe, so no answer arrives.
    Subscribe,
}

impl Dial for Dialer {
    type Session = Session;

    async fn dial(&self) -> Result<Session, DeliverError> {
        let late =
            |_| DeliverError::new(DeliverErrorKind::Timeout, format!("no server answered within {DIAL_TIMEOUT:?}"));
        timeout(DIAL_TIMEOUT, self.dial_any()).await.map_err(late)?
    }

    async fn ended(session: &Session) {
        let Inner { client, news, .. } = &*session.0;
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
}

impl Dialer {
    /// Tries the servers in a random order, so that gateways spread over a cluster.
    async fn dial_any(&self) -> Result<Session, DeliverError> {
        let options = self.options().await?;
        let mut servers: Vec<_> = self.servers.iter().collect();
        fastrand::shuffle(&mut servers);
        let mut last = None;
        for server in servers {
            match self.dial_one(server, &options).await {
                Err(error) if error.kind() != DeliverErrorKind::Auth => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| DeliverError::new(DeliverErrorKind::Config, "the connection has no server")))
    }

    async fn dial_one(
        &self,
        server: &Server,
        options: &(impl Fn() -> Result<ConnectOptions, DeliverError> + Sync),
    ) -> Result<Session, DeliverError> {
        let addresses = self.egress.addresses(&server.host, server.port).await;
        let addresses = addresses.map_err(|error| error::unreachable(server, &error))?;
        // The client takes no stream of ours, and looks names up by itself. So it gets the address that was checked. With
        // TLS it must get the name, which is sent to the server: it is looked up once more, and a server is accepted only with a
        // valid certificate for this name.
        let targets: Vec<String> = match self.is_tls && server.literal().is_none() {
            true => vec![format!("tls://{server}")],
            false => addresses.iter().map(|address| format!("nats://{address}")).collect(),
        };
        let mut last = None;
        for target in targets {
            let target: ServerAddr = target.parse().map_err(|_| {
                DeliverError::new(DeliverErrorKind::Config, format!("{server}: not an address for NATS"))
            })?;
            match self.connect(target, options()?).await {
                Ok(session) => return Ok(session),
                Err(error) => last = Some(error::not_connected(server, &error, self.is_tls)),
            }
        }
        Err(last
            .unwrap_or_else(|| DeliverError::new(DeliverErrorKind::Connect, format!("{server}: it has no address"))))
    }

    async fn connect(&self, target: ServerAddr, options: ConnectOptions) -> Result<Session, async_nats::ConnectError> {
        let (news, _) = watch::channel(News::default());
        let told = news.clone();
        let options = options.event_callback(move |event| {
            told.send_modify(|news| news.hear(event));
            async {}
        });
        let client = options.connect(target).await?;
        Ok(Session(Arc::new(Inner { client, news, unanswered: AtomicUsize::new(0) })))
    }

    /// Makes the options of a client, as often as it is called.
    async fn options(&self) -> Result<impl Fn() -> Result<ConnectOptions, DeliverError> + Sync, DeliverError> {
        let failed = |text: String| DeliverError::new(DeliverErrorKind::Config, text);
        let tls = self.tls.config().await.map_err(|error| failed(format!("TLS: {error}")))?;
        let creds = match &self.login {
            Login::Creds(text) => Some(text.clone()),
            Login::CredsFile(path) => {
                let read = tokio::task::spawn_blocking({
                    let path = path.clone();
                    move || std::fs::read_to_string(path)
                });
                let read = read.await.map_err(|_| failed("`creds_file` was not read".to_owned()))?;
                Some(read.map_err(|error| failed(format!("`creds_file` cannot be read: {error}")))?)
            }
            _ => None,
        };
        Ok(move || {
            let options = ConnectOptions::new()
                .name("tower-webhook")
                .no_echo()
                .connection_timeout(CONNECT_TIMEOUT)
                .ping_interval(PING_INTERVAL)
                .client_capacity(QUEUE)
                .request_timeout(None)
                // The addresses that a server names are not checked.
                .ignore_discovered_servers()
                // The client reconnects at most once, to the address that it has. Then it ends, and the next session is
                // made here, with a check.
                .max_reconnects(1)
                .require_tls(self.is_tls)
                // Without it the client would make a configuration of its own as soon as the server asks for TLS.
                .tls_client_config((*tls).clone());
            let options = if self.tls_first { options.tls_first() } else { options };
            let options = match &self.inbox_prefix {
                Some(prefix) => options.custom_inbox_prefix(prefix),
                None => options,
            };
            Ok(match (&self.login, &creds) {
                (Login::User(user, password), _) => options.user_and_password(user.clone(), password.clone()),
                (Login::Token(token), _) => options.token(token.clone()),
                (_, Some(creds)) => options.credentials(creds).map_err(|_| {
                    DeliverError::new(DeliverErrorKind::Config, "the credentials file has no user JWT and seed")
                })?,
                _ => options,
            })
        })
    }
}

impl News {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.is_lost = true,
            Event::LameDuckMode => self.is_retired = true,
            Event::ServerError(ServerError::Other(text)) => match Refusal::parse(&text) {
                Some(Refusal::Publish(subject)) => {
                    self.refused += 1;
                    self.refusals.push_back((self.refused, subject));
                    if self.refusals.len() > MOST_REFUSALS {
                        self.refusals.pop_front();
                    }
                }
                // The client subscribes once, with its first request.
                Some(Refusal::Subscribe) => self.is_deaf = true,
                None => {}
            },
            _ => {}
        }
    }

    /// Whether the server has refused to take something for `subject` after refusal number `since`.
    fn refuses(&self, subject: &str, since: u64) -> bool {
        self.refusals.iter().any(|(number, refused)| *number > since && &**refused == subject)
    }

    /// Whether the refusal of a message may have been forgotten since.
    fn has_forgotten(&self, since: u64) -> bool {
        self.refused - since >= MOST_REFUSALS as u64
    }
}

impl Refusal {
    /// Reads `Permissions Violation for Publish to "subject"` and its counterpart for a subscription.
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if !lower.starts_with("permissions violation for ") {
            return None;
        }
        if lower.starts_with("permissions violation for subscription") {
            return Some(Self::Subscribe);
        }
        let subject = text.split('"').nth(1)?;
        Some(Self::Publish(subject.into()))
    }
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
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<(), DeliverError> {
        let Outgoing { subject, headers, body } = outgoing;
        let client = &self.0.client;
        let mut watched = self.0.news.subscribe();
        let since = watched.borrow().refused;
        let published = tokio::select! {
            biased;
            published = client.publish_with_headers(subject.clone(), headers, body) => published,
            _ = watched.wait_for(|news| news.is_lost) => return Err(lost()),
        };
        published.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => too_large(client),
            PublishErrorKind::InvalidSubject => invalid_subject(),
            PublishErrorKind::Send => lost(),
        })?;
        // A server works through the messages of a connection in order. So its answer to a later request, which nobody
        // listens to, means that it has read the message. Where the user may not send that request, the refusal is the
        // answer.
        let probe = client.new_inbox();
        let asked = self.ask(&probe, &subject, Request::new().timeout(None));
        tokio::select! {
            biased;
            answer = asked => { answer?; }
            _ = watched.wait_for(|news| news.refuses(&probe, 0)) => {}
        }
        sleep(REFUSAL_DELAY).await;
        let news = self.0.news.borrow();
        match news.refuses(&subject, since) || news.has_forgotten(since) {
            true => Err(refused()),
            false => Ok(()),
        }
    }

    /// Sends a request to `to`. Fails as soon as the connection is lost, or the server refuses `subject`.
    async fn ask(&self, to: &str, subject: &str, request: Request) -> Result<Answer, DeliverError> {
        let Inner { client, news, unanswered } = &*self.0;
        let mut watched = news.subscribe();
        let since = watched.borrow().refused;
        let mut pending = Pending { unanswered, news, is_answered: false };
        let interrupted = watched.wait_for(|news| news.is_lost || news.is_deaf || news.refuses(subject, since));
        let answer = tokio::select! {
            biased;
            answer = client.send_request(to.to_owned(), request) => answer,
            news = interrupted => {
                return Err(match news {
                    Ok(news) if !news.is_lost && news.is_deaf => deaf(),
                    Ok(news) if !news.is_lost => refused(),
                    _ => lost(),
                });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_the_servers_words() {
        for (text, expected) in [
            ("Permissions Violation for Publish to \"a.b\"", Some(Refusal::Publish("a.b".into()))),
            ("Permissions Violation for Publish with Reply of \"_INBOX.x\"", Some(Refusal::Publish("_INBOX.x".into()))),
            ("Permissions Violation for Subscription to \"_INBOX.x.*\"", Some(Refusal::Subscribe)),
            ("Permissions Violation for Publish", None),
            ("Stale Connection", None),
        ] {
            assert_eq!(Refusal::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn only_later_refusals_of_the_same_subject_count_and_few_are_kept() {
        let mut news = News::default();
        let hear = |news: &mut News, subject: &str| {
            let text = format!("Permissions Violation for Publish to \"{subject}\"");
            news.hear(Event::ServerError(ServerError::Other(text)));
        };
        hear(&mut news, "a");
        assert!(news.refuses("a", 0) && !news.refuses("a", 1) && !news.refuses("b", 0) && !news.is_deaf);
        for _ in 0..1000 {
            hear(&mut news, "b");
        }
        assert!(!news.refuses("a", 0) && news.refuses("b", 1000) && news.refusals.len() == MOST_REFUSALS);
        assert!(news.has_forgotten(0) && news.has_forgotten(901) && !news.has_forgotten(902));
        news.hear(Event::ServerError(ServerError::Other("Permissions Violation for Subscription to \"x\"".into())));
        assert!(news.is_deaf);
        news.hear(Event::LameDuckMode);
        assert!(news.is_retired && !news.is_lost);
        news.hear(Event::Disconnected);
        assert!(news.is_lost);
    }
}
