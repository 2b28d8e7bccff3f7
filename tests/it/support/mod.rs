//! Helpers that the tests share.

pub(crate) mod body;
pub(crate) mod dns;
pub(crate) mod driven;
pub(crate) mod frames;
pub(crate) mod history;
pub(crate) mod modules;
pub(crate) mod nginx;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod schemes;
pub(crate) mod scripted;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_webhook::config::Target;
use tower_webhook::layers::RouteNamespaceLayer;
use tower_webhook::receiver::{Live, ReceiverBuilder};
use tower_webhook::request::Collected;
use tower_webhook::source::FixedSource;
use tower_webhook::source::Source;
use tower_webhook::{Receiver, Registry, Rejection, RejectionKind, Store, reflect};

/// The authorization that the webhook `guarded` of [`store`] asks for.
pub(crate) const CREDENTIAL: &str = "Bearer s3cret-token";

/// Far longer than anything takes, and short enough for a person who waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, with a time limit.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("in {PATIENCE:?} this did not happen: {what}"),
    }
}

/// Repeats `f` until it returns `true`, with a time limit.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut f: impl FnMut() -> F) {
    within(what, async {
        while !f().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A store with the configuration from `source`.
pub(crate) async fn reflected(source: impl Source, registry: Registry) -> Store {
    let (store, reflector) = reflect(source, registry);
    tokio::spawn(reflector.run());
    store.wait_ready(PATIENCE).await.unwrap();
    store
}

/// A store with these webhooks: namespace, id, JSON.
pub(crate) async fn store_of(registry: Registry, webhooks: &[(&str, &str, &str)]) -> Store {
    reflected(fixed(webhooks), registry).await
}

fn fixed(webhooks: &[(&str, &str, &str)]) -> FixedSource {
    webhooks.iter().fold(FixedSource::new(), |source, (namespace, id, json)| {
        source.webhook(namespace, id, json.to_string()).unwrap()
    })
}

/// A receiver of these webhooks: namespace, id, JSON.
pub(crate) async fn receiver_of(
    registry: Registry,
    webhooks: &[(&str, &str, &str)],
    settings: impl FnOnce(ReceiverBuilder<Live<FixedSource>>) -> ReceiverBuilder<Live<FixedSource>>,
) -> Receiver {
    let builder = Receiver::builder(fixed(webhooks)).registry(registry);
    let running = settings(builder).start(std::future::pending());
    running.store.wait_ready(PATIENCE).await.unwrap();
    running.receiver
}

/// `shop/guarded` needs [`CREDENTIAL`], `shop/open` nothing; `shop/blob` accepts any bytes, and `shop/broken` does not
/// compile.
pub(crate) async fn store() -> Store {
    let guarded = format!(r#"{{"module": "discard", "authorization": "{CREDENTIAL}"}}"#);
    store_of(
        Registry::builtin(),
        &[
            ("shop", "guarded", &guarded),
            ("shop", "open", r#"{"module": "discard"}"#),
            ("shop", "blob", r#"{"module": "discard", "data_type": "blob"}"#),
            ("shop", "broken", r#"{"module": "discard", "autorization": "Bearer x"}"#),
        ],
    )
    .await
}

pub(crate) fn target(namespace: &str, id: &str) -> Target {
    Target::new(namespace, id).unwrap()
}

/// The request as it leaves [`RouteNamespaceLayer`].
pub(crate) fn routed(request: Request<Collected>, namespace: &str, id: &str) -> Request<Collected> {
    let inner = service_fn(|request| ready(Ok::<_, Infallible>(Response::new(Some(request)))));
    let mut route = RouteNamespaceLayer::fixed(namespace, id).unwrap().layer(inner);
    route.call(request).now_or_never().unwrap().unwrap().into_body().unwrap()
}

/// A POST with [`CREDENTIAL`].
pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("authorization", CREDENTIAL).body(Full::new(body.into())).unwrap()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) rejection: Option<RejectionKind>,
}

impl Answer {
    pub(crate) async fn of<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        let rejection = head.extensions.get::<Rejection>().map(Rejection::kind);
        let body = within("the whole answer", body.collect()).await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body, rejection }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks that it is a problem document of `status`, and returns its `detail`.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], status);
        json["detail"].as_str().unwrap_or_else(|| panic!("no detail in {json}")).to_owned()
    }

    pub(crate) fn assert_accepted(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.text(), r#"{"message":"200 OK"}"#);
    }
}

/// Asks a service once and reads its answer.
pub(crate) async fn ask<S, ReqBody, ResBody>(service: &S, request: Request<ReqBody>) -> Answer
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: std::fmt::Debug> + Clone,
    ResBody: Body<Error: std::fmt::Debug>,
{
    let response = within("an answer", service.clone().oneshot(request)).await.unwrap();
    Answer::of(response).await
}
