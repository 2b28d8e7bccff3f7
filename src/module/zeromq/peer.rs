//! A connection to a peer, after the handshake.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::frame::{self, Decoder, GREETING, Invalid, Received, Role};
use crate::base::lock::lock;
use crate::event::{DeliverError, DeliverErrorKind};

/// The most messages that wait to be written to one peer.
const QUEUE: usize = 4;

/// The most subscriptions of a peer, and their length together.
const MAX_TOPICS: usize = 1024;
const MAX_TOPIC_BYTES: usize = 64 << 10;

/// A peer. Clones share it; its connection ends with the last one.
#[derive(Clone)]
pub(super) struct Peer {
    outbox: mpsc::Sender<Item>,
    state: Arc<State>,
    /// Whether a message begins with an empty part.
    is_rep: bool,
}

struct Item {
    bytes: Vec<u8>,
    answer: oneshot::Sender<()>,
}

struct State {
    role: Role,
    ended: watch::Sender<bool>,
    reply: Mutex<Option<oneshot::Sender<()>>>,
    topics: Mutex<Vec<Vec<u8>>>,
}

/// Why there is no peer.
pub(super) enum Wrong {
    Socket(io::Error),
    Peer(Invalid),
}

impl Peer {
    /// Makes the handshake. There is no time limit. `place` is held for as long as the connection lives.
    pub(super) async fn meet(
        mut stream: TcpStream,
        role: Role,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, Wrong> {
        let mut theirs = [0; GREETING];
        stream.write_all(&frame::greeting()).await.map_err(Wrong::Socket)?;
        stream.read_exact(&mut theirs).await.map_err(Wrong::Socket)?;
        frame::check_greeting(&theirs).map_err(Wrong::Peer)?;
        stream.write_all(&frame::ready(role)).await.map_err(Wrong::Socket)?;
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let command = loop {
            match decoder.next(&mut buffer).map_err(Wrong::Peer)? {
                Some(Received::Command(command)) => break command,
                Some(Received::Message(_)) => {
                    return Err(Wrong::Peer(Invalid::Peer("it does not end the handshake")));
                }
                None if stream.read_buf(&mut buffer).await.map_err(Wrong::Socket)? == 0 => {
                    return Err(Wrong::Socket(io::ErrorKind::UnexpectedEof.into()));
                }
                None => {}
            }
        };
        let is_rep = frame::check_ready(role, &command).map_err(Wrong::Peer)?;
        let (outbox, items) = mpsc::channel(QUEUE);
        let state = State { role, ended: watch::Sender::new(false), reply: Mutex::default(), topics: Mutex::default() };
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            let _place = place;
            let (reader, writer) = stream.into_split();
            // PONGs, which the writer sends.
            let (pongs, due) = mpsc::channel(1);
            tokio::select! {
                () = read(reader, decoder, buffer, &shared, pongs) => {}
                () = write(writer, items, due) => {}
            }
            drop(lock(&shared.reply).take());
            shared.ended.send_replace(true);
        });
        Ok(Self { outbox, state, is_rep })
    }

    /// Whether the connection lives, as far as is known.
    pub(super) fn is_usable(&self) -> bool {
        !*self.state.ended.borrow()
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&self) {
        let _ = self.state.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Whether a message can be written at once.
    pub(super) fn is_ready(&self) -> bool {
        self.outbox.capacity() == QUEUE
    }

    /// Whether the peer has subscribed to messages whose first part is `part`.
    pub(super) fn wants(&self, part: &[u8]) -> bool {
        lock(&self.state.topics).iter().any(|topic| part.starts_with(topic))
    }

    /// Sends a message, and waits until it is written to the network connection. There is no time limit.
    pub(super) async fn send(&self, parts: &[&[u8]]) -> Result<(), DeliverError> {
        let place = self.outbox.reserve().await.map_err(|_| lost())?;
        // Not before there is a place, because it is a copy.
        let mut bytes = Vec::new();
        if self.is_rep || self.state.role == Role::Req {
            frame::write(&[&[&b""[..]], parts].concat(), &mut bytes);
        } else {
            frame::write(parts, &mut bytes);
        }
        let (answer, written) = oneshot::channel();
        place.send(Item { bytes, answer });
        written.await.map_err(|_| lost())
    }

    /// Sends a request, and waits for its reply. There is no time limit. If it is given up, the peer must be dropped: the
    /// reply would be taken for that of the next request.
    pub(super) async fn ask(&self, parts: &[&[u8]]) -> Result<(), DeliverError> {
        let (reply, replied) = oneshot::channel();
        *lock(&self.state.reply) = Some(reply);
        self.send(parts).await?;
        replied.await.map_err(|_| lost())
    }
}

/// Reads until the connection ends, or the peer breaks the rules.
async fn read(
    mut socket: OwnedReadHalf,
    mut decoder: Decoder,
    mut buffer: BytesMut,
    state: &State,
    pongs: mpsc::Sender<Vec<u8>>,
) {
    loop {
        match decoder.next(&mut buffer) {
            Ok(Some(Received::Message(parts))) => {
                let goes_on = match state.role {
                    Role::Pub => parts.iter().all(|part| subscribe(part, &state.topics)),
                    Role::Req if parts.len() > 1 && parts[0].is_empty() => {
                        // A reply that nobody waits for means nothing.
                        let _ = lock(&state.reply).take().map(|reply| reply.send(()));
                        true
                    }
                    _ => true,
                };
                if !goes_on {
                    return;
                }
            }
            Ok(Some(Received::Command(command))) => {
                let topic = |name: &[u8], sign: u8| command.strip_prefix(name).map(|topic| [&[sign], topic].concat());
                let topic = topic(b"\x09SUBSCRIBE", 1).or_else(|| topic(b"\x06CANCEL", 0));
                if topic.is_some_and(|topic| !subscribe(&topic, &state.topics)) {
                    return;
                }
                if let Some(pong) = frame::pong(&command) {
                    // A second PING before the PONG is written needs no answer of its own.
                    let _ = pongs.try_send(pong);
                }
            }
            Ok(None) => match socket.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            },
            Err(wrong) => {
                tracing::debug!(%wrong, "the connection to a peer of ZeroMQ is ended");
                return;
            }
        }
    }
}

/// Heeds a subscription, or its end. `false` if there are too many.
fn subscribe(message: &[u8], topics: &Mutex<Vec<Vec<u8>>>) -> bool {
    let mut topics = lock(topics);
    match message.split_first() {
        Some((1, topic)) => {
            let bytes: usize = topics.iter().map(Vec::len).sum();
            if topics.len() >= MAX_TOPICS || bytes + topic.len() > MAX_TOPIC_BYTES {
                return false;
            }
            topics.push(topic.to_vec());
        }
        Some((0, topic)) => {
            if let Some(at) = topics.iter().position(|own| own == topic) {
                topics.swap_remove(at);
            }
        }
        _ => {}
    }
    true
}

/// Writes until the connection ends, or nobody needs it any more.
async fn write(mut socket: OwnedWriteHalf, mut items: mpsc::Receiver<Item>, mut pongs: mpsc::Receiver<Vec<u8>>) {
    loop {
        let (bytes, answer) = tokio::select! {
            item = items.recv() => match item {
                // The attempt took too long.
                Some(item) if item.answer.is_closed() => continue,
                Some(item) => (item.bytes, Some(item.answer)),
                None => break,
            },
            Some(pong) = pongs.recv() => (pong, None),
        };
        if socket.write_all(&bytes).await.is_err() {
            return;
        }
        let _ = answer.map(|answer| answer.send(()));
    }
    let _ = socket.shutdown().await;
}

/// The connection was lost.
pub(super) fn lost() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Connect, "the connection to the peer was lost")
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}
