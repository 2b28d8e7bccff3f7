//! Modules of an application.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tower_webhook::Registry;
use tower_webhook::config::{BuildContext, BuildError};
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::connection::{ConnectionContext, ConnectionKind, Shared};
use tower_webhook::module::{ConfigModule, Module};

/// Everything that was delivered.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Delivery>>>);

impl Seen {
    /// The built-in registry with the module `capture`.
    pub(crate) fn registry(&self) -> Registry {
        let seen = self.clone();
        Registry::builtin().connection::<Greeter>().module_fn("capture", move |_: Nothing, cx| {
            Ok(Capture { seen: seen.clone(), _connection: cx.optional_connection()? })
        })
    }

    pub(crate) fn push(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }

    pub(crate) fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[derive(Deserialize)]
pub(crate) struct Nothing {}

pub(crate) struct Capture {
    seen: Seen,
    _connection: Option<Shared<Greeter>>,
}

impl Module for Capture {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        self.seen.push(delivery);
        Ok(Ack::Delivered)
    }
}

/// A module that fails every event.
pub(crate) struct Broken {
    how: How,
}

#[derive(Deserialize)]
pub(crate) struct BrokenConfig {
    how: How,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Fail,
    Unavailable,
    Timeout,
    Hang,
    Panic,
    PanicAtOnce,
    PanicWhenBuilt,
}

impl Module for Broken {
    fn deliver(&self, _: Delivery) -> impl Future<Output = Result<Ack, DeliverError>> + Send {
        let how = self.how;
        if matches!(how, How::PanicAtOnce) {
            panic!("as configured, before there is a future");
        }
        async move {
            let kind = match how {
                How::Fail => DeliverErrorKind::Connect,
                How::Unavailable => DeliverErrorKind::Io,
                How::Timeout => DeliverErrorKind::Timeout,
                How::Panic => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    panic!("as configured, while it delivers")
                }
                How::Hang => std::future::pending().await,
                How::PanicAtOnce | How::PanicWhenBuilt => unreachable!("it panicked"),
            };
            Err(DeliverError::new(kind, "an-internal-reason"))
        }
    }
}

impl ConfigModule for Broken {
    const NAME: &'static str = "broken";
    type Config = BrokenConfig;

    fn build(config: BrokenConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        match config.how {
            How::PanicWhenBuilt => panic!("as configured, while it is built"),
            how => Ok(Self { how }),
        }
    }
}

/// A module that waits until the test decides whether it takes or refuses the event.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    calls: Arc<AtomicUsize>,
    /// `None` while the module waits.
    verdict: watch::Sender<Option<bool>>,
}

impl Gate {
    /// The built-in registry with the module `gate`.
    pub(crate) fn registry(&self) -> Registry {
        let gate = self.clone();
        Registry::builtin().module_fn("gate", move |_: Nothing, _| Ok(gate.clone()))
    }

    pub(crate) fn shut(&self) {
        self.verdict.send_replace(None);
    }

    pub(crate) fn take_all(&self) {
        self.verdict.send_replace(Some(true));
    }

    pub(crate) fn refuse_all(&self) {
        self.verdict.send_replace(Some(false));
    }

    /// The number of events that the module has been given.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) async fn was_called(&self, times: usize) {
        super::eventually("the module to be called", async || self.calls() == times).await;
    }
}

impl Module for Gate {
    async fn deliver(&self, _: Delivery) -> Result<Ack, DeliverError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut verdict = self.verdict.subscribe();
        let verdict = verdict.wait_for(Option::is_some).await.map(|verdict| *verdict);
        match verdict {
            Ok(Some(true)) => Ok(Ack::Delivered),
            _ => Err(DeliverError::new(DeliverErrorKind::Connect, "as told")),
        }
    }
}

/// A kind of connections that never connect.
#[derive(Deserialize)]
pub(crate) struct Greeter {
    #[serde(default)]
    greeting: String,
}

impl ConnectionKind for Greeter {
    const TYPE: &'static str = "greeter";

    type Config = Self;

    type Client = ();

    fn build(config: Self, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        match config.greeting.as_str() {
            "panic" => panic!("as told"),
            _ => Ok(config),
        }
    }

    async fn connect(&self) -> Result<(), DeliverError> {
        Ok(())
    }
}

/// A module that shows the connection it was built with: the connection's `greeting`.
pub(crate) struct Greets;

impl Module for Greets {
    async fn deliver(&self, _: Delivery) -> Result<Ack, DeliverError> {
        Ok(Ack::Delivered)
    }
}

impl ConfigModule for Greets {
    const NAME: &'static str = "greets";
    type Config = Nothing;

    fn build(_: Nothing, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        match cx.connection::<Greeter>()?.kind().greeting.as_str() {
            "rude" => Err("the greeting is rude".into()),
            _ => Ok(Self),
        }
    }
}
