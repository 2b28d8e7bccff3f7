//! One connection to the server, with a channel that messages share, and channels for one message each.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, Event};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::dial::{Dial, Socket};
use super::error;
use super::outgoing::{Address, Outgoing};
use super::pipeline::{Ended, Pipeline};
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

/// The longest body of a message that shares a channel, in bytes: a server may refuse longer ones and close the channel.
const MAX_SHARED: usize = 64 << 10;

/// The most addresses that are remembered.
const MOST_PROVEN: usize = 1024;

/// A connection, logged in.
///
/// The server closes a channel for one wrong message, and returns those that no queue gets. So a message is alone on its
/// channel until one to the same exchange and routing key was confirmed; after that, messages share a channel, which
/// [`Pipeline`] describes. What goes wrong there is done again, alone on a channel.
pub(super) struct Session {
    connection: Option<Connection>,
    socket: Option<Socket>,
    idle: Mutex<Vec<Channel>>,
    shared: Mutex<Option<Arc<Pipeline>>>,
    /// One permit, held by the delivery that makes the shared channel.
    making: Semaphore,
    /// The addresses to which a message was confirmed, and none failed since.
    proven: Mutex<HashSet<Arc<Address>>>,
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
            shared: Mutex::default(),
            making: Semaphore::new(1),
            proven: Mutex::default(),
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

    /// Publishes a message, and waits until the server has confirmed it. There is no time limit. `again` makes the same
    /// message once more.
    pub(super) async fn publish(
        &self,
        message: Outgoing,
        again: impl Fn() -> Result<Outgoing, DeliverError>,
    ) -> Result<(), DeliverError> {
        if let Some(reason) = self.blocked_by() {
            return Err(error::blocked(&reason));
        }
        tokio::select! {
            biased;
            outcome = self.publish_unless_blocked(message, again) => outcome,
            reason = self.blocked() => Err(error::blocked(&reason)),
        }
    }

    async fn publish_unless_blocked(
        &self,
        mut message: Outgoing,
        again: impl Fn() -> Result<Outgoing, DeliverError>,
    ) -> Result<(), DeliverError> {
        let _turn = self.turns.acquire().await;
        if let Some(address) = self.proven(&message) {
            let mut wait = Wait { session: self, bytes: message.body.len(), is_answered: false };
            let pipeline = self.pipeline().await.map_err(Failure::into_error)?;
            let ended = pipeline.publish(message, Arc::clone(&address)).await;
            wait.answered();
            match ended {
                Ended::Confirmed => return Ok(()),
                Ended::Failed(error) => return Err(error),
                Ended::Unclear => drop(lock(&self.proven).remove(&address)),
            }
            message = again()?;
        }
        let outcome = match self.publish_alone(&message).await {
            // Somebody has deleted the queue since.
            Err(Failure::Unroutable(_)) if message.declare => {
                lock(&self.declared).remove(&message.address.routing_key);
                self.publish_alone(&message).await
            }
            outcome => outcome,
        };
        outcome.map_err(Failure::into_error)?;
        let mut proven = lock(&self.proven);
        if proven.len() >= MOST_PROVEN {
            proven.clear();
        }
        proven.insert(Arc::new(message.address));
        Ok(())
    }

    /// The message's address, if the message may share a channel.
    fn proven(&self, message: &Outgoing) -> Option<Arc<Address>> {
        match message.body.len() <= MAX_SHARED {
            true => lock(&self.proven).get(&message.address).cloned(),
            false => None,
        }
    }

    /// The shared channel. The first message that needs it makes it.
    async fn pipeline(&self) -> Result<Arc<Pipeline>, Failure> {
        let open = || lock(&self.shared).clone().filter(|pipeline| pipeline.is_open());
        if let Some(pipeline) = open() {
            return Ok(pipeline);
        }
        let _making = self.making.acquire().await;
        if let Some(pipeline) = open() {
            return Ok(pipeline);
        }
        let pipeline = Arc::new(Pipeline::new(self.new_channel().await?));
        *lock(&self.shared) = Some(Arc::clone(&pipeline));
        Ok(pipeline)
    }

    async fn publish_alone(&self, message: &Outgoing) -> Result<(), Failure> {
        let mut wait = Wait { session: self, bytes: message.body.len(), is_answered: false };
        let mut lease = self.lease().await?;
        let outcome = lease.publish(message).await;
        lease.is_answered = true;
        wait.answered();
        outcome
    }

    /// A channel with no message on its way.
    async fn lease(&self) -> Result<Lease<'_>, Failure> {
        loop {
            let idle = lock(&self.idle).pop();
            match idle {
                Some(channel) if !channel.status().connected() => {}
                Some(channel) => return Ok(Lease { session: self, channel, is_answered: false }),
                None => break,
            }
        }
        Ok(Lease { session: self, channel: self.new_channel().await?, is_answered: false })
    }

    async fn new_channel(&self) -> Result<Channel, Failure> {
        let Some(connection) = &self.connection else { return Err(Failure::Other(error::lost())) };
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        opening.await.map_err(|error| Failure::Other(error::of_connection(&error)))
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
    channel: Channel,
    is_answered: bool,
}

impl Lease<'_> {
    async fn publish(&self, message: &Outgoing) -> Result<(), Failure> {
        let channel = &self.channel;
        let Address { exchange, routing_key: queue } = &message.address;
        if message.declare && !lock(&self.session.declared).contains(queue) {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(queue.clone(), options, FieldTable::default()).await;
            declared.map_err(|error| Failure::Other(error::not_declared(&error)))?;
            lock(&self.session.declared).insert(queue.clone());
        }
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, queue, properties) = (exchange.clone(), queue.clone(), message.properties.clone());
        let published = channel.basic_publish(exchange, queue, options, &message.body, properties).await;
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

/// A channel whose message was not answered is closed by lapin when the last handle is dropped.
impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_answered && self.channel.status().connected() {
            lock(&self.session.idle).push(self.channel.clone());
        }
    }
}

/// A message that waits for the server's answer. If it is dropped before that, the session counts it.
struct Wait<'a> {
    session: &'a Session,
    bytes: usize,
    is_answered: bool,
}

impl Wait<'_> {
    fn answered(&mut self) {
        self.is_answered = true;
        self.session.unanswered.store(0, Ordering::Relaxed);
        self.session.unanswered_bytes.store(0, Ordering::Relaxed);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.session.give_up(self.bytes);
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
        *lock(&self.shared) = None;
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
