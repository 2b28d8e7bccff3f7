//! A session with a server: many messages are on their way at a time, and each acknowledgement is matched by the number of
//! its packet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::error;
use super::incoming::{Incoming, Limits, Reason, Violation, decode};
use super::outgoing::{FAREWELL, PING, Publish, release};
use super::packet::Version;
use crate::base::lock::lock;
use crate::event::{DeliverError, DeliverErrorKind};

/// The most messages that are on their way at a time. A server may allow fewer.
const MOST: u16 = 64;

/// The room for messages on their way, in KiB. A larger message takes all of it.
const ROOM: u32 = 16 << 10;

/// How often the server is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(5);

/// A session is given up when its server has sent nothing for this long.
const SILENCE: Duration = Duration::from_secs(15);

/// A session with a message that has no acknowledgement for so long is given up, although the server shows signs of life:
/// else lost acknowledgements would use up the messages that may be on their way.
const LONGEST_WAIT: Duration = Duration::from_secs(330);

/// How long the server has for a polite end of the session.
const GOODBYE: Duration = Duration::from_secs(2);

/// A session. It does not reconnect. Clones share it; after the last one is dropped, what was queued is still written.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    outgoing: UnboundedSender<Outgoing>,
}

/// The state that deliveries and the task below share.
struct Shared {
    /// Host and port.
    server: Arc<str>,
    limits: Limits,
    /// A permit for each message on its way, so that the queue needs no bound.
    turns: Arc<Semaphore>,
    /// A permit for each KiB of the messages on their way.
    room: Arc<Semaphore>,
    pending: Mutex<Pending>,
    end: watch::Sender<Option<DeliverError>>,
}

#[derive(Default)]
struct Pending {
    messages: HashMap<u16, Waiting>,
    last_id: u16,
    is_closed: bool,
}

/// A message without an acknowledgement. It stays when its delivery is given up, so that its number is not used again.
struct Waiting {
    answer: oneshot::Sender<Reason>,
    qos: u8,
    /// With QoS 2: the reason in the first of the two answers.
    received: Option<Reason>,
    since: Instant,
    _permits: Permits,
}

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

enum Outgoing {
    Publish {
        head: Bytes,
        body: Bytes,
        /// Answered once the message is written: with QoS 0 there is no other answer.
        written: Option<(oneshot::Sender<Reason>, Permits)>,
    },
    Release(u16),
}

impl Session {
    /// Begins to carry messages over `stream`, on which the server has accepted the login. `read` are the bytes that were
    /// read behind its answer.
    pub(super) fn begin<S>(
        server: Arc<str>,
        version: Version,
        stream: S,
        read: BytesMut,
        limits: Limits,
        keep_alive: u16,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let keep_alive = limits.keep_alive.unwrap_or(keep_alive);
        // The server waits for one and a half times as long.
        let ping_every = match keep_alive {
            0 => PING_EVERY,
            seconds => PING_EVERY.min(Duration::from_secs(u64::from(seconds)) / 2),
        };
        let shared = Arc::new(Shared {
            server,
            turns: Arc::new(Semaphore::new(usize::from(limits.in_flight.min(MOST)))),
            limits,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            pending: Mutex::default(),
            end: watch::Sender::new(None),
        });
        let (outgoing, queue) = unbounded_channel();
        let carrier =
            Carrier { shared: Arc::clone(&shared), releases: outgoing.downgrade(), version, heard: AtomicU64::new(0) };
        tokio::spawn(carrier.run(stream, read, queue, ping_every));
        Self(Arc::new(Inner { shared, outgoing }))
    }

    /// Publishes a message, and waits for its acknowledgement; with QoS 0 until it is written. There is no time limit.
    ///
    /// # Errors
    ///
    /// When the server would not take the message, or the session ends before the acknowledgement.
    pub(super) async fn publish(&self, message: &Publish) -> Result<Reason, DeliverError> {
        let Inner { shared, outgoing } = &*self.0;
        shared.check(message)?;
        let lost = |_: AcquireError| shared.lost();
        let kib = u32::try_from(message.size() >> 10).unwrap_or(ROOM).saturating_add(1).min(ROOM);
        let room = Arc::clone(&shared.room).acquire_many_owned(kib).await.map_err(lost)?;
        let turn = Arc::clone(&shared.turns).acquire_owned().await.map_err(lost)?;
        let (answer, answered) = oneshot::channel();
        let too_large =
            || shared.refuse(DeliverErrorKind::Permanent, "the event is larger than a packet of MQTT can be");
        let packet = match message.qos {
            0 => {
                let head = message.head(0).ok_or_else(too_large)?;
                Outgoing::Publish { head, body: message.body.clone(), written: Some((answer, (turn, room))) }
            }
            qos => {
                let mut pending = lock(&shared.pending);
                let id = pending.free_id().ok_or_else(|| shared.lost())?;
                let head = message.head(id).ok_or_else(too_large)?;
                let waiting = Waiting { answer, qos, received: None, since: Instant::now(), _permits: (turn, room) };
                pending.messages.insert(id, waiting);
                Outgoing::Publish { head, body: message.body.clone(), written: None }
            }
        };
        // If the task has ended, the answer is dropped with the packet, or was already.
        drop(outgoing.send(packet));
        answered.await.map_err(|_| shared.lost())
    }

    /// Waits until the session has ended.
    pub(super) async fn ended(&self) {
        let mut end = self.0.shared.end.subscribe();
        // An error would mean that nobody is left to end it.
        let _ = end.wait_for(Option::is_some).await;
    }

    /// The host and port of the server, for messages.
    pub(super) fn server(&self) -> &str {
        &self.0.shared.server
    }
}

impl Shared {
    /// Refuses a message that the server would not take, or for which it would end the session.
    fn check(&self, message: &Publish) -> Result<(), DeliverError> {
        let Limits { qos, retain, packet, .. } = &self.limits;
        if message.size() > *packet {
            let text = format!("the event makes a packet of {} bytes, and the server takes {packet}", message.size());
            return Err(self.refuse(DeliverErrorKind::Permanent, &text));
        }
        if message.qos > *qos {
            let text = format!("the server supports a `qos` up to {qos}");
            return Err(self.refuse(DeliverErrorKind::Config, &text));
        }
        match message.retain && !retain {
            true => Err(self.refuse(DeliverErrorKind::Config, "the server keeps no messages: set `retained` to false")),
            false => Ok(()),
        }
    }

    fn refuse(&self, kind: DeliverErrorKind, text: &str) -> DeliverError {
        error::not_sent(&self.server, kind, text)
    }

    /// Why the session has ended.
    fn lost(&self) -> DeliverError {
        let cause = self.end.borrow().clone();
        cause.unwrap_or_else(|| error::lost(&self.server, "the session ends"))
    }

    /// Ends the session. Deliveries that wait for an acknowledgement fail.
    fn finish(&self, cause: DeliverError) {
        self.end.send_replace(Some(cause));
        self.turns.close();
        self.room.close();
        let mut pending = lock(&self.pending);
        pending.is_closed = true;
        pending.messages.clear();
    }
}

impl Pending {
    /// A number that no message on its way has. `None` after the end.
    fn free_id(&mut self) -> Option<u16> {
        if self.is_closed {
            return None;
        }
        // There are far more numbers than messages.
        for _ in 0..=u16::MAX {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.messages.contains_key(&self.last_id) {
                return Some(self.last_id);
            }
        }
        None
    }
}

/// Carries packets in both directions, until the connection breaks or the session is dropped.
struct Carrier {
    shared: Arc<Shared>,
    /// For the third packet of a message with QoS 2. Does not keep the session.
    releases: WeakUnboundedSender<Outgoing>,
    version: Version,
    /// When the server said something, in milliseconds since the beginning.
    heard: AtomicU64,
}

impl Carrier {
    async fn run<S>(self, stream: S, read: BytesMut, queue: UnboundedReceiver<Outgoing>, ping_every: Duration)
    where
        S: AsyncRead + AsyncWrite,
    {
        let (reader, writer) = tokio::io::split(stream);
        let began = Instant::now();
        let cause = tokio::select! {
            cause = self.read(reader, read, began) => cause,
            cause = self.write(writer, queue, ping_every) => cause,
            cause = self.watch(began) => cause,
        };
        self.shared.finish(cause);
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut stream: R, mut bytes: BytesMut, began: Instant) -> DeliverError {
        let server = &self.shared.server;
        loop {
            loop {
                match decode(&mut bytes, self.version) {
                    Ok(None) => break,
                    Ok(Some(packet)) => {
                        if let Err(cause) = self.take(packet) {
                            return cause;
                        }
                    }
                    Err(violation) => return error::violation(server, violation),
                }
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) => return error::lost(server, "the server has closed it"),
                Ok(_) => self.heard.store(millis(began), Ordering::Relaxed),
                Err(error) => return error::lost(server, &error.to_string()),
            }
        }
    }

    /// Takes a packet of the server. An error ends the session.
    fn take(&self, packet: Incoming) -> Result<(), DeliverError> {
        let violation = |text| error::violation(&self.shared.server, Violation(text));
        let mut pending = lock(&self.shared.pending);
        match packet {
            Incoming::PubAck(id, reason) => match pending.messages.remove(&id) {
                Some(Waiting { qos: 1, answer, .. }) => drop(answer.send(reason)),
                _ => return Err(violation("an acknowledgement (PUBACK) of no message")),
            },
            Incoming::PubRec(id, reason) if reason.code >= 0x80 => match pending.messages.remove(&id) {
                Some(Waiting { qos: 2, received: None, answer, .. }) => drop(answer.send(reason)),
                _ => return Err(violation("an acknowledgement (PUBREC) of no message")),
            },
            Incoming::PubRec(id, reason) => match pending.messages.get_mut(&id) {
                Some(Waiting { qos: 2, received, .. }) if received.is_none() => {
                    *received = Some(reason);
                    // Without a sender the session is about to end.
                    if let Some(releases) = self.releases.upgrade() {
                        drop(releases.send(Outgoing::Release(id)));
                    }
                }
                _ => return Err(violation("an acknowledgement (PUBREC) of no message")),
            },
            Incoming::PubComp(id, reason) => match pending.messages.remove(&id) {
                Some(Waiting { qos: 2, received: Some(received), answer, .. }) => {
                    let is_error = reason.code >= 0x80;
                    drop(answer.send(if is_error { reason } else { received }));
                }
                _ => return Err(violation("an acknowledgement (PUBCOMP) of no message")),
            },
            Incoming::Pong => {}
            Incoming::Disconnect(reason) => return Err(error::ended(&self.shared.server, &reason)),
            Incoming::Accepted(_) | Incoming::Refused(_) => return Err(violation("a second answer to the login")),
        }
        Ok(())
    }

    async fn write<W>(&self, stream: W, mut queue: UnboundedReceiver<Outgoing>, ping_every: Duration) -> DeliverError
    where
        W: AsyncWrite + Unpin,
    {
        let mut stream = BufWriter::with_capacity(32 << 10, stream);
        let mut ping = interval(ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lost = |error: std::io::Error| error::lost(&self.shared.server, &error.to_string());
        loop {
            let next = tokio::select! {
                next = queue.recv() => match next {
                    Some(next) => Some(next),
                    None => {
                        // Everything is written.
                        let farewell = async {
                            stream.write_all(&FAREWELL).await?;
                            stream.flush().await?;
                            stream.shutdown().await
                        };
                        let _ = timeout(GOODBYE, farewell).await;
                        return error::lost(&self.shared.server, "the session was closed");
                    }
                },
                _ = ping.tick() => None,
            };
            if let Err(error) = write_all(&mut stream, next, &mut queue).await {
                return lost(error);
            }
        }
    }

    /// Returns when the server is silent, or does not acknowledge a message.
    async fn watch(&self, began: Instant) -> DeliverError {
        let server = &self.shared.server;
        loop {
            sleep(Duration::from_secs(1)).await;
            let silent = millis(began).saturating_sub(self.heard.load(Ordering::Relaxed));
            if u128::from(silent) >= SILENCE.as_millis() {
                return error::lost(server, "the server has been silent for too long");
            }
            let oldest = lock(&self.shared.pending).messages.values().map(|waiting| waiting.since).min();
            if oldest.is_some_and(|since| since.elapsed() >= LONGEST_WAIT) {
                return error::lost(server, "the server has not acknowledged a message for too long");
            }
        }
    }
}

/// Writes a packet, or else a question for a sign of life, and those that are queued behind it.
async fn write_all<W>(
    stream: &mut W,
    first: Option<Outgoing>,
    queue: &mut UnboundedReceiver<Outgoing>,
) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    // The tasks that are ready run first, so that their messages go out in the same write.
    yield_now().await;
    let mut written = Vec::new();
    if first.is_none() {
        stream.write_all(&PING).await?;
    }
    let mut next = first;
    while let Some(packet) = next {
        match packet {
            Outgoing::Publish { head, body, written: answer } => {
                stream.write_all(&head).await?;
                stream.write_all(&body).await?;
                written.extend(answer);
            }
            Outgoing::Release(id) => stream.write_all(&release(id)).await?,
        }
        next = queue.try_recv().ok();
    }
    stream.flush().await?;
    for (answer, _permits) in written {
        drop(answer.send(Reason::default()));
    }
    Ok(())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// The other end of a session, played by the test: an own server can answer as it likes.
    struct Server(DuplexStream);

    impl Server {
        /// The next packet of the client that is no question for a sign of life: its first byte and its content.
        async fn packet(&mut self) -> (u8, Vec<u8>) {
            loop {
                let first = self.0.read_u8().await.unwrap();
                let mut length = 0;
                for at in 0..4 {
                    let digit = self.0.read_u8().await.unwrap();
                    length |= usize::from(digit & 0x7F) << (7 * at);
                    if digit & 0x80 == 0 {
                        break;
                    }
                }
                let mut content = vec![0; length];
                self.0.read_exact(&mut content).await.unwrap();
                if first != PING[0] {
                    return (first, content);
                }
            }
        }

        /// The number and the last byte of the next message to the topic `t`.
        async fn message(&mut self) -> ([u8; 2], u8) {
            let (first, content) = self.packet().await;
            assert_eq!((first & 0xF0, &content[..3]), (0x30, &b"\0\x01t"[..]));
            ([content[3], content[4]], *content.last().unwrap())
        }

        async fn send(&mut self, bytes: &[u8]) {
            self.0.write_all(bytes).await.unwrap();
        }
    }

    fn begin(version: Version, limits: Limits) -> (Session, Server) {
        let (ours, theirs) = duplex(1 << 20);
        (Session::begin("a:1".into(), version, ours, BytesMut::new(), limits, 60), Server(theirs))
    }

    fn message(qos: u8, body: &'static [u8]) -> Publish {
        Publish { topic: "t".into(), qos, retain: false, properties: None, body: body.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn each_acknowledgement_reaches_the_delivery_of_its_message() {
        let (session, mut server) = begin(Version::V5, Limits::default());
        let bodies: [&[u8]; 3] = [b"a", b"b", b"c"];
        let messages = bodies.map(|body| message(1, body));
        let deliveries = join_all(messages.iter().map(|message| session.publish(message)));
        let answers = async {
            let mut ids = Vec::new();
            for _ in 0..3 {
                ids.push(server.message().await);
            }
            ids.sort_by_key(|(_, body)| *body);
            // In another order, and each with a code of its own.
            for at in [2, 0, 1] {
                let ([high, low], body) = ids[at];
                server.send(&[0x40, 3, high, low, body]).await;
            }
        };
        let (codes, ()) = tokio::join!(deliveries, answers);
        let codes: Vec<_> = codes.into_iter().map(|reason| reason.unwrap().code).collect();
        assert_eq!(codes, [b'a', b'b', b'c']);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_with_qos_2_is_delivered_once_all_four_packets_are_through() {
        let (session, mut server) = begin(Version::V5, Limits::default());
        let sent = message(2, b"a");
        let mut delivery = Box::pin(session.publish(&sent));
        let ([high, low], _) = tokio::select! {
            _ = &mut delivery => panic!("it is not acknowledged"),
            message = server.message() => message,
        };
        server.send(&[0x50, 3, high, low, 0x10]).await;
        let released = tokio::select! {
            _ = &mut delivery => panic!("it is not complete"),
            packet = server.packet() => packet,
        };
        assert_eq!(released, (0x62, vec![high, low]));
        server.send(&[0x70, 2, high, low]).await;
        assert_eq!(delivery.await.unwrap().code, 0x10, "the code of the first answer counts");

        let refused = async {
            let ([high, low], _) = server.message().await;
            server.send(&[0x50, 3, high, low, 0x97]).await;
        };
        let (reason, ()) = tokio::join!(session.publish(&sent), refused);
        assert_eq!(reason.unwrap().code, 0x97);
    }

    /// The acknowledgement that comes late must not pass for that of another message.
    #[tokio::test(start_paused = true)]
    async fn the_number_of_a_message_whose_delivery_was_given_up_is_not_used_again() {
        let (session, mut server) = begin(Version::V5, Limits { in_flight: 2, ..Limits::default() });
        let (first, second) = (message(1, b"a"), message(1, b"b"));
        assert!(timeout(Duration::from_millis(10), session.publish(&first)).await.is_err());
        let (late, _) = server.message().await;
        lock(&session.0.shared.pending).last_id = u16::from_be_bytes(late).wrapping_sub(1);
        let answer = async {
            let (id, _) = server.message().await;
            assert_ne!(id, late);
            server.send(&[0x40, 3, late[0], late[1], 0x97]).await;
            server.send(&[0x40, 2, id[0], id[1]]).await;
        };
        let (reason, ()) = tokio::join!(session.publish(&second), answer);
        assert_eq!(reason.unwrap().code, 0);
        assert!(lock(&session.0.shared.pending).messages.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_messages_are_on_their_way_than_the_server_allows() {
        let (session, mut server) = begin(Version::V5, Limits { in_flight: 2, ..Limits::default() });
        let messages: Vec<_> = (0..5).map(|_| message(1, b"a")).collect();
        let deliveries = join_all(messages.iter().map(|message| session.publish(message)));
        let answers = async {
            let mut open = vec![server.message().await.0, server.message().await.0];
            for _ in 0..3 {
                assert!(timeout(Duration::from_millis(100), server.message()).await.is_err());
                let [high, low] = open.remove(0);
                server.send(&[0x40, 2, high, low]).await;
                open.push(server.message().await.0);
            }
            for [high, low] in open {
                server.send(&[0x40, 2, high, low]).await;
            }
        };
        let (reasons, ()) = tokio::join!(deliveries, answers);
        assert!(reasons.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn large_messages_wait_for_room() {
        static LARGE: [u8; 9 << 20] = [0; 9 << 20];
        let (ours, _theirs) = duplex(1);
        let session = Session::begin("a:1".into(), Version::V4, ours, BytesMut::new(), Limits::default(), 60);
        let sent = message(1, &LARGE);
        let deliveries = join_all((0..10).map(|_| timeout(Duration::from_secs(1), session.publish(&sent))));
        assert!(deliveries.await.iter().all(Result::is_err));
        assert_eq!(lock(&session.0.shared.pending).messages.len(), 1, "the others wait, and were never queued");
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_of_no_message_ends_the_session() {
        for answer in
            [&b"\x40\x02\0\x09"[..], b"\x50\x02\0\x01", b"\x70\x02\0\x01", b"\x30\0", b"\x20\x02\0\0", b"\xe0\0"]
        {
            let (session, mut server) = begin(Version::V5, Limits::default());
            let sent = message(1, b"a");
            let answering = async {
                server.message().await;
                server.send(answer).await;
            };
            let (outcome, ()) = tokio::join!(session.publish(&sent), answering);
            assert_eq!(outcome.unwrap_err().kind(), DeliverErrorKind::Connect, "{answer:x?}");
            session.ended().await;
            assert_eq!(session.publish(&sent).await.unwrap_err().kind(), DeliverErrorKind::Connect, "nothing hangs");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_is_given_up() {
        let (session, server) = begin(Version::V4, Limits::default());
        let began = Instant::now();
        let sent = message(1, b"a");
        let error = session.publish(&sent).await.unwrap_err();
        assert!(error.to_string().contains("silent for too long"), "{error}");
        assert!((SILENCE..SILENCE * 2).contains(&began.elapsed()));
        drop(server);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_everything_but_a_message_is_given_up() {
        let (session, mut server) = begin(Version::V4, Limits::default());
        let answers = async {
            loop {
                server.send(b"\xd0\0").await;
                sleep(Duration::from_secs(5)).await;
            }
        };
        let sent = message(1, b"a");
        tokio::select! {
            outcome = session.publish(&sent) => {
                let error = outcome.unwrap_err();
                assert!(error.to_string().contains("not acknowledged a message for too long"), "{error}");
            }
            () = answers => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_is_written_before_the_session_says_goodbye() {
        let (session, mut server) = begin(Version::V5, Limits::default());
        let sent = message(1, b"a");
        assert!(timeout(Duration::ZERO, session.publish(&sent)).await.is_err());
        drop(session);
        assert_eq!(server.message().await.1, b'a');
        assert_eq!(server.packet().await, (0xE0, Vec::new()));
        assert_eq!(server.0.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_the_server_would_not_take_is_not_sent() {
        let limits = Limits { packet: 8, qos: 1, retain: false, ..Limits::default() };
        let (session, mut server) = begin(Version::V5, limits);
        for (message, kind) in [
            (message(1, b"too large"), DeliverErrorKind::Permanent),
            (message(2, b""), DeliverErrorKind::Config),
            (Publish { retain: true, ..message(1, b"") }, DeliverErrorKind::Config),
        ] {
            assert_eq!(session.publish(&message).await.unwrap_err().kind(), kind);
        }
        assert_eq!(session.publish(&message(0, b"a")).await.unwrap(), Reason::default());
        assert_eq!(server.packet().await, (0x30, b"\0\x01ta".to_vec()));
    }
}
