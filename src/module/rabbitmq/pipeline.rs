//! A channel with many messages on their way at a time.
//!
//! lapin hands a returned message to whichever confirmation it completes next, which may be another message's, and numbers
//! messages correctly only if one task publishes them. So one task publishes all, and looks at all confirmations that are
//! there before it answers any: a message that was returned is told apart by its id. A message for which anything is unusual
//! is published again, alone on a channel, where the server's answer is certainly its own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::{ArcWake, waker_ref};
use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Error, ErrorKind};
use tokio::sync::{mpsc, oneshot};

use super::error;
use super::outgoing::{Address, Outgoing};
use crate::event::{DeliverError, EventId};

/// A channel, and the task that publishes on it.
pub(super) struct Pipeline {
    channel: Channel,
    requests: mpsc::UnboundedSender<Request>,
}

/// How a message ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server has confirmed it, and a queue has it.
    Confirmed,
    Failed(DeliverError),
    /// The server has returned a message, or closed the channel: only another attempt alone on a channel can tell.
    Unclear,
}

/// The session has a limit for the messages on their way, so that the channel needs none.
struct Request {
    message: Outgoing,
    sent: Sent,
}

/// A message on its way: its id and address, and the delivery that waits for it.
struct Sent {
    id: EventId,
    address: Arc<Address>,
    answer: oneshot::Sender<Ended>,
}

impl Pipeline {
    /// Publishes on `channel`, which must be in confirm mode and used by nothing else.
    pub(super) fn new(channel: Channel) -> Self {
        let (requests, incoming) = mpsc::unbounded_channel();
        tokio::spawn(Driver {
            channel: channel.clone(),
            incoming: Some(incoming),
            publish: published,
            pending: FuturesUnordered::new(),
            returned: Vec::new(),
        });
        Self { channel, requests }
    }

    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected() && !self.requests.is_closed()
    }

    /// Publishes a message, whose address is `address`.
    pub(super) async fn publish(&self, message: Outgoing, address: Arc<Address>) -> Ended {
        let (answer, answered) = oneshot::channel();
        let sent = Sent { id: message.id, address, answer };
        match self.requests.send(Request { message, sent }) {
            Ok(()) => answered.await.unwrap_or(Ended::Unclear),
            Err(_) => Ended::Unclear,
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

/// Ends once there is neither a [`Pipeline`] nor a message on its way.
struct Driver<P, F> {
    channel: Channel,
    incoming: Option<mpsc::UnboundedReceiver<Request>>,
    publish: P,
    /// The first poll of each numbers its message and puts it into the queue of the connection.
    pending: FuturesUnordered<F>,
    /// Messages that have come back, and whose own confirmation has not come yet.
    returned: Vec<Returned>,
}

type Outcome = (Sent, Result<Confirmation, Error>);

/// A message that has come back.
struct Returned {
    id: Option<ShortString>,
    exchange: ShortString,
    routing_key: ShortString,
}

impl Returned {
    fn is(&self, sent: &Sent) -> bool {
        let Address { exchange, routing_key } = &*sent.address;
        let is_there = self.exchange == *exchange && self.routing_key == *routing_key;
        is_there && self.id.as_ref().is_some_and(|id| id.as_str() == sent.id.to_string())
    }
}

impl<P, F> Unpin for Driver<P, F> {}

impl<P: Fn(Channel, Request) -> F, F: Future<Output = Outcome>> Future for Driver<P, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.begin(cx);
        let mut outcomes = Vec::new();
        // Until no confirmation is left to look at: then each one that was completed before one of `outcomes` is among them.
        // The set of futures also returns when it has polled many, and then it wakes its task at once.
        let again = Arc::new(Again { is_wanted: AtomicBool::new(false), task: cx.waker().clone() });
        let waker = waker_ref(&again);
        let mut cx = Context::from_waker(&waker);
        loop {
            match this.pending.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(outcome)) => outcomes.push(outcome),
                Poll::Ready(None) => break,
                Poll::Pending if again.is_wanted.swap(false, Ordering::SeqCst) => {}
                Poll::Pending => break,
            }
        }
        answer(outcomes, &mut this.returned);
        match this.incoming.is_none() && this.pending.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Notes that a confirmation must be looked at, and wakes the task.
struct Again {
    is_wanted: AtomicBool,
    task: Waker,
}

impl ArcWake for Again {
    fn wake_by_ref(again: &Arc<Self>) {
        again.is_wanted.store(true, Ordering::SeqCst);
        again.task.wake_by_ref();
    }
}

impl<P: Fn(Channel, Request) -> F, F: Future<Output = Outcome>> Driver<P, F> {
    /// Takes the messages that have come.
    fn begin(&mut self, cx: &mut Context<'_>) {
        while let Some(incoming) = &mut self.incoming {
            match incoming.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.pending.push((self.publish)(self.channel.clone(), request)),
                Poll::Ready(None) => self.incoming = None,
                Poll::Pending => return,
            }
        }
    }
}

async fn published(channel: Channel, Request { message, sent }: Request) -> Outcome {
    let Outgoing { address: Address { exchange, routing_key }, properties, body, .. } = message;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let publishing = channel.basic_publish(exchange, routing_key, options, &body, properties);
    let outcome = match publishing.await {
        Ok(confirmation) => confirmation.await,
        Err(error) => Err(error),
    };
    (sent, outcome)
}

/// Adds what came back to `returned`, and answers the messages.
///
/// A message's own return is there before its confirmation, and each confirmation takes the first return that lapin still
/// holds. So a confirmation without a returned message proves that lapin held none: the message was not returned, or its
/// return came with a confirmation that was completed before, which is in `outcomes` or was in earlier ones.
fn answer(outcomes: Vec<Outcome>, returned: &mut Vec<Returned>) {
    returned.extend(outcomes.iter().filter_map(|(_, outcome)| returned_message(outcome)));
    for (sent, outcome) in outcomes {
        let own = returned.iter().position(|returned| returned.is(&sent));
        if let Some(own) = own {
            returned.swap_remove(own);
        }
        let ended = match outcome {
            Ok(Confirmation::Ack(None)) if own.is_none() => Ended::Confirmed,
            Ok(Confirmation::Nack(None)) if own.is_none() => Ended::Failed(error::rejected()),
            Err(error) if !matches!(error.kind(), ErrorKind::ProtocolError(_)) => {
                Ended::Failed(error::of_connection(&error))
            }
            _ => Ended::Unclear,
        };
        // The delivery may have been given up.
        let _ = sent.answer.send(ended);
    }
}

/// The message that came back with a confirmation, whosever it is.
fn returned_message(outcome: &Result<Confirmation, Error>) -> Option<Returned> {
    match outcome {
        Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) => {
            let Delivery { exchange, routing_key, properties, .. } = &message.delivery;
            let id = properties.message_id().clone();
            Some(Returned { id, exchange: exchange.clone(), routing_key: routing_key.clone() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookInfo, WebhookKey};

    fn id() -> EventId {
        let info = WebhookInfo::new(WebhookKey::new("shop", "orders").unwrap(), DataType::Json);
        crate::event::Delivery::new(info, http::HeaderMap::new(), "").id()
    }

    /// The return of `b` came with a confirmation that was answered before. An item of a chain sent the same event elsewhere.
    #[test]
    fn a_message_whose_return_came_with_another_ones_confirmation_does_not_count_as_confirmed() {
        let address = |key: &str| Arc::new(Address { exchange: "e".into(), routing_key: key.into() });
        let (a, b) = (id(), id());
        let mut returned =
            vec![Returned { id: Some(b.to_string().into()), exchange: "e".into(), routing_key: "k".into() }];
        let sent = [(a, "k"), (b, "other"), (b, "k"), (b, "k")];
        let (outcomes, mut ended): (Vec<_>, Vec<_>) = sent
            .into_iter()
            .map(|(id, key)| {
                let (answer, ended) = oneshot::channel();
                ((Sent { id, address: address(key), answer }, Ok(Confirmation::Ack(None))), ended)
            })
            .unzip();
        answer(outcomes, &mut returned);
        let ended: Vec<_> = ended.iter_mut().map(|ended| ended.try_recv().unwrap()).collect();
        use Ended::{Confirmed, Unclear};
        assert!(matches!(ended[..], [Confirmed, Confirmed, Unclear, Confirmed]), "{ended:?}");
        assert!(returned.is_empty());
    }
}
