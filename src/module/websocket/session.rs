//! An open connection that messages share.
//!
//! The protocol acknowledges no message. But whoever reads a ping answers it with a pong that has the same content, and
//! frames are read in order: so a ping follows each message, and the pong with its number means that the target's
//! implementation of the protocol has read the message. A target may answer only the last of several pings (RFC 6455
//! §5.5.3), so a pong counts for all messages before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::error;
use crate::base::lock::lock;
use crate::event::DeliverError;

/// The most messages that are on their way at a time over one connection.
const MOST: usize = 64;

/// The room for messages on their way, in KiB. A larger message takes all of it.
const ROOM: u32 = 16 << 10;

/// How often an idle target is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(5);

/// A session is given up when its target has sent nothing for this long.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the target has for a polite end.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long the reason of a target is waited for after a message could not be written.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The proof that a message was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The pong for the ping behind it.
    Pong,
    /// The next message of the target. One message is on its way at a time.
    Response,
}

/// An open connection. It does not reconnect. Clones share it; after the last one is dropped, it is closed.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    outgoing: UnboundedSender<Outgoing>,
}

/// The state that deliveries and the task below share.
struct Shared {
    /// Host and port.
    host: Arc<str>,
    proof: Proof,
    /// A permit for each message on its way, so that the queue needs no bound.
    turns: Arc<Semaphore>,
    /// A permit for each KiB of the messages on their way.
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    end: watch::Sender<Option<DeliverError>>,
    /// Asks the task to end.
    given_up: Semaphore,
}

#[derive(Default)]
struct Waiting {
    /// The messages on their way, with the numbers of their pings.
    messages: VecDeque<(u64, Written)>,
    /// The number of the last ping.
    last: u64,
}

/// A message that was written, and what it holds until it is answered.
struct Written {
    answer: oneshot::Sender<()>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

struct Outgoing {
    message: Message,
    written: Written,
}

impl Session {
    /// Begins to carry messages over `stream`.
    pub(super) fn begin<S>(host: Arc<str>, proof: Proof, stream: WebSocketStream<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let most = if proof == Proof::Pong { MOST } else { 1 };
        let shared = Arc::new(Shared {
            host,
            proof,
            turns: Arc::new(Semaphore::new(most)),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            waiting: Mutex::default(),
            end: watch::Sender::new(None),
            given_up: Semaphore::new(0),
        });
        let (outgoing, queue) = unbounded_channel();
        tokio::spawn(
            Carrier { shared: Arc::clone(&shared), heard: AtomicU64::new(0), began: Instant::now() }.run(stream, queue),
        );
        Self(Arc::new(Inner { shared, outgoing }))
    }

    /// Sends a message, and waits for its [`Proof`]. There is no time limit.
    ///
    /// # Errors
    ///
    /// When the connection ends before.
    pub(super) async fn send(&self, message: Message) -> Result<(), DeliverError> {
        let Inner { shared, outgoing } = &*self.0;
        let lost = |_: AcquireError| shared.lost();
        let kib = u32::try_from(message.len() >> 10).unwrap_or(ROOM).saturating_add(1).min(ROOM);
        let room = Arc::clone(&shared.room).acquire_many_owned(kib).await.map_err(lost)?;
        let turn = Arc::clone(&shared.turns).acquire_owned().await.map_err(lost)?;
        let (answer, answered) = oneshot::channel();
        // If the task has ended, the answer is dropped with the message.
        drop(outgoing.send(Outgoing { message, written: Written { answer, _permits: (turn, room) } }));
        answered.await.map_err(|_| shared.lost())
    }

    /// Ends the connection: what arrives from now on belongs to no message.
    pub(super) fn give_up(&self) {
        self.0.shared.given_up.add_permits(1);
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&self) {
        let mut end = self.0.shared.end.subscribe();
        // An error would mean that nobody is left to end it.
        let _ = end.wait_for(Option::is_some).await;
    }
}

impl Shared {
    /// Why the connection has ended.
    fn lost(&self) -> DeliverError {
        let cause = self.end.borrow().clone();
        cause.unwrap_or_else(|| error::lost(&self.host, "it ends"))
    }

    fn finish(&self, cause: DeliverError) {
        self.end.send_replace(Some(cause));
        self.turns.close();
        self.room.close();
        lock(&self.waiting).messages.clear();
    }
}

/// Carries messages, until the connection breaks or the session is dropped.
struct Carrier {
    shared: Arc<Shared>,
    /// When the target said something, in milliseconds since the beginning.
    heard: AtomicU64,
    began: Instant,
}

impl Carrier {
    async fn run<S>(self, stream: WebSocketStream<S>, mut queue: UnboundedReceiver<Outgoing>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sink, stream) = stream.split();
        let cause = tokio::select! {
            cause = self.read(stream) => cause,
            cause = self.write(&mut sink, &mut queue) => cause,
            cause = self.watch() => cause,
            _ = self.shared.given_up.acquire() => error::lost(&self.shared.host, "it was given up"),
        };
        self.shared.finish(cause);
    }

    async fn read<S>(&self, mut stream: SplitStream<WebSocketStream<S>>) -> DeliverError
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = &self.shared.host;
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return error::lost(host, &error.to_string()),
                None => return error::lost(host, "the target has closed it"),
            };
            self.heard.store(self.now(), Ordering::Relaxed);
            let mut waiting = lock(&self.shared.waiting);
            match message {
                Message::Pong(content) if self.shared.proof == Proof::Pong => {
                    let number = <[u8; 8]>::try_from(&content[..]).map(u64::from_be_bytes);
                    // Others answer no ping of this client, and mean nothing (§5.5.3).
                    if let Ok(number) = number
                        && number <= waiting.last
                    {
                        while waiting.messages.front().is_some_and(|(before, _)| *before <= number) {
                            if let Some((_, written)) = waiting.messages.pop_front() {
                                let _ = written.answer.send(());
                            }
                        }
                    }
                }
                Message::Text(_) | Message::Binary(_) if self.shared.proof == Proof::Response => {
                    match waiting.messages.pop_front() {
                        Some((_, written)) => {
                            let _ = written.answer.send(());
                        }
                        None => return error::lost(host, "the target has sent a message that answers none"),
                    }
                }
                Message::Close(frame) => return error::closed(host, frame.as_ref(), waiting.messages.len() == 1),
                _ => {}
            }
        }
    }

    async fn write<S>(
        &self,
        sink: &mut SplitSink<WebSocketStream<S>, Message>,
        queue: &mut UnboundedReceiver<Outgoing>,
    ) -> DeliverError
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = &self.shared.host;
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let written = tokio::select! {
                next = queue.recv() => match next {
                    Some(first) => self.write_all(sink, first, queue).await,
                    None => {
                        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                        let goodbye = async {
                            let _ = sink.send(Message::Close(Some(frame))).await;
                            // The target answers, which ends the reading (RFC 6455 §7.1.2).
                            std::future::pending::<()>().await;
                        };
                        let _ = timeout(GOODBYE, goodbye).await;
                        return error::lost(host, "it was closed");
                    }
                },
                _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await,
            };
            if let Err(error) = written {
                // A target that refuses a message closes the connection while it is still being written: the reason is
                // among the last bytes that can be read.
                sleep(LAST_WORDS).await;
                return error::lost(host, &error.to_string());
            }
        }
    }

    /// Writes a message, and those that are queued behind it.
    async fn write_all<S>(
        &self,
        sink: &mut SplitSink<WebSocketStream<S>, Message>,
        first: Outgoing,
        queue: &mut UnboundedReceiver<Outgoing>,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The tasks that are ready run first, so that their messages go out in the same write.
        yield_now().await;
        let mut next = Some(first);
        while let Some(Outgoing { message, written }) = next {
            let number = {
                let mut waiting = lock(&self.shared.waiting);
                waiting.last += 1;
                let number = waiting.last;
                // Before it is written, so that no answer finds nobody who waits.
                waiting.messages.push_back((number, written));
                number
            };
            sink.feed(message).await?;
            if self.shared.proof == Proof::Pong {
                sink.feed(Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))).await?;
            }
            next = queue.try_recv().ok();
        }
        sink.flush().await
    }

    /// Returns when the target is silent.
    async fn watch(&self) -> DeliverError {
        loop {
            sleep(Duration::from_secs(1)).await;
            let silent = self.now().saturating_sub(self.heard.load(Ordering::Relaxed));
            if u128::from(silent) >= SILENCE.as_millis() {
                return error::lost(&self.shared.host, "the target has been silent for too long");
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::event::DeliverErrorKind;

    type Peer = WebSocketStream<DuplexStream>;

    /// A session, and the bytes that its target gets: the test answers as it likes.
    async fn begin(proof: Proof) -> (Session, Peer) {
        let (ours, theirs) = duplex(1 << 20);
        let client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        // Without `poll_next` it would answer no ping; it answers each as soon as it is read.
        (
            Session::begin("a:1".into(), proof, client),
            WebSocketStream::from_raw_socket(theirs, Role::Server, None).await,
        )
    }

    async fn text(peer: &mut Peer) -> String {
        loop {
            if let Message::Text(text) = peer.next().await.unwrap().unwrap() {
                return text.to_string();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_delivered_once_the_target_has_read_it() {
        let (session, mut peer) = begin(Proof::Pong).await;
        let mut delivery = Box::pin(session.send("a".into()));
        assert!(timeout(Duration::from_secs(1), &mut delivery).await.is_err(), "nobody has read it");
        // A pong that answers nothing.
        peer.send(Message::Pong(Bytes::from_static(&[0xff; 8]))).await.unwrap();
        assert!(timeout(Duration::from_secs(1), &mut delivery).await.is_err());
        assert_eq!(text(&mut peer).await, "a");
        let reading = async { while peer.next().await.is_some() {} };
        tokio::select! {
            outcome = &mut delivery => outcome.unwrap(),
            () = reading => panic!("it is closed"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_pong_counts_for_all_messages_before_it() {
        let (session, mut peer) = begin(Proof::Pong).await;
        let deliveries = futures_util::future::join_all(["a", "b", "c"].map(|text| session.send(text.into())));
        let answering = async {
            sleep(Duration::from_millis(1)).await;
            peer.send(Message::Pong(Bytes::copy_from_slice(&2u64.to_be_bytes()))).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            peer.close(None).await.unwrap();
        };
        let (outcomes, ()) = tokio::join!(deliveries, answering);
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_belongs_to_the_one_message_that_is_on_its_way() {
        let (session, mut peer) = begin(Proof::Response).await;
        let both = async { tokio::join!(session.send("a".into()), session.send("b".into())) };
        let answering = async {
            assert_eq!(text(&mut peer).await, "a");
            assert!(timeout(Duration::from_secs(1), text(&mut peer)).await.is_err(), "the second one waits");
            peer.send("ok".into()).await.unwrap();
            assert_eq!(text(&mut peer).await, "b");
            peer.send("ok".into()).await.unwrap();
        };
        let ((first, second), ()) = tokio::join!(both, answering);
        first.unwrap();
        second.unwrap();
        // A message that answers none: the next response could be taken for another one's.
        peer.send("late".into()).await.unwrap();
        session.ended().await;
        assert_eq!(session.send("c".into()).await.unwrap_err().kind(), DeliverErrorKind::Connect);
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_frame_says_why() {
        let (session, mut peer) = begin(Proof::Pong).await;
        let answering = async {
            text(&mut peer).await;
            let frame = CloseFrame { code: CloseCode::Size, reason: "too big".into() };
            peer.send(Message::Close(Some(frame))).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(session.send("a".into()), answering);
        let error = outcome.unwrap_err();
        // The answer to the ping may have been written before.
        assert!(error.kind() == DeliverErrorKind::Permanent && error.to_string().contains("1009: too big"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_is_silent_or_given_up_ends_the_session() {
        let (session, peer) = begin(Proof::Response).await;
        let error = session.send("a".into()).await.unwrap_err();
        assert!(error.to_string().contains("silent for too long"), "{error}");
        drop(peer);
        let (session, peer) = begin(Proof::Response).await;
        session.give_up();
        assert!(session.send("a".into()).await.unwrap_err().to_string().contains("given up"));
        drop(peer);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_dropped_says_goodbye() {
        let (session, mut peer) = begin(Proof::Pong).await;
        assert!(timeout(Duration::ZERO, session.send("a".into())).await.is_err());
        drop(session);
        assert_eq!(text(&mut peer).await, "a");
        loop {
            match peer.next().await.unwrap().unwrap() {
                Message::Close(frame) => break assert_eq!(frame.unwrap().code, CloseCode::Normal),
                other => assert!(other.is_ping(), "{other}"),
            }
        }
    }
}
