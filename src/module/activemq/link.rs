//! A connection to a server, logged in, over which messages are sent and receipts arrive.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::error;
use super::frame::{self, Decoder, Frame, HEART_BEAT, Headers};
use crate::base::lock::lock;
use crate::event::DeliverError;

/// The most messages that are on their way at a time, and the KiB of those that are not written yet. A longer message
/// takes the whole room.
const MOST: usize = 64;
const ROOM: usize = 16 << 10;

/// A server without heart-beats that says nothing for so long, while a message waits for its receipt, is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long receipts are still taken after the server has said that something is wrong.
const LAST_RECEIPTS: Duration = Duration::from_secs(1);

/// How long the server has for a polite end of the connection.
const FAREWELL: Duration = Duration::from_secs(2);

/// The receipt of the last frame.
const GOODBYE: &str = "goodbye";

/// How much is written at once.
const BATCH: usize = 64 << 10;

/// A stream to a server.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// How often both sides have agreed to say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeartBeat {
    pub(super) ours: Option<Duration>,
    pub(super) theirs: Option<Duration>,
}

impl HeartBeat {
    /// The intervals that follow from our `offer`, which is one for both directions, and from the server's answer.
    pub(super) fn agreed(offer: Duration, answer: Option<&str>) -> Self {
        let number =
            |text: &str| text.trim().parse().ok().filter(|&millis: &u64| millis > 0).map(Duration::from_millis);
        let Some((sends, wants)) = answer.and_then(|answer| answer.split_once(',')) else { return Self::default() };
        let longer = |theirs: Duration| theirs.max(offer);
        Self { ours: number(wants).map(longer), theirs: number(sends).map(longer) }
    }
}

/// A message to send.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) destination: String,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// A connection. Clones share it; after the last one, the server is told goodbye.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    outbox: mpsc::Sender<Written>,
    waiting: Arc<Waiting>,
}

/// A message on its way to the socket.
struct Written {
    number: u64,
    head: Vec<u8>,
    body: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The messages whose receipts are awaited.
struct Waiting {
    state: Mutex<State>,
    /// Whether the link takes no more messages.
    ended: watch::Sender<bool>,
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    last: u64,
    messages: HashMap<u64, Awaited>,
    ended: Option<DeliverError>,
}

struct Awaited {
    answer: oneshot::Sender<Result<(), DeliverError>>,
    since: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Link {
    /// Takes over a connection on which the server has answered the login; `buffer` has what it has sent since.
    pub(super) fn over(socket: impl Socket + 'static, buffer: BytesMut, beat: HeartBeat) -> Self {
        let (outbox, messages) = mpsc::channel(MOST);
        let waiting = Arc::new(Waiting {
            state: Mutex::default(),
            ended: watch::Sender::new(false),
            slots: Arc::new(Semaphore::new(MOST)),
            room: Arc::new(Semaphore::new(ROOM)),
        });
        let shared = Arc::clone(&waiting);
        tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(socket);
            let error = tokio::select! {
                error = read(reader, buffer, &shared, beat.theirs) => error,
                error = write(writer, messages, &shared, beat.ours) => error,
            };
            shared.end(&error);
        });
        Self(Arc::new(Inner { outbox, waiting }))
    }

    /// Sends a message, and waits for its receipt. There is no time limit.
    pub(super) async fn send(&self, message: &Outgoing) -> Result<(), DeliverError> {
        let Waiting { slots, room, .. } = &*self.0.waiting;
        let lost = |_| self.0.waiting.reason();
        let slot = Arc::clone(slots).acquire_owned().await.map_err(lost)?;
        let kib = (message.body.len() >> 10).saturating_add(1).min(ROOM);
        let room = Arc::clone(room).acquire_many_owned(u32::try_from(kib).unwrap_or(1)).await.map_err(lost)?;
        let (answer, answered) = oneshot::channel();
        let number = self.0.waiting.add(answer, slot)?;
        let head = frame::head("SEND", Some(&number.to_string()), &message.headers);
        let written = Written { number, head, body: message.body.clone(), _room: room };
        // There is a place for each slot; if there is none, the connection has ended.
        if self.0.outbox.try_send(written).is_err() {
            return Err(self.0.waiting.reason());
        }
        answered.await.unwrap_or_else(|_| Err(error::lost()))
    }

    /// Whether it takes messages.
    pub(super) fn is_usable(&self) -> bool {
        !*self.0.waiting.ended.borrow()
    }

    /// Waits until it takes no more messages.
    pub(super) async fn ended(&self) {
        let _ = self.0.waiting.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl Waiting {
    fn add(
        &self,
        answer: oneshot::Sender<Result<(), DeliverError>>,
        slot: OwnedSemaphorePermit,
    ) -> Result<u64, DeliverError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        state.last += 1;
        let number = state.last;
        state.messages.insert(number, Awaited { answer, since: Instant::now(), _slot: slot });
        Ok(number)
    }

    /// Whether anybody still waits for the message. If not, it is forgotten.
    fn is_wanted(&self, number: u64) -> bool {
        let mut state = lock(&self.state);
        let is_wanted = state.messages.get(&number).is_some_and(|message| !message.answer.is_closed());
        if !is_wanted {
            state.messages.remove(&number);
        }
        is_wanted
    }

    /// Answers the message with this receipt. `false` if there is none.
    fn answer(&self, receipt: &str, outcome: Result<(), DeliverError>) -> bool {
        let message = receipt.parse().ok().and_then(|number: u64| lock(&self.state).messages.remove(&number));
        // Nobody waits for an attempt that took too long.
        message.map(|message| message.answer.send(outcome)).is_some()
    }

    /// Takes no more messages; those under way may still be answered.
    fn retire(&self, error: DeliverError) {
        lock(&self.state).ended.get_or_insert(error);
        self.slots.close();
        self.room.close();
        self.ended.send_replace(true);
    }

    fn end(&self, error: &DeliverError) {
        self.retire(error.clone());
        let messages = std::mem::take(&mut lock(&self.state).messages);
        for (_, message) in messages {
            let _ = message.answer.send(Err(error.clone()));
        }
    }

    /// Why it takes no more messages.
    fn reason(&self) -> DeliverError {
        lock(&self.state).ended.clone().unwrap_or_else(error::lost)
    }

    /// The receipt of the only message under way.
    fn only(&self) -> Option<String> {
        let state = lock(&self.state);
        let mut numbers = state.messages.keys();
        numbers.next().filter(|_| state.messages.len() == 1).map(u64::to_string)
    }

    fn is_overdue(&self) -> bool {
        lock(&self.state).messages.values().any(|message| message.since.elapsed() >= PATIENCE)
    }
}

/// Reads until the connection ends, and returns the reason.
async fn read(
    mut socket: impl AsyncRead + Unpin,
    mut buffer: BytesMut,
    waiting: &Waiting,
    heart_beat: Option<Duration>,
) -> DeliverError {
    let mut decoder = Decoder::default();
    // The last word of a server that is about to end the connection, and until when receipts may follow.
    let mut last: Option<(DeliverError, Instant)> = None;
    // One heart-beat may be late.
    let limit = heart_beat.map_or(PATIENCE, |interval| interval.saturating_mul(2));
    loop {
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(frame)) => match heed(&frame, waiting) {
                    Heeded::Answer => {}
                    Heeded::Goodbye => return error::lost(),
                    Heeded::End(error) => {
                        waiting.retire(error.clone());
                        last.get_or_insert((error, Instant::now() + LAST_RECEIPTS));
                    }
                },
                Ok(None) => break,
                Err(wrong) => return error::garbled(&wrong.to_string()),
            }
        }
        let limit = match &last {
            Some((_, until)) => until.saturating_duration_since(Instant::now()),
            None => limit,
        };
        match (timeout(limit, socket.read_buf(&mut buffer)).await, last.take()) {
            (Ok(Ok(1..)), going_on) => last = going_on,
            (_, Some((error, _))) => return error,
            (Ok(_), None) => return error::lost(),
            (Err(_), None) if heart_beat.is_some() || waiting.is_overdue() => return error::silent(),
            (Err(_), None) => {}
        }
    }
}

/// The meaning of a frame for the connection.
enum Heeded {
    Answer,
    Goodbye,
    End(DeliverError),
}

fn heed(frame: &Frame, waiting: &Waiting) -> Heeded {
    let receipt = frame.header("receipt-id");
    match (&*frame.command, receipt) {
        ("RECEIPT", Some(GOODBYE)) => return Heeded::Goodbye,
        ("RECEIPT", Some(receipt)) => {
            waiting.answer(receipt, Ok(()));
        }
        // ActiveMQ goes on after an error about one message.
        ("ERROR", Some(receipt)) if waiting.answer(receipt, Err(error::refused(frame))) => {}
        ("ERROR", _) => {
            if let Some(receipt) = waiting.only() {
                waiting.answer(&receipt, Err(error::refused(frame)));
            }
            return Heeded::End(error::ended_by(frame));
        }
        _ => {}
    }
    Heeded::Answer
}

/// Writes until the connection ends, and returns the reason.
async fn write(
    mut socket: impl AsyncWrite + Unpin,
    mut messages: mpsc::Receiver<Written>,
    waiting: &Waiting,
    heart_beat: Option<Duration>,
) -> DeliverError {
    // A server may count from the last byte that it has read, without a margin.
    let pause = heart_beat.map_or(Duration::MAX, |interval| interval / 2);
    let mut batch = Vec::new();
    loop {
        let written = match timeout(pause, messages.recv()).await {
            Ok(Some(first)) => write_all(&mut socket, &mut messages, first, waiting, &mut batch).await,
            Ok(None) => break,
            Err(_) => write_now(&mut socket, HEART_BEAT).await,
        };
        if written.is_err() {
            return error::lost();
        }
    }
    let goodbye = async {
        let goodbye = [&frame::head("DISCONNECT", Some(GOODBYE), &Headers::default())[..], b"\0"].concat();
        write_now(&mut socket, &goodbye).await?;
        sleep(FAREWELL).await;
        Ok::<_, io::Error>(())
    };
    let _ = timeout(FAREWELL, goodbye).await;
    error::lost()
}

/// Writes a message and those that wait behind it.
async fn write_all(
    socket: &mut (impl AsyncWrite + Unpin),
    messages: &mut mpsc::Receiver<Written>,
    first: Written,
    waiting: &Waiting,
    batch: &mut Vec<u8>,
) -> io::Result<()> {
    let mut next = Some(first);
    while let Some(message) = next {
        if waiting.is_wanted(message.number) {
            batch.extend_from_slice(&message.head);
            match message.body.len() > BATCH {
                true => {
                    socket.write_all(batch).await?;
                    batch.clear();
                    socket.write_all(&message.body).await?;
                }
                false => batch.extend_from_slice(&message.body),
            }
            batch.push(0);
        }
        if batch.len() >= BATCH {
            socket.write_all(batch).await?;
            batch.clear();
        }
        next = messages.try_recv().ok();
    }
    write_now(socket, batch).await?;
    batch.clear();
    Ok(())
}

async fn write_now(socket: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes).await?;
    socket.flush().await
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
