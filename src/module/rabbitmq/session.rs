//! One connection to the server, with a channel for each message that is on its way.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::dial::{Dial, Socket};
use super::error;
use crate::base::lock::lock;
use crate::event::DeliverError;

/// The most messages that are on their way at a time.
const MOST: usize = 64;

/// The bytes of messages without an answer after which a connection is given up, and their number. They are in memory for
/// as long as the server does not read them.
const MOST_UNANSWERED_BYTES: usize = 16 << 20;
const MOST_UNANSWERED: usize = MOST;

/// How long a message waits for a server that has blocked the connection.
const BLOCKED: Duration = Duration::from_secs(1);

/// How long the server has for a polite end of the connection.
const FAREWELL: Duration = Duration::from_secs(2);

/// A message to be published.
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    /// Whether the routing key names a queue that is made if it is missing.
    pub(super) declare: bool,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

/// A connection, logged in.
///
/// Each channel has one message on its way. The server returns an unroutable message before it confirms it, and lapin hands
/// a returned message to whichever confirmation it completes next: with several messages on a channel, which the server may
/// confirm together, that could be another one's, and an unroutable message would count as delivered. The server also
/// closes a channel for one wrong message, which must fail no other.
pub(super) struct Session {
    connection: Option<Connection>,
    socket: Option<Socket>,
    idle: Mutex<Vec<Channel>>,
    turns: Semaphore,
    /// The queues that were made, or found, over this connection.
    declared: Mutex<HashSet<ShortString>>,
    news: watch::Sender<News>,
    unanswered: AtomicUsize,
    unanswered_bytes: AtomicUsize,
    is_retired: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct News {
    is_lost: bool,
    /// Why the server reads nothing from the connection: it has too little memory or disk.
    blocked: Option<Arc<str>>,
}

impl Session {
    /// Connects. There is no time limit.
    pub(super) async fn open(dial: &Dial) -> Result<Self, DeliverError> {
        let (connection, socket) = dial.connect().await?;
        let (news, _) = watch::channel(News::default());
        let mut events = Box::pin(connection.events_listener());
        let heard = news.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                heard.send_modify(|news| match event {
                    Event::ConnectionBlocked(reason) => news.blocked = Some(reason.into()),
                    Event::ConnectionUnblocked => news.blocked = None,
                    Event::Error(_) => news.is_lost = true,
                    _ => {}
                });
                if heard.borrow().is_lost {
                    break;
                }
            }
            heard.send_modify(|news| news.is_lost = true);
        });
        Ok(Self {
            connection: Some(connection),
            socket: Some(socket),
            idle: Mutex::default(),
            turns: Semaphore::new(MOST),
            declared: Mutex::default(),
            news,
            unanswered: AtomicUsize::new(0),
            unanswered_bytes: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
        })
    }

    /// Whether further messages may be published over it.
    pub(super) fn is_usable(&self) -> bool {
        let is_connected = self.connection.as_ref().is_some_and(|connection| connection.status().connected());
        is_connected && !self.news.borrow().is_lost && !self.is_retired.load(Ordering::Relaxed)
    }

    /// Publishes a message, and waits until the server has confirmed it. There is no time limit.
    pub(super) async fn publish(&self, message: &Outgoing) -> Result<(), DeliverError> {
        if let Some(reason) = self.blocked_by() {
            return Err(error::blocked(&reason));
        }
        tokio::select! {
            biased;
            outcome = self.publish_unless_blocked(message) => outcome,
            reason = self.blocked() => Err(error::blocked(&reason)),
        }
    }

    async fn publish_unless_blocked(&self, message: &Outgoing) -> Result<(), DeliverError> {
        let _turn = self.turns.acquire().await;
        match self.publish_once(message).await {
            // Somebody has deleted the queue since.
            Err(Failure::Unroutable(_)) if message.declare => {
                lock(&self.declared).remove(&message.routing_key);
                self.publish_once(message).await.map_err(Failure::into_error)
            }
            outcome => outcome.map_err(Failure::into_error),
        }
    }

    async fn publish_once(&self, message: &Outgoing) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let outcome = lease.publish(message).await;
        lease.is_answered = true;
        self.unanswered.store(0, Ordering::Relaxed);
        self.unanswered_bytes.store(0, Ordering::Relaxed);
        outcome
    }

    /// A channel with no message on its way.
    async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let mut lease = Lease { session: self, channel: None, bytes: 0, is_answered: false };
        loop {
            let idle = lock(&self.idle).pop();
            match idle {
                Some(channel) if !channel.status().connected() => {}
                Some(channel) => {
                    lease.channel = Some(channel);
                    return Ok(lease);
                }
                None => break,
            }
        }
        let Some(connection) = &self.connection else { return Err(Failure::Other(error::lost())) };
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        lease.channel = Some(opening.await.map_err(|error| Failure::Other(error::of_connection(&error)))?);
        Ok(lease)
    }

    /// The reason why the server reads nothing now, if it does not.
    fn blocked_by(&self) -> Option<Arc<str>> {
        self.news.borrow().blocked.clone()
    }

    /// Waits until the server has blocked the connection for a while.
    async fn blocked(&self) -> Arc<str> {
        let mut news = self.news.subscribe();
        loop {
            if news.wait_for(|news| news.blocked.is_some()).await.is_err() {
                // Not before the session is dropped.
                std::future::pending::<()>().await;
            }
            let free = timeout(BLOCKED, news.wait_for(|news| news.blocked.is_none())).await.is_ok();
            if let (false, Some(reason)) = (free, self.blocked_by()) {
                return reason;
            }
        }
    }

    /// Counts a message whose delivery was given up before the server has answered.
    fn give_up(&self, bytes: usize) {
        // A blocked connection will be read again.
        if self.blocked_by().is_some() {
            return;
        }
        let count = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.unanswered_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if count >= MOST_UNANSWERED || total >= MOST_UNANSWERED_BYTES {
            self.is_retired.store(true, Ordering::Relaxed);
        }
    }
}

/// A channel for one message. It is used again once the server has answered.
struct Lease<'a> {
    session: &'a Session,
    channel: Option<Channel>,
    /// The length of the message that was published.
    bytes: usize,
    is_answered: bool,
}

impl Lease<'_> {
    async fn publish(&mut self, message: &Outgoing) -> Result<(), Failure> {
        let Some(channel) = self.channel.clone() else { return Err(Failure::Other(error::lost())) };
        let queue = &message.routing_key;
        if message.declare && !lock(&self.session.declared).contains(queue) {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(queue.clone(), options, FieldTable::default()).await;
            declared.map_err(|error| Failure::Other(error::not_declared(&error)))?;
            lock(&self.session.declared).insert(queue.clone());
        }
        self.bytes = message.body.len();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, properties) = (message.exchange.clone(), message.properties.clone());
        let published = channel.basic_publish(exchange, queue.clone(), options, &message.body, properties).await;
        let confirmed = match published {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                Err(Failure::Unroutable(error::returned(returned.reply_code, returned.reply_text.as_str())))
            }
            Ok(Confirmation::Nack(None)) => Err(Failure::Other(error::rejected())),
            Ok(Confirmation::NotRequested) => Err(Failure::Other(error::unconfirmed())),
            Err(error) => Err(Failure::Other(error::not_published(&error))),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        match self.channel.take() {
            Some(channel) if self.is_answered && channel.status().connected() => {
                lock(&self.session.idle).push(channel);
            }
            // Also when the channel was not open yet: the server does not answer. A channel that is dropped is closed.
            _ if !self.is_answered => self.session.give_up(self.bytes),
            _ => {}
        }
    }
}

/// Why a message was not published.
enum Failure {
    /// No queue got it.
    Unroutable(DeliverError),
    Other(DeliverError),
}

impl Failure {
    fn into_error(self) -> DeliverError {
        match self {
            Self::Unroutable(error) | Self::Other(error) => error,
        }
    }
}

/// Says goodbye to the server, if there is a runtime to do it.
impl Drop for Session {
    fn drop(&mut self) {
        let (connection, socket) = (self.connection.take(), self.socket.take());
        let (Some(connection), Ok(runtime)) = (connection, tokio::runtime::Handle::try_current()) else { return };
        lock(&self.idle).clear();
        if connection.status().connected() {
            runtime.spawn(async move {
                let _ = timeout(FAREWELL, connection.close(200, "OK".into())).await;
                drop(socket);
            });
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
