//! Connections: clients that the modules of several webhooks share.
//!
//! A webhook names a connection with the key `connection`. The connection's configuration has a `type`, and each type
//! is registered like a module. A module asks for the connection when it is built, and for the client when it delivers:
//!
//! ```
//! use serde::Deserialize;
//! use tokio::net::TcpStream;
//! use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
//! use tower_webhook::module::{ConfigModule, Module};
//! use tower_webhook::module::connection::{ConnectionContext, ConnectionKind, Shared};
//! use tower_webhook::config::{BuildContext, BuildError};
//! use tower_webhook::Registry;
//!
//! /// A connection `{"type": "line", "address": "127.0.0.1:5170"}`.
//! struct Line { address: String }
//!
//! #[derive(Deserialize)]
//! struct LineConfig { address: String }
//!
//! impl ConnectionKind for Line {
//!     const TYPE: &'static str = "line";
//!     type Config = LineConfig;
//!     type Client = TcpStream;
//!
//!     fn build(config: LineConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
//!         Ok(Self { address: config.address })
//!     }
//!
//!     async fn connect(&self) -> Result<TcpStream, DeliverError> {
//!         let connected = TcpStream::connect(&self.address).await;
//!         connected.map_err(|error| DeliverError::new(DeliverErrorKind::Connect, error.to_string()))
//!     }
//! }
//!
//! struct ToLine { line: Shared<Line> }
//!
//! #[derive(Deserialize)]
//! struct ToLineConfig {}
//!
//! impl Module for ToLine {
//!     async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
//!         let stream = self.line.client().await?;
//!         // A real module writes the event and waits for an answer.
//! #       let _ = (stream, delivery);
//!         Ok(Ack::Delivered)
//!     }
//! }
//!
//! impl ConfigModule for ToLine {
//!     const NAME: &'static str = "to_line";
//!     type Config = ToLineConfig;
//!
//!     fn build(_: ToLineConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
//!         Ok(Self { line: cx.connection()? })
//!     }
//! }
//!
//! let registry = Registry::builtin().connection::<Line>().module::<ToLine>();
//! ```
//!
//! # The life of a client
//!
//! The first delivery that asks for the client makes it. The client is kept while a served webhook names the connection
//! and the bytes of the connection do not change, whatever else changes. Then it is dropped, once the last delivery
//! that uses it has ended.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::lock::lock;
use crate::config::{BuildContext, BuildError, BuiltConnection, CompileError, SharedClient};
use crate::event::{DeliverError, DeliverErrorKind};

/// The time limit for making a client.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kind of connections. See the [module docs](self) for an example.
pub trait ConnectionKind: Send + Sync + Sized + 'static {
    /// The `type` of this kind in the configuration.
    const TYPE: &'static str;

    /// The keys of the configuration, except `type` and `allowed_namespaces`. Unknown fields of a struct are refused.
    type Config: DeserializeOwned;

    /// The client that deliveries share: a pool, or one session. It must recover from a broken connection by itself.
    type Client: Send + Sync + 'static;

    /// Checks the configuration. Pure: it opens no files and sockets and starts no tasks.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work. The text is shown to operators and must not hold a secret.
    fn build(config: Self::Config, cx: &ConnectionContext<'_>) -> Result<Self, BuildError>;

    /// Makes the client, within 10 s. There is never more than one call at a time for a connection. The future may be
    /// dropped at any await.
    ///
    /// # Errors
    ///
    /// When the client cannot be made now. The deliveries that wait for it fail with this error; the next delivery
    /// tries again.
    fn connect(&self) -> impl Future<Output = Result<Self::Client, DeliverError>> + Send;
}

/// The facts that a kind of connections may use when it is built.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionContext<'a> {
    name: &'a str,
}

impl<'a> ConnectionContext<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self { name }
    }

    /// The name of the connection.
    pub fn name(&self) -> &'a str {
        self.name
    }
}

/// A connection of kind `K`, shared by the modules of all webhooks that name it. A clone is the same connection.
pub struct Shared<K: ConnectionKind>(Arc<Inner<K>>);

struct Inner<K: ConnectionKind> {
    name: Box<str>,
    kind: K,
    state: Mutex<State<K::Client>>,
    /// One permit, held by the delivery that makes the client.
    making: Semaphore,
}

struct State<C> {
    /// Whether a served webhook names the connection. If none does, the client is not kept.
    is_open: bool,
    client: Option<Arc<C>>,
    /// The number of failed attempts to make the client, and the last error.
    failures: u64,
    error: Option<DeliverError>,
}

impl<K: ConnectionKind> Shared<K> {
    fn new(name: &str, kind: K) -> Self {
        let state = State { is_open: false, client: None, failures: 0, error: None };
        let making = Semaphore::new(1);
        Self(Arc::new(Inner { name: name.into(), kind, state: Mutex::new(state), making }))
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The kind, as made by [`ConnectionKind::build`].
    pub fn kind(&self) -> &K {
        &self.0.kind
    }

    /// The client. The first delivery that asks for it makes it; others that ask meanwhile wait for the outcome and
    /// share it.
    ///
    /// # Errors
    ///
    /// When it cannot be made now.
    pub async fn client(&self) -> Result<Arc<K::Client>, DeliverError> {
        let failures = {
            let state = self.0.lock();
            if let Some(client) = &state.client {
                return Ok(Arc::clone(client));
            }
            state.failures
        };
        let _making = self.0.making.acquire().await;
        {
            let state = self.0.lock();
            if let Some(client) = &state.client {
                return Ok(Arc::clone(client));
            }
            // This delivery has waited for an attempt that failed. If it tried again, the deliveries behind it would wait
            // for one attempt after another.
            if let Some(error) = state.error.as_ref().filter(|_| state.failures != failures) {
                return Err(error.clone());
            }
        }
        let late = || {
            let text = format!("the connection `{}` could not be made within {PATIENCE:?}", self.0.name);
            DeliverError::new(DeliverErrorKind::Timeout, text)
        };
        let made = timeout(PATIENCE, self.0.kind.connect()).await.unwrap_or_else(|_| Err(late()));
        let mut state = self.0.lock();
        match made {
            Ok(client) => {
                let client = Arc::new(client);
                state.client = state.is_open.then(|| Arc::clone(&client));
                state.error = None;
                Ok(client)
            }
            Err(error) => {
                state.failures += 1;
                state.error = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl<K: ConnectionKind> Inner<K> {
    fn lock(&self) -> MutexGuard<'_, State<K::Client>> {
        lock(&self.state)
    }
}

impl<K: ConnectionKind> SharedClient for Inner<K> {
    fn open(&self) {
        self.lock().is_open = true;
    }

    fn close(&self) {
        let client = {
            let mut state = self.lock();
            state.is_open = false;
            state.client.take()
        };
        // Outside of the lock, because it may take long. A panic must not end the reflector, which calls this function.
        if catch_unwind(AssertUnwindSafe(|| drop(client))).is_err() {
            tracing::error!(connection = &*self.name, "the client of a connection panicked while it was dropped");
        }
    }
}

impl<K: ConnectionKind> Clone for Shared<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Omits the kind, which may hold an address or a credential.
impl<K: ConnectionKind> fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.0.name).field("type", &K::TYPE).finish_non_exhaustive()
    }
}

/// Erases the type of the kind.
pub(crate) fn erase<K: ConnectionKind>(name: &str, kind: K) -> BuiltConnection {
    let Shared(inner) = Shared::new(name, kind);
    BuiltConnection { handle: Arc::clone(&inner) as _, client: inner }
}

/// The error of a delivery to `host`, a name and a port, that has no connection.
#[cfg(feature = "_egress")]
#[cfg_attr(not(feature = "http-webhook"), allow(dead_code))]
pub(crate) fn unconnected(host: &str, error: &crate::egress::ConnectError) -> DeliverError {
    use crate::egress::ConnectError as Error;
    let kind = match error {
        Error::Forbidden(..) => DeliverErrorKind::Config,
        Error::Timeout => DeliverErrorKind::Timeout,
        Error::Unknown(_) | Error::Resolve(_) | Error::Connect(_) | Error::Tls(_) => DeliverErrorKind::Connect,
    };
    DeliverError::new(kind, format!("{host}: {error}"))
}

impl BuildContext<'_> {
    /// The connection that the webhook names, which must be of kind `K`. All modules that ask for the same connection
    /// share it. If no module asks for it, the operator is warned that the webhook's key `connection` has no effect.
    ///
    /// # Errors
    ///
    /// When the webhook names no connection, or one of another kind.
    pub fn connection<K: ConnectionKind>(&self) -> Result<Shared<K>, BuildError> {
        self.optional_connection()?
            .ok_or_else(|| misnamed(format!("this module needs a connection of the type `{}`", K::TYPE)))
    }

    /// Like [`connection`](Self::connection), for a module that can work without a connection.
    ///
    /// # Errors
    ///
    /// When the webhook names a connection of another kind.
    pub fn optional_connection<K: ConnectionKind>(&self) -> Result<Option<Shared<K>>, BuildError> {
        let Some(connection) = self.named_connection() else { return Ok(None) };
        match Arc::clone(connection.handle()).downcast() {
            Ok(inner) => Ok(Some(Shared(inner))),
            Err(_) => {
                let (name, kind) = (connection.name(), connection.kind());
                let text = format!("`{name}` is of the type `{kind}`, and this module needs the type `{}`", K::TYPE);
                Err(misnamed(text))
            }
        }
    }
}

fn misnamed(text: String) -> BuildError {
    CompileError::new(text).inside("connection").into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde::Deserialize;

    use super::*;

    /// A kind for tests that never connect.
    pub(crate) struct Plain;

    #[derive(Deserialize)]
    pub(crate) struct PlainConfig {}

    impl ConnectionKind for Plain {
        const TYPE: &'static str = "plain";
        type Config = PlainConfig;
        type Client = ();

        fn build(_: PlainConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
            Ok(Self)
        }

        async fn connect(&self) -> Result<(), DeliverError> {
            Ok(())
        }
    }

    /// Each client needs a permit, and waits without one. `works` decides whether it can be made.
    #[derive(Default)]
    struct Slow {
        begun: AtomicUsize,
        works: std::sync::atomic::AtomicBool,
    }

    static GO: Semaphore = Semaphore::const_new(0);

    impl ConnectionKind for Slow {
        const TYPE: &'static str = "slow";
        type Config = PlainConfig;
        type Client = usize;

        fn build(_: PlainConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
            Ok(Self::default())
        }

        async fn connect(&self) -> Result<usize, DeliverError> {
            let nth = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            GO.acquire().await.unwrap().forget();
            match self.works.load(Ordering::SeqCst) {
                true => Ok(nth),
                false => Err(DeliverError::new(DeliverErrorKind::Connect, format!("attempt {nth}"))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_wait_for_a_client_share_the_outcome() {
        let shared = Shared::new("a", Slow::default());
        shared.0.open();
        let ask = || async {
            let client = shared.client().await;
            client.map(|client| *client).map_err(|error| error.to_string())
        };
        let go = async { GO.add_permits(1) };
        let (first, second, third, ()) = tokio::join!(ask(), ask(), ask(), go);
        assert_eq!([first, second, third], [1, 1, 1].map(|_| Err("attempt 1".to_owned())));
        shared.kind().works.store(true, Ordering::SeqCst);
        let (first, second, ()) = tokio::join!(ask(), ask(), async { GO.add_permits(1) });
        assert_eq!([first, second, ask().await], [Ok(2), Ok(2), Ok(2)], "the next one tries again, once");

        shared.0.close();
        GO.add_permits(2);
        assert_eq!([ask().await, ask().await], [Ok(3), Ok(4)], "nothing is kept that nobody would close");
        shared.0.open();

        // A client that is never completed is given up; an attempt that is dropped lets the next delivery try.
        assert!(ask().await.unwrap_err().starts_with("the connection `a` could not be made within 10s"));
        assert!(timeout(Duration::from_secs(1), ask()).await.is_err());
        GO.add_permits(1);
        assert_eq!(ask().await, Ok(7));
    }
}
