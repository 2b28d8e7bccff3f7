//! The connection type `activemq`, and the client that deliveries share.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::config::ActiveMqConnectionConfig;
use super::dial::Dialer;
use super::error;
use super::link::{Link, Outgoing};
use crate::base::lock::lock;
use crate::config::BuildError;
use crate::egress::{Egress, check_host};
use crate::event::DeliverError;
use crate::module::broker::{Dial, Sessions};
use crate::module::connection::{ConnectionContext, ConnectionKind};

/// The longest body of a message that may share the connection before a longer one was confirmed, in bytes.
const SHARED: usize = 64 << 10;

/// The most messages that are tried alone at a time.
const MOST_ALONE: usize = 8;

/// The most destinations that are remembered.
const MOST_DESTINATIONS: usize = 1024;

/// A connection to ActiveMQ, or to another server that speaks STOMP 1.2, such as RabbitMQ with its plugin.
///
/// ```json
/// {"type": "activemq", "host": "activemq.internal", "user": "webhooks", "password": "{$ACTIVEMQ_PASSWORD}"}
/// ```
///
/// All webhooks that name it share one network connection, with at most 64 messages on their way at a time. It is made by
/// the first delivery; if it is lost, it is made anew at once, and then with waits of up to 5 s. Meanwhile deliveries fail
/// with the error of the last attempt. Heart-beats show a server that is silent: it is given up after about 10 s.
///
/// A server ends the whole connection for one message that it does not like. So messages to a destination that has
/// not confirmed one yet, or longer ones than it has confirmed, go over up to 8 further connections, one at a time each.
pub struct ActiveMqConnection {
    dialer: Dialer,
}

impl ActiveMqConnection {
    /// Connects through `egress`, which checks each address.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`ActiveMqConnectionConfig`], or a server is an address that the policy of
    /// `egress` refuses. The addresses of names are checked when a connection is made.
    pub fn new(egress: &Egress, config: ActiveMqConnectionConfig) -> Result<Self, BuildError> {
        let access = config.read()?;
        for server in &access.servers {
            check_host(&server.host, egress.policy()).map_err(|error| format!("the host {error}"))?;
        }
        Ok(Self { dialer: Dialer::new(egress, access)? })
    }
}

impl ConnectionKind for ActiveMqConnection {
    const TYPE: &'static str = "activemq";
    type Config = ActiveMqConnectionConfig;
    type Client = ActiveMqClient;

    /// Connects to public addresses only; [`Registry::egress`](crate::Registry::egress) allows others.
    fn build(config: ActiveMqConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    /// Begins to connect, and does not wait for it.
    async fn connect(&self) -> Result<ActiveMqClient, DeliverError> {
        Ok(ActiveMqClient {
            sessions: Sessions::open(self.dialer.clone()),
            dialer: self.dialer.clone(),
            proven: Mutex::default(),
            alone: Semaphore::new(MOST_ALONE),
            idle: Mutex::default(),
        })
    }
}

/// The client of an [`ActiveMqConnection`].
pub struct ActiveMqClient {
    /// The shared connection.
    sessions: Sessions<Link>,
    dialer: Dialer,
    /// The destinations to which a message was confirmed, and none failed since, with the length of the longest one.
    proven: Mutex<HashMap<String, usize>>,
    alone: Semaphore,
    /// A connection for one message, to be used again.
    idle: Mutex<Option<Link>>,
}

impl ActiveMqClient {
    /// Sends a message, and waits until the server has confirmed it. There is no time limit.
    pub(super) async fn send(&self, message: &Outgoing) -> Result<(), DeliverError> {
        // While the server is down, this fails within a second.
        let shared = self.sessions.current().await?;
        let outcome = match self.is_proven(message) {
            true => shared.send(message).await,
            false => self.send_alone(message).await,
        };
        let mut proven = lock(&self.proven);
        match &outcome {
            Ok(()) => {
                if proven.len() >= MOST_DESTINATIONS && !proven.contains_key(&message.destination) {
                    proven.clear();
                }
                let longest = proven.entry(message.destination.clone()).or_default();
                *longest = message.body.len().max(*longest);
            }
            Err(_) => drop(proven.remove(&message.destination)),
        }
        outcome
    }

    fn is_proven(&self, message: &Outgoing) -> bool {
        let proven = lock(&self.proven);
        proven.get(&message.destination).is_some_and(|longest| message.body.len() <= SHARED.max(*longest))
    }

    async fn send_alone(&self, message: &Outgoing) -> Result<(), DeliverError> {
        let _permit: SemaphorePermit<'_> = self.alone.acquire().await.map_err(|_| error::lost())?;
        let idle = lock(&self.idle).take().filter(Link::is_usable);
        let link = match idle {
            Some(link) => link,
            None => self.dialer.dial().await?,
        };
        // If the attempt takes too long, the link is dropped, so that no message is behind one without a receipt.
        let outcome = link.send(message).await;
        if outcome.is_ok() && link.is_usable() {
            *lock(&self.idle) = Some(link);
        }
        outcome
    }
}

/// Shows only the servers: everything else may hold a secret.
impl fmt::Debug for ActiveMqConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveMqConnection").field("servers", &self.dialer.servers()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ActiveMqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveMqClient").finish_non_exhaustive()
    }
}
