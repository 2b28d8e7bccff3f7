//! The connection type `rabbitmq`, and the client that deliveries share.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::config::RabbitMqConnectionConfig;
use super::dial::Dial;
use super::session::Session;
use crate::base::lock::lock;
use crate::config::BuildError;
use crate::egress::{Egress, check_host};
use crate::event::{DeliverError, DeliverErrorKind};
use crate::module::broker::Backoff;
use crate::module::connection::{ConnectionContext, ConnectionKind};

/// The time limit for an attempt: lookup, TCP, TLS and the login.
const ATTEMPT: Duration = Duration::from_secs(6);

/// How long a delivery waits for an attempt if the one before has failed.
const PATIENCE: Duration = Duration::from_millis(800);

/// The wait after a failed attempt: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A connection to RabbitMQ, or to another server that speaks AMQP 0.9.1 and has publisher confirms.
///
/// ```json
/// {"type": "rabbitmq", "host": "rabbitmq.internal", "user": "webhooks", "pass": "{$RABBITMQ_PASSWORD}"}
/// ```
///
/// All webhooks that name it share one network connection, with at most 64 messages on their way at a time. It is made by
/// the first delivery, and again by the first one after it was lost. After a failed attempt the next one waits for 0.1 s
/// up to 5 s; deliveries fail meanwhile with the error of the last attempt.
pub struct RabbitMqConnection {
    dial: Arc<Dial>,
}

impl RabbitMqConnection {
    /// Connects through `egress`.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`RabbitMqConnectionConfig`], or names an address that the policy of `egress`
    /// refuses.
    pub fn new(
        egress: &Egress,
        config: RabbitMqConnectionConfig,
        cx: &ConnectionContext<'_>,
    ) -> Result<Self, BuildError> {
        let access = config.read()?;
        check_host(&access.server.host, egress.policy()).map_err(|error| format!("the host {error}"))?;
        Ok(Self { dial: Arc::new(Dial::new(egress, access, cx.name())?) })
    }
}

impl ConnectionKind for RabbitMqConnection {
    const TYPE: &'static str = "rabbitmq";

    type Config = RabbitMqConnectionConfig;

    type Client = RabbitMqClient;

    /// Connects to public addresses only; [`Registry::egress`](crate::Registry::egress) allows others.
    fn build(config: RabbitMqConnectionConfig, cx: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config, cx)
    }

    /// Opens nothing yet: the client connects by itself, and again when the connection is lost.
    async fn connect(&self) -> Result<RabbitMqClient, DeliverError> {
        let state =
            State { session: None, attempt: None, failure: None, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) };
        Ok(RabbitMqClient { dial: Arc::clone(&self.dial), state: Arc::new(Mutex::new(state)) })
    }
}

/// The client of a [`RabbitMqConnection`].
pub struct RabbitMqClient {
    dial: Arc<Dial>,
    state: Arc<Mutex<State>>,
}

type Outcome = Result<Arc<Session>, DeliverError>;

struct State {
    session: Option<Arc<Session>>,
    /// The attempt that is under way.
    attempt: Option<(watch::Receiver<Option<Outcome>>, AbortHandle)>,
    /// The error of the last attempt, if it has failed, and when the next one may begin.
    failure: Option<(DeliverError, Instant)>,
    backoff: Backoff,
}

impl RabbitMqClient {
    /// The session. The first delivery that asks for it makes it.
    ///
    /// # Errors
    ///
    /// When there is none now. If it is known that the server does not work, this takes less than a second.
    pub(super) async fn session(&self) -> Outcome {
        let (mut attempt, last) = {
            let mut state = lock(&self.state);
            if let Some(session) = &state.session {
                match session.is_usable() {
                    true => return Ok(Arc::clone(session)),
                    false => state.session = None,
                }
            }
            match &state.failure {
                Some((error, until)) if Instant::now() < *until => return Err(error.clone()),
                _ => {}
            }
            let last = state.failure.as_ref().map(|(error, _)| error.clone());
            let attempt = match &state.attempt {
                Some((attempt, _)) => attempt.clone(),
                None => self.begin(&mut state),
            };
            (attempt, last)
        };
        let patience = if last.is_some() { PATIENCE } else { ATTEMPT * 2 };
        let outcome = match timeout(patience, attempt.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            // The attempt has panicked, or the client is dropped.
            Ok(Err(_)) => None,
            Err(_) => last.map(Err),
        };
        let ended =
            || DeliverError::new(DeliverErrorKind::Connect, "the attempt to connect has ended without a result");
        outcome.unwrap_or_else(|| Err(ended()))
    }

    /// Begins an attempt, which goes on if the delivery that asked for it is dropped.
    fn begin(&self, state: &mut State) -> watch::Receiver<Option<Outcome>> {
        let (sender, receiver) = watch::channel(None);
        let (dial, shared) = (Arc::clone(&self.dial), Arc::clone(&self.state));
        let task = tokio::spawn(async move {
            let made = timeout(ATTEMPT, Session::open(&dial)).await;
            let made = made.unwrap_or_else(|_| Err(dial.silent(ATTEMPT)));
            let outcome = made.map(Arc::new);
            {
                let mut state = lock(&shared);
                state.attempt = None;
                match &outcome {
                    Ok(session) => {
                        state.session = Some(Arc::clone(session));
                        state.failure = None;
                        state.backoff.reset();
                    }
                    Err(error) => {
                        let wait = state.backoff.next();
                        state.failure = Some((error.clone(), Instant::now() + wait));
                    }
                }
            }
            sender.send_replace(Some(outcome));
        });
        state.attempt = Some((receiver.clone(), task.abort_handle()));
        receiver
    }
}

impl Drop for RabbitMqClient {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some((_, task)) = state.attempt.take() {
            task.abort();
        }
        let session = state.session.take();
        drop(state);
        drop(session);
    }
}

/// Omits the address and the login.
impl fmt::Debug for RabbitMqConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConnection").finish_non_exhaustive()
    }
}

impl fmt::Debug for RabbitMqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqClient").finish_non_exhaustive()
    }
}
