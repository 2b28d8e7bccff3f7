//! Assembles a receiver from its layers and tasks.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::process::Process;
use super::tasks::Tasks;
use crate::config::InvalidName;
use crate::dedup::Claims;
use crate::delivery::WebhookCounters;
use crate::history::History;
use crate::layers::{
    CallAuth, CallAuthLayer, ChallengeLayer, CheckPayloadLayer, Checked, CollectBody, CollectBodyLayer, CountWebhooks,
    CountWebhooksLayer, Dispatch, Finish, FinishLayer, HandshakeLayer, LookupWebhook, LookupWebhookLayer, Observe,
    ObserveLayer, RecordHistory, RecordHistoryLayer, Remainders, RequireAuthLayer, RouteNamespace, RouteNamespaceLayer,
    VerifyBodyLayer, problem_json,
};
use crate::queue::Queue;
use crate::reflector::{OnInvalid, Source, reflect};
use crate::request::{BodyMemory, ResponseBody};
use crate::store::Store;
use crate::webhook::{Capabilities, Registry};
use crate::worker::Worker;

/// A whole webhook receiver for the paths `/{id}` and `/{namespace}/{id}`, with default limits.
pub fn receiver(store: Store) -> Receiver {
    Receiver::of_store(store).build()
}

/// Settings of a [`Receiver`] whose webhooks come from `W`: a [`Store`], or a [source](Receiver::builder).
#[derive(Clone, Debug)]
pub struct ReceiverBuilder<W> {
    webhooks: W,
    route: RouteNamespaceLayer,
    call: CallAuthLayer,
    collect: CollectBodyLayer,
    deadline: Option<Duration>,
    history: Option<History>,
    counters: Option<WebhookCounters>,
}

/// Webhooks from a source, and the parts that serve them. See [`Receiver::builder`].
#[derive(Debug)]
pub struct Live<S> {
    source: S,
    registry: Registry,
    on_invalid: OnInvalid,
    worker: Option<Worker>,
    claims: Option<Claims>,
}

impl Receiver {
    /// A complete receiver: it follows `source`, serves its webhooks and delivers accepted events.
    ///
    /// A webhook may use the parts that the builder was given: `"ack": "accepted"` needs a
    /// [`worker`](ReceiverBuilder::worker), and `dedup` needs [`claims`](ReceiverBuilder::claims). A webhook that needs
    /// a missing part is refused.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower_webhook::dedup::Claims;
    /// use tower_webhook::source::FixedSource;
    /// use tower_webhook::Receiver;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let source = FixedSource::new()
    ///     .webhook("default", "orders", r#"{"module": "discard", "dedup": {"header": "x-id"}}"#)
    ///     .unwrap();
    /// let stop = std::future::pending(); // or until a signal comes
    /// let running = Receiver::builder(source).claims(Claims::in_memory()).start(stop);
    /// running.store.wait_ready(Duration::from_secs(10)).await.unwrap();
    /// let app: axum::Router = axum::Router::new().nest_service("/webhook", running.receiver);
    /// # }
    /// ```
    pub fn builder<S: Source>(source: S) -> ReceiverBuilder<Live<S>> {
        let (registry, on_invalid) = (Registry::builtin(), OnInvalid::default());
        ReceiverBuilder::of(Live { source, registry, on_invalid, worker: None, claims: None })
    }

    /// A receiver for the webhooks of a store that is filled elsewhere. It only delivers while the sender waits, and
    /// has neither queue nor deduplication.
    pub fn of_store(store: Store) -> ReceiverBuilder<Store> {
        ReceiverBuilder::of(store)
    }

    /// The events that are still processed although their senders have hung up. A server waits for them before it ends.
    pub fn remainders(&self) -> Remainders {
        self.remainders.clone()
    }
}

impl<W> ReceiverBuilder<W> {
    /// The default limits: see [`CallAuthLayer`], [`CollectBodyLayer`] and [`Dispatch`].
    fn of(webhooks: W) -> Self {
        Self {
            webhooks,
            route: RouteNamespaceLayer::from_path(),
            call: CallAuthLayer::new(),
            collect: CollectBodyLayer::new(),
            deadline: None,
            history: None,
            counters: None,
        }
    }

    /// Sets the namespace of `/{id}`. The default is `default`.
    ///
    /// # Errors
    ///
    /// When it is not a valid namespace.
    pub fn default_namespace(mut self, namespace: &str) -> Result<Self, InvalidName> {
        self.route = self.route.default_namespace(namespace)?;
        Ok(self)
    }

    /// Sets a prefix of every path, for a receiver that is not mounted below a path. The default is none.
    #[must_use]
    pub fn prefix(mut self, path: &str) -> Self {
        self.route = self.route.prefix(path);
        self
    }

    /// Sets the largest accepted body, in bytes. The default is [25 MiB](CollectBodyLayer::DEFAULT_MAX_BYTES).
    #[must_use]
    pub fn max_body_bytes(mut self, max_bytes: usize) -> Self {
        self.collect = self.collect.max_bytes(max_bytes);
        self
    }

    /// Sets the budget for all bodies in memory together. By default only each body is limited.
    #[must_use]
    pub fn body_memory(mut self, memory: BodyMemory) -> Self {
        self.collect = self.collect.memory(memory);
        self
    }

    /// Sets the time limit for a whole body. The default is [30 s](CollectBodyLayer::DEFAULT_DEADLINE).
    #[must_use]
    pub fn body_deadline(mut self, deadline: Duration) -> Self {
        self.collect = self.collect.deadline(deadline);
        self
    }

    /// Sets the time limit for the calls of guards to other servers, for each request. The default is
    /// [5 s](CallAuthLayer::DEFAULT_DEADLINE).
    #[must_use]
    pub fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call = self.call.deadline(deadline);
        self
    }

    /// Sets the limit of requests of a webhook that wait for other servers: see [`CallAuthLayer::max_calls`]. The default
    /// is [128](CallAuthLayer::DEFAULT_MAX_CALLS).
    #[must_use]
    pub fn max_calls(mut self, per_webhook: usize) -> Self {
        self.call = self.call.max_calls(per_webhook);
        self
    }

    /// Sets the time limit for a module, also for accepted events. The default is [30 s](Dispatch::DEFAULT_DEADLINE).
    #[must_use]
    pub fn delivery_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Tells `history` what happens to each request and each event, as the key `history` of its webhook allows. Without
    /// it, nothing is reported.
    #[must_use]
    pub fn history(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    /// Counts the requests and attempts of each webhook or namespace, as metrics. By default they are only counted
    /// together.
    #[must_use]
    pub fn count_by_webhook(mut self, counters: WebhookCounters) -> Self {
        self.counters = Some(counters);
        self
    }

    /// The layers in their order.
    fn stack(self, store: Store, queue: Option<Queue>, claims: Option<Claims>) -> Receiver {
        let finish = FinishLayer::new();
        let remainders = finish.remainders();
        let service = finish.layer(Process::new(Dispatch::of(self.deadline, queue), claims));
        let checks = (VerifyBodyLayer::new(), ChallengeLayer::from_webhook(), CheckPayloadLayer::from_webhook());
        let service = Checked::new(service, checks);
        let service = self.collect.layer(service);
        let service = self.call.layer(service);
        let guards = RequireAuthLayer::from_webhook().call_auth_follows().verify_body_follows();
        let service = Checked::new(service, (HandshakeLayer::from_webhook(), guards));
        let service = RecordHistoryLayer::of(self.history).layer(service);
        let service = CountWebhooksLayer::of(self.counters).layer(service);
        let service = LookupWebhookLayer::without_handlers(store).layer(service);
        let service = self.route.layer(service);
        Receiver { stack: ObserveLayer::new().layer(service), remainders }
    }
}

impl ReceiverBuilder<Store> {
    /// Builds the receiver.
    pub fn build(self) -> Receiver {
        let store = self.webhooks.clone();
        self.stack(store, None, None)
    }
}

impl<S: Source> ReceiverBuilder<Live<S>> {
    /// Sets the modules, schemes and connections that webhooks may use. The default is [`Registry::builtin`].
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.webhooks.registry = registry;
        self
    }

    /// Sets the value that is served in place of one that does not compile. The default is [`OnInvalid::Keep`].
    #[must_use]
    pub fn on_invalid(mut self, on_invalid: OnInvalid) -> Self {
        self.webhooks.on_invalid = on_invalid;
        self
    }

    /// Accepts the events of webhooks with `"ack": "accepted"`: they go into the queue of this worker, which delivers
    /// them. Without it, such a webhook is refused.
    #[must_use]
    pub fn worker(mut self, worker: Worker) -> Self {
        self.webhooks.worker = Some(worker);
        self
    }

    /// Sets the store of earlier events, by which duplicates are recognised. Without it, a webhook with `dedup` is refused.
    #[must_use]
    pub fn claims(mut self, claims: Claims) -> Self {
        self.webhooks.claims = Some(claims);
        self
    }

    /// Starts the tasks that follow the source and deliver accepted events. Once `stop` resolves, no further delivery
    /// of an accepted event is started.
    ///
    /// A server stops in this order: `stop` resolves, and the server accepts no more requests; the current requests
    /// end; the receiver's [`remainders`](Receiver::remainders) end; [`Tasks::ended`] resolves.
    ///
    /// # Panics
    ///
    /// When it is called outside of a tokio runtime.
    pub fn start(self, stop: impl Future<Output = ()> + Send + 'static) -> Running
    where
        S: Send + 'static,
    {
        let Live { source, registry, on_invalid, worker, claims } = self.webhooks;
        let queue = worker.as_ref().map(|worker| worker.queue().clone());
        let capabilities = Capabilities::none().accepting(queue.is_some()).deduplicating(claims.is_some());
        let (store, reflector) = reflect(source, registry.capable_of(capabilities));
        let deadline = self.deadline;
        let worker = worker.map(|worker| match deadline {
            Some(deadline) => worker.deadline(deadline),
            None => worker,
        });
        let worker = match (worker, &self.history) {
            (Some(worker), Some(history)) => Some(worker.history(history.clone())),
            (worker, _) => worker,
        };
        let worker = match (worker, &self.counters) {
            (Some(worker), Some(counters)) => Some(worker.count_by_webhook(counters.clone())),
            (worker, _) => worker,
        };
        let reflector = tokio::spawn(reflector.on_invalid(on_invalid).run());
        let tasks = Tasks::new(reflector, worker.map(|worker| tokio::spawn(worker.run(store.clone(), stop))));
        let Self { route, call, collect, history, counters, .. } = self;
        let layers = ReceiverBuilder { webhooks: (), route, call, collect, deadline, history, counters };
        Running { receiver: layers.stack(store.clone(), queue, claims), store, tasks }
    }
}

type Arrived = Checked<Finish<Process>, (VerifyBodyLayer, ChallengeLayer, CheckPayloadLayer)>;
type Guarded = Checked<CallAuth<CollectBody<Arrived>>, (HandshakeLayer, RequireAuthLayer)>;
type Stack = Observe<RouteNamespace<LookupWebhook<CountWebhooks<RecordHistory<Guarded>>>>>;

/// A receiver whose tasks are running. `examples/graceful_stop.rs` starts one and stops it in the right order.
#[derive(Debug)]
#[non_exhaustive]
pub struct Running {
    /// The service.
    pub receiver: Receiver,
    /// The receiver's webhooks, which are loaded once [`Store::wait_ready`] returns `Ok`.
    pub store: Store,
    /// The tasks beside the service.
    pub tasks: Tasks,
}

/// A whole webhook receiver. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct Receiver {
    stack: Stack,
    remainders: Remainders,
}

impl<B: Body> Service<Request<B>> for Receiver {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ReceiverFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.stack, cx)
    }

    #[inline]
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut polled = self.project().future.poll(cx);
        // Like `ProblemJson`, but without another body type.
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(document) = problem_json::describe(response)
        {
            *response.body_mut() = document.into();
        }
        polled
    }
}
