//! One session with a server that all deliveries of a connection share.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError, Value, cmd};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::batched::Batched;
use super::error::{failure, is_of_a_replica};
use crate::egress::{ClientTls, Egress};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::{Dial, Server, Sessions};
use crate::module::connection::unconnected;

/// Commands that wait for room on the network connection, beside those that were written. Beyond them deliveries wait.
const WAITING: usize = 256;

/// How many bytes of commands are gathered before they are written.
const BATCH: usize = 64 << 10;

/// The most KiB of commands of a session that the server has not answered. Beyond them deliveries wait.
const ROOM: usize = 64 << 10;

/// The limit that is assumed if a server does not tell its limit: the default of `proto-max-bulk-len`.
const LARGEST: usize = 512 << 20;

/// A session that is younger is not given up, so that a server that refuses events does not cause a storm of connections.
const GOOD: Duration = Duration::from_secs(5);

/// How often an idle connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The client of a connection of type `redis`, which holds its network connection.
pub struct RedisClient {
    sessions: Sessions<Session>,
    dialer: Dialer,
    /// Over a network connection of its own, for commands that block one.
    blocking: OnceLock<Box<Self>>,
}

impl RedisClient {
    /// Begins to connect. Must run on a tokio runtime.
    pub(super) fn open(dialer: Dialer) -> Self {
        Self { sessions: Sessions::open(dialer.clone()), dialer, blocking: OnceLock::new() }
    }

    /// The client for deliveries that use a blocking command: while it blocks, the server carries out no other command of
    /// the same network connection.
    pub(super) fn blocking(&self) -> &Self {
        self.blocking.get_or_init(|| Box::new(Self::open(self.dialer.clone())))
    }

    /// The current session.
    ///
    /// # Errors
    ///
    /// While there is none: the error of the last attempt to connect.
    pub(super) async fn session(&self) -> Result<Session, DeliverError> {
        self.sessions.current().await
    }
}

/// Shows only the server.
impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").field("server", &self.dialer.server()).finish_non_exhaustive()
    }
}

/// Makes sessions with one server.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) egress: Egress,
    pub(super) server: Arc<Server>,
    /// Host and port.
    pub(super) shown: Arc<str>,
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) login: Login,
    pub(super) timeout: Duration,
}

/// The user, the password and the database of a session.
#[derive(Clone)]
pub(super) struct Login {
    /// Without it the password is that of the user `default`.
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: u32,
}

impl Dialer {
    pub(super) fn server(&self) -> &str {
        &self.shown
    }

    async fn session(&self) -> Result<Session, DeliverError> {
        let unconnected = |error| unconnected(&self.shown, &error);
        let Server { host, port } = &*self.server;
        match &self.tls {
            Some(tls) => self.over(tls.connect(host, *port).await.map_err(unconnected)?).await,
            None => self.over(self.egress.connect(host, *port).await.map_err(unconnected)?).await,
        }
    }

    /// Logs in over `stream`, and begins to carry commands.
    async fn over<S>(&self, stream: S) -> Result<Session, DeliverError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Each delivery has a time limit of its own.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WAITING)
            .set_write_backpressure_boundary(BATCH);
        let made = MultiplexedConnection::new_with_config(&plain(), Batched::new(stream), config).await;
        let (connection, driver) = made.map_err(|error| failure(&self.shown, error))?;
        let ended = Arc::new(watch::Sender::new(false));
        let (signs, end) = (signs_of_life(connection.clone(), self.timeout), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            tokio::select! {
                () = driver => {}
                () = signs => {}
            }
            end.send_replace(true);
        });
        let carrier = Carrier(task);
        self.login.log_in(connection.clone()).await.map_err(|error| failure(&self.shown, error))?;
        let largest = largest(connection.clone()).await;
        let (dialer, since) = (self.clone(), Instant::now());
        let room = Semaphore::new(ROOM);
        Ok(Session(Arc::new(Carried { dialer, connection, largest, room, since, ended, _carrier: carrier })))
    }
}

/// A session that begins without a command. The client's own login hides what the server has answered.
fn plain() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name()
}

impl Login {
    async fn log_in(&self, mut connection: MultiplexedConnection) -> Result<(), RedisError> {
        match &self.password {
            Some(password) => {
                let mut auth = cmd("AUTH");
                if let Some(user) = &self.user {
                    auth.arg(user);
                }
                auth.arg(password).query_async::<()>(&mut connection).await?;
            }
            None => {
                // A server that wants a password refuses any command, some of them as errors of the protocol.
                let answer = cmd("PING").query_async::<Value>(&mut connection).await;
                answer.map(drop).or_else(|error| if error.code() == Some("NOAUTH") { Err(error) } else { Ok(()) })?;
            }
        }
        if self.db != 0 {
            cmd("SELECT").arg(self.db).query_async::<()>(&mut connection).await?;
        }
        Ok(())
    }
}

impl Dial for Dialer {
    type Session = Session;

    async fn dial(&self) -> Result<Session, DeliverError> {
        match timeout(self.timeout, self.session()).await {
            Ok(session) => session,
            Err(_) => {
                let reason = format!("{}: no session within {:?}", self.shown, self.timeout);
                Err(DeliverError::new(DeliverErrorKind::Timeout, reason))
            }
        }
    }

    async fn ended(session: &Session) {
        let mut watched = session.0.ended.subscribe();
        // An error would mean that nobody is left to end it.
        let _ = watched.wait_for(|ended| *ended).await;
    }
}

/// A network connection over which many commands are under way at a time. It does not reconnect. Clones are the same
/// session.
#[derive(Clone)]
pub(super) struct Session(Arc<Carried>);

struct Carried {
    dialer: Dialer,
    connection: MultiplexedConnection,
    /// The largest argument of a command that the server reads, in bytes.
    largest: usize,
    /// In KiB.
    room: Semaphore,
    since: Instant,
    ended: Arc<watch::Sender<bool>>,
    _carrier: Carrier,
}

impl Session {
    /// Sends a command or a transaction, whose largest argument has `bytes` bytes, and returns its answer.
    ///
    /// # Errors
    ///
    /// When the server refuses the command, or does not answer in time. In the last case it is unknown whether the command
    /// was carried out, and so it is if the connection broke.
    pub(super) async fn query<T, F>(
        &self,
        bytes: usize,
        send: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, DeliverError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let server = self.server();
        if bytes > self.0.largest {
            let reason =
                format!("{server}: the event has {bytes} bytes, and its `proto-max-bulk-len` is {}", self.0.largest);
            return Err(DeliverError::new(DeliverErrorKind::Permanent, reason));
        }
        let answered = async {
            let room = Room::take(&self.0, bytes).await;
            let answer = send(self.0.connection.clone()).await;
            if let Some(room) = room {
                room.give_back();
            }
            answer
        };
        match timeout(self.0.dialer.timeout, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if is_of_a_replica(&error) && self.0.since.elapsed() >= GOOD {
                    self.give_up();
                }
                Err(failure(server, error))
            }
            Err(_) => {
                let reason = format!("{server}: no answer within {:?}", self.0.dialer.timeout);
                Err(DeliverError::new(DeliverErrorKind::Timeout, reason))
            }
        }
    }

    /// The host and port of the server, for messages.
    pub(super) fn server(&self) -> &str {
        self.0.dialer.server()
    }

    /// Whether both are the same session.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Asks for a new session, which may lead to another server. Commands under way continue.
    fn give_up(&self) {
        self.0.ended.send_replace(true);
    }
}

/// Room for a command that is under way. If it is dropped before the answer is there, the command still waits in the
/// client: its room stays taken for as long as the session lasts.
struct Room<'a> {
    carried: &'a Carried,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Room<'a> {
    /// `None` if there is no limit any more, which does not happen.
    async fn take(carried: &'a Carried, bytes: usize) -> Option<Self> {
        let kib = (bytes / 1024 + 1).min(ROOM);
        let permit = carried.room.acquire_many(kib as u32).await.ok()?;
        Some(Self { carried, permit: Some(permit) })
    }

    fn give_back(mut self) {
        self.permit.take();
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        permit.forget();
        // A server that answers late must not use up the room for good: another session has all of it.
        if self.carried.room.available_permits() < ROOM / 2 && self.carried.since.elapsed() >= GOOD {
            self.carried.ended.send_replace(true);
        }
    }
}

/// The task that carries commands and answers. The network connection is closed when the last session is dropped.
struct Carrier(JoinHandle<()>);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the server for signs of life, and returns when there is none: a connection whose other end is gone may look open
/// for a quarter of an hour.
async fn signs_of_life(mut connection: MultiplexedConnection, patience: Duration) {
    loop {
        sleep(PING_EVERY).await;
        let answered = timeout(patience, cmd("PING").query_async::<Value>(&mut connection)).await;
        match answered {
            Ok(Err(error)) if error.is_connection_dropped() => return,
            // A server that refuses the command is alive.
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// The largest argument that the server reads. It closes the connection, with all that is under way on it, when there is
/// a larger one.
async fn largest(mut connection: MultiplexedConnection) -> usize {
    let asked = cmd("CONFIG").arg("GET").arg("proto-max-bulk-len").query_async::<Vec<String>>(&mut connection).await;
    let told = asked.ok().and_then(|answer| answer.get(1)?.parse().ok());
    told.unwrap_or(LARGEST)
}
