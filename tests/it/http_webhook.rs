//! The module `http_webhook`, against scripted servers.

mod again;
mod answers;
mod connection;
mod connections;
mod faults;
mod guard;
mod h2;
mod nginx;
mod options;
mod request;
mod signature;
pub(crate) mod target;
mod trust;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::{Egress, HttpWebhook, HttpWebhookConfig, Module};
use tower_webhook::{Receiver, Registry, Store, receiver};

use crate::support::{Answer, ask, store_of};

/// Every URL contains this text, and no message may.
const SECRET: &str = "s3cret";

/// A webhook that uses the module, and the outcomes of its events.
struct Hook {
    store: Store,
    service: Receiver,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

type Outcome = Result<Ack, DeliverError>;

impl Hook {
    /// A webhook with these options; the policy allows connections to this machine.
    async fn new(options: Value) -> Self {
        Self::by(loopback(), options).await
    }

    async fn by(egress: Egress, options: Value) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let registry = Registry::builtin().module_fn("http_webhook", move |config: HttpWebhookConfig, _| {
            assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
            let module = HttpWebhook::new(&egress, config)?;
            assert!(!format!("{module:?}").contains(SECRET), "{module:?}");
            Ok(Spy { module, outcomes: sender.clone() })
        });
        let webhook = json!({"module": "http_webhook", "data_type": "blob", "module-config": options}).to_string();
        let store = store_of(registry, &[("shop", "hook", &webhook)]).await;
        Self { service: receiver(store.clone()), store, outcomes }
    }

    /// The reason why its configuration is refused.
    fn refusal(&self) -> String {
        let snapshot = self.store.status().snapshot;
        let reasons: Vec<_> = snapshot.refusals().map(|(_, refusal)| refusal.reason().to_owned()).collect();
        let [reason] = &reasons[..] else { panic!("{reasons:?}") };
        assert!(!reason.contains(SECRET), "{reason}");
        reason.clone()
    }

    /// The answer to the sender, and the module's outcome.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> (Answer, Outcome) {
        let answer = ask(&self.service, request).await;
        let outcome = self.outcomes.try_recv().expect("the module was not asked");
        if let Err(error) = &outcome {
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
        (answer, outcome)
    }

    /// Sends an event, which must be delivered.
    async fn deliver(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let (answer, outcome) = self.send(request).await;
        assert_eq!(outcome.unwrap(), Ack::Delivered);
        answer.assert_accepted();
        answer
    }

    /// Sends an event, whose delivery must fail.
    async fn fail(&mut self, kind: DeliverErrorKind) -> DeliverError {
        let (answer, outcome) = self.send(event("{}")).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let status = if kind == DeliverErrorKind::Timeout { 504 } else { 502 };
        answer.problem_of(status, &error);
        error
    }
}

impl Answer {
    fn problem_of(&self, status: u16, error: &DeliverError) {
        assert_eq!(self.status, status, "{error}: {self:?}");
    }
}

/// An egress that allows connections to this machine.
fn loopback() -> Egress {
    Egress::new("127.0.0.0/8".parse().unwrap())
}

fn event(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    event_with(&[], body)
}

fn event_with(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::post("/shop/hook");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

struct Spy {
    module: HttpWebhook,
    outcomes: mpsc::UnboundedSender<Outcome>,
}

impl Module for Spy {
    async fn deliver(&self, delivery: Delivery) -> Outcome {
        let outcome = self.module.deliver(delivery).await;
        self.outcomes.send(outcome.clone()).unwrap();
        outcome
    }
}
