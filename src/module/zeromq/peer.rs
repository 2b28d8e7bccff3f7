//! A connection that carries messages which nothing replies to, queued by several deliveries.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::yield_now;

use super::frame::{self, DELIMITER, Decoder, Message, Received, Role};
use super::handshake::{Met, lost};
use crate::base::lock::lock;
use crate::event::DeliverError;

/// The most messages that wait to be written to one peer.
const QUEUE: usize = 64;

/// The room for them, in KiB. A larger message takes all of it.
const ROOM: u32 = 4 << 10;

/// The bytes of small messages that one write carries.
const BUFFER: usize = 32 << 10;

/// The most subscriptions of a peer, and their length together.
const MAX_TOPICS: usize = 1024;
const MAX_TOPIC_BYTES: usize = 64 << 10;

/// A peer. Clones share it; its connection ends with the last one.
#[derive(Clone)]
pub(super) struct Peer {
    outbox: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    state: Arc<State>,
}

struct Item {
    message: Message,
    /// Answered once the message is written.
    written: oneshot::Sender<()>,
    room: OwnedSemaphorePermit,
}

struct State {
    role: Role,
    ended: watch::Sender<bool>,
    topics: Mutex<Vec<Vec<u8>>>,
}

impl Peer {
    /// `place` is held for as long as the connection lives.
    pub(super) fn new(met: Met, role: Role, place: Option<OwnedSemaphorePermit>) -> Self {
        let Met { stream, buffer, is_rep } = met;
        let before = if is_rep { DELIMITER } else { b"" };
        let (outbox, items) = mpsc::channel(QUEUE);
        let state = Arc::new(State { role, ended: watch::Sender::new(false), topics: Mutex::default() });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            let _place = place;
            let (reader, writer) = stream.into_split();
            // PONGs, which the writer sends.
            let (pongs, due) = mpsc::channel(1);
            tokio::select! {
                () = read(reader, buffer, &shared, pongs) => {}
                () = write(writer, before, items, due) => {}
            }
            shared.ended.send_replace(true);
        });
        Self { outbox, room: Arc::new(Semaphore::new(ROOM as usize)), state }
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
    pub(super) async fn send(&self, message: &Message) -> Result<(), DeliverError> {
        let kib = u32::try_from(message.len() >> 10).unwrap_or(ROOM).saturating_add(1).min(ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| lost())?;
        let (written, is_written) = oneshot::channel();
        self.outbox.send(Item { message: message.clone(), written, room }).await.map_err(|_| lost())?;
        is_written.await.map_err(|_| lost())
    }
}

/// Reads until the connection ends, or the peer breaks the rules.
async fn read(mut socket: OwnedReadHalf, mut buffer: BytesMut, state: &State, pongs: mpsc::Sender<Vec<u8>>) {
    let mut decoder = Decoder::default();
    loop {
        match decoder.next(&mut buffer) {
            Ok(Some(Received::Message(parts))) => {
                if state.role == Role::Pub && !parts.iter().all(|part| subscribe(part, &state.topics)) {
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

/// Writes until the connection ends, or nobody needs it any more. `before` goes before each message.
async fn write(
    socket: OwnedWriteHalf,
    before: &'static [u8],
    mut items: mpsc::Receiver<Item>,
    mut pongs: mpsc::Receiver<Vec<u8>>,
) {
    let mut socket = BufWriter::with_capacity(BUFFER, socket);
    loop {
        let written = tokio::select! {
            item = items.recv() => match item {
                Some(first) => write_all(&mut socket, before, first, &mut items).await,
                None => break,
            },
            Some(pong) = pongs.recv() => async {
                socket.write_all(&pong).await?;
                socket.flush().await
            }
            .await,
        };
        if written.is_err() {
            return;
        }
    }
    let _ = socket.shutdown().await;
}

/// Writes a message, and those that are queued behind it.
async fn write_all(
    socket: &mut BufWriter<OwnedWriteHalf>,
    before: &[u8],
    first: Item,
    items: &mut mpsc::Receiver<Item>,
) -> io::Result<()> {
    // The tasks that are ready run first, so that their messages go out in the same write.
    yield_now().await;
    let (mut next, mut done) = (Some(first), Vec::new());
    while let Some(Item { message, written, room }) = next {
        let took_too_long = written.is_closed();
        if !took_too_long {
            for bytes in [before, &message.head, &message.body] {
                socket.write_all(bytes).await?;
            }
            done.push((written, room));
        }
        next = items.try_recv().ok();
    }
    socket.flush().await?;
    for (written, _room) in done {
        let _ = written.send(());
    }
    Ok(())
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}
