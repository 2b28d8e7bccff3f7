//! The layers in their recommended order, written once.
//!
//! ```text
//! ProblemJson        refusals get a body
//! Observe            metrics, with the feature `metrics`
//! RouteNamespace     400 404
//! RequirePost        405
//! LookupWebhook      404 503
//! RequireAuth        401 403 503
//! CallAuth           401 403 503  not one byte of the body has been read so far
//! CollectBody        413 408 400
//! VerifyBody         401
//! CheckPayload       400 415
//! Finish             from here on it does not matter whether the sender waits
//! Dedup              409 400
//! Dispatch           200 202 502 503 504
//!  ├─ delivered: the module, then the answer
//!  └─ accepted:  the queue, then the answer; its worker gives the event to the module
//! ```
//!
//! A receiver is an ordinary tower service. In axum:
//!
//! ```
//! use axum::Router;
//! use tower_webhook::{FixedSource, Registry, receiver, reflect};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let source = FixedSource::new()
//!     .webhook("default", "orders", r#"{"module": "discard", "authorization": "Bearer s3cret"}"#)
//!     .unwrap();
//! let (store, reflector) = reflect(source, Registry::builtin());
//! tokio::spawn(reflector.run());
//! store.wait_ready().await;
//!
//! let app: Router = Router::new().nest_service("/webhook", receiver(store));
//!
//! use http::Request;
//! use tower::ServiceExt;
//! let request = Request::post("/webhook/orders")
//!     .header("authorization", "Bearer s3cret")
//!     .body(axum::body::Body::from("{}"))
//!     .unwrap();
//! assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
//! # }
//! ```

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::config::InvalidName;
use crate::dedup::Claims;
use crate::event::receipt;
use crate::layers::{
    CallAuth, CallAuthLayer, CheckPayload, CheckPayloadLayer, CollectBody, CollectBodyLayer, Dedup, DedupLayer,
    Dispatch, Finish, FinishLayer, LookupWebhook, LookupWebhookLayer, Observe, ObserveLayer, Remainders, RequireAuth,
    RequireAuthLayer, RequirePost, RequirePostLayer, RouteNamespace, RouteNamespaceLayer, VerifyBody, VerifyBodyLayer,
    problem_json,
};
use crate::queue::Queue;
use crate::request::{BodyMemory, ResponseBody};
use crate::store::Store;

/// A whole webhook receiver for the paths `/{id}` and `/{namespace}/{id}`, with default limits.
pub fn receiver(store: Store) -> Receiver {
    ReceiverBuilder::new().build(store)
}

/// Settings of a [`Receiver`].
#[derive(Clone, Debug)]
pub struct ReceiverBuilder {
    route: RouteNamespaceLayer,
    call: CallAuthLayer,
    collect: CollectBodyLayer,
    dedup: DedupLayer,
    dispatch: Dispatch,
}

impl ReceiverBuilder {
    /// The default limits: see [`CallAuthLayer`], [`CollectBodyLayer`] and [`Dispatch`].
    pub fn new() -> Self {
        Self {
            route: RouteNamespaceLayer::from_path(),
            call: CallAuthLayer::new(),
            collect: CollectBodyLayer::new(),
            dedup: DedupLayer::without_claims(),
            dispatch: Dispatch::new(),
        }
    }

    /// The namespace of `/{id}`; `default` if this is not called.
    ///
    /// # Errors
    ///
    /// When it is not a valid namespace.
    pub fn default_namespace(mut self, namespace: &str) -> Result<Self, InvalidName> {
        self.route = self.route.default_namespace(namespace)?;
        Ok(self)
    }

    /// What every path begins with, if the receiver is not mounted below a path already.
    #[must_use]
    pub fn prefix(mut self, path: &str) -> Self {
        self.route = self.route.prefix(path);
        self
    }

    /// The time that guards may take to ask other servers about one request.
    #[must_use]
    pub fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call = self.call.deadline(deadline);
        self
    }

    /// How many requests of a webhook may wait for other servers at a time: see [`CallAuthLayer::max_calls`].
    #[must_use]
    pub fn max_calls(mut self, per_webhook: usize) -> Self {
        self.call = self.call.max_calls(per_webhook);
        self
    }

    /// The largest body that is taken, in bytes.
    #[must_use]
    pub fn max_body_bytes(mut self, max_bytes: usize) -> Self {
        self.collect = self.collect.max_bytes(max_bytes);
        self
    }

    /// The budget for the bodies in memory, all together. Without this call only each body is bounded.
    #[must_use]
    pub fn body_memory(mut self, memory: BodyMemory) -> Self {
        self.collect = self.collect.memory(memory);
        self
    }

    /// The time a whole body may take.
    #[must_use]
    pub fn body_deadline(mut self, deadline: Duration) -> Self {
        self.collect = self.collect.deadline(deadline);
        self
    }

    /// Where events that come twice are known by. Without this call a webhook with the key `dedup` answers 500; see
    /// [`Registry::dedup`](crate::webhook::Registry::dedup), which refuses such a webhook at once.
    #[must_use]
    pub fn dedup(mut self, claims: Claims) -> Self {
        self.dedup = DedupLayer::new(claims).answer_duplicates(receipt::dispatch_answer);
        self
    }

    /// The time a module may take.
    #[must_use]
    pub fn delivery_deadline(mut self, deadline: Duration) -> Self {
        self.dispatch = self.dispatch.deadline(deadline);
        self
    }

    /// Where the events of webhooks with `"ack": "accepted"` go.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.dispatch = self.dispatch.queue(queue);
        self
    }

    /// The receiver for the webhooks of `store`.
    pub fn build(self, store: Store) -> Receiver {
        let finish = FinishLayer::new();
        let remainders = finish.remainders();
        let service = finish.layer(self.dedup.layer(self.dispatch));
        let service = CheckPayloadLayer::from_webhook().layer(service);
        let service = VerifyBodyLayer::new().layer(service);
        let service = self.collect.layer(service);
        let service = self.call.layer(service);
        let service = RequireAuthLayer::from_webhook().call_auth_follows().verify_body_follows().layer(service);
        let service = RequirePostLayer::new().layer(LookupWebhookLayer::new(store).layer(service));
        let service = self.route.layer(service);
        Receiver { stack: ObserveLayer::new().layer(service), remainders }
    }
}

impl Default for ReceiverBuilder {
    fn default() -> Self {
        Self::new()
    }
}

type Guarded = RequireAuth<CallAuth<CollectBody<VerifyBody<CheckPayload<Finish<Dedup<Dispatch>>>>>>>;
type Stack = Observe<RouteNamespace<RequirePost<LookupWebhook<Guarded>>>>;

/// A whole webhook receiver. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Receiver {
    stack: Stack,
    remainders: Remainders,
}

impl Receiver {
    /// The events that are being finished though their senders are gone: a server waits for them before it ends.
    pub fn remainders(&self) -> Remainders {
        self.remainders.clone()
    }
}

impl<B: Body> Service<Request<B>> for Receiver {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ReceiverFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.stack, cx)
    }

    fn call(&mut self, req: Request<B>) -> Self::Future {
        ReceiverFuture { future: self.stack.call(req) }
    }
}

/// Response future of [`Receiver`].
#[pin_project]
pub struct ReceiverFuture<B: Body> {
    #[pin]
    future: <Stack as Service<Request<B>>>::Future,
}

impl<B: Body> fmt::Debug for ReceiverFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverFuture").finish_non_exhaustive()
    }
}

impl<B: Body> Future for ReceiverFuture<B> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().future.poll(cx))?;
        // As `ProblemJson` does it, without a body type of its own.
        if let Some(document) = problem_json::describe(&mut response) {
            *response.body_mut() = document.into();
        }
        Poll::Ready(Ok(response))
    }
}
