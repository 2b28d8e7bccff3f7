//! A receiver in this process, with a queue on disk, whose configuration can be changed while it runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceExt;
use tower_webhook::module::{Egress, EgressPolicy};
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::queue::{DeadLetterQuery, Queue};
use tower_webhook::receiver::Tasks;
use tower_webhook::source::{FixedSource, LiveHandle};
use tower_webhook::worker::Worker;
use tower_webhook::{Receiver, Registry, Store};

use super::server::Directory;
use super::{eventually, within};

/// The namespace of all webhooks.
pub(crate) const NAMESPACE: &str = "shop";

/// The most deliveries of a webhook that are under way at a time.
pub(crate) const AT_A_TIME: usize = 32;

pub(crate) struct Rig {
    receiver: Receiver,
    store: Store,
    handle: LiveHandle,
    queue: Queue,
    tasks: Tasks,
    stop: Option<oneshot::Sender<()>>,
    probes: AtomicUsize,
    // The last field: the queue's files go last.
    _directory: Directory,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) event_id: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

/// The outcome of one attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// `None` if it was delivered.
    pub(crate) error: Option<Failure>,
    pub(crate) event_id: String,
    pub(crate) took: Duration,
}

#[derive(Debug)]
pub(crate) struct Failure {
    /// The label of the error's kind, such as `connect`.
    pub(crate) kind: &'static str,
    /// The text for the operator.
    pub(crate) reason: String,
}

impl Attempt {
    /// Checks that it failed as `kind`, and returns the error's text.
    #[track_caller]
    pub(crate) fn failed_as(&self, kinds: &[&str]) -> &str {
        let error = self.error.as_ref().unwrap_or_else(|| panic!("it was delivered, and not refused as {kinds:?}"));
        assert!(kinds.contains(&error.kind), "expected {kinds:?}: {self:?}");
        &error.reason
    }

    #[track_caller]
    pub(crate) fn was_delivered(&self) {
        assert!(self.error.is_none(), "{self:?}");
    }
}

impl Rig {
    /// Without webhooks. Modules may connect to this machine, and a delivery may take far longer than it needs on a busy one.
    pub(crate) async fn start() -> Self {
        Self::patient(Duration::from_secs(60)).await
    }

    /// The same with another deadline of each delivery.
    pub(crate) async fn patient(deadline: Duration) -> Self {
        let directory = Directory::new("queue");
        let events = directory.path().join("events");
        let (queue, backlog) = tokio::task::spawn_blocking(|| DiskQueue::new(events).open()).await.unwrap().unwrap();
        let worker = Worker::new(backlog).concurrency(AT_A_TIME, 128, 1024);
        let (source, handle) = FixedSource::new().live();
        let policy: EgressPolicy = "127.0.0.0/8, ::1".parse().unwrap();
        let registry = Registry::builtin().egress(&Egress::new(policy));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let builder = Receiver::builder(source).registry(registry).worker(worker).delivery_deadline(deadline);
        let running = builder.start(stopped);
        let (store, receiver, tasks) = (running.store, running.receiver, running.tasks);
        store.wait_ready(Duration::from_secs(20)).await.unwrap();
        let (probes, stop) = (AtomicUsize::new(0), Some(stop));
        Self { receiver, store, handle, queue, tasks, stop, probes, _directory: directory }
    }

    /// Adds or replaces a connection, and waits until it is served. A refused one is a panic.
    pub(crate) async fn connection(&self, name: &str, value: &Value) {
        let revision = self.handle.put_connection(name, value.to_string()).await.unwrap();
        assert!(within("the connection", self.store.wait_for_revision(revision)).await);
        self.assert_valid();
    }

    /// Adds or replaces a webhook, and waits until it is served. A refused one is a panic.
    pub(crate) async fn webhook(&self, id: &str, value: &Value) {
        let revision = self.handle.put_webhook(NAMESPACE, id, value.to_string()).await.unwrap();
        assert!(within("the webhook", self.store.wait_for_revision(revision)).await);
        self.assert_valid();
    }

    #[track_caller]
    fn assert_valid(&self) {
        let snapshot = self.store.snapshot();
        let refused: Vec<_> =
            snapshot.refusals().map(|(key, refusal)| format!("{key:?}: {}", refusal.reason())).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// The warnings about the configuration, as text.
    pub(crate) fn warnings(&self) -> String {
        format!("{:?}", self.store.snapshot().warnings().collect::<Vec<_>>())
    }

    pub(crate) async fn post(&self, id: &str, body: impl Into<Bytes>) -> Answer {
        self.post_with(id, &HeaderMap::new(), body).await
    }

    pub(crate) async fn post_with(&self, id: &str, headers: &HeaderMap, body: impl Into<Bytes>) -> Answer {
        let began = Instant::now();
        let mut request = Request::post(format!("/{NAMESPACE}/{id}")).body(Full::new(body.into())).unwrap();
        *request.headers_mut() = headers.clone();
        let response = within("an answer", self.receiver.clone().oneshot(request)).await.unwrap();
        let took = began.elapsed();
        let event_id = response.headers().get("x-event-id");
        let event_id = event_id.map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = response.status().as_u16();
        let body = within("the whole answer", response.into_body().collect()).await.unwrap().to_bytes();
        Answer { status, event_id, body: String::from_utf8(body.to_vec()).unwrap(), took }
    }

    /// Makes one attempt to deliver `body` to a webhook with this value. The outcome shows the kind of the error, which
    /// an answer to a sender does not.
    pub(crate) async fn attempt(&self, webhook: &Value, body: impl Into<Bytes>) -> Attempt {
        assert_eq!(self.waiting(), 0, "events of other webhooks wait; `attempt_beside` is for that");
        self.attempted(webhook, body.into(), async || self.waiting() == 0).await
    }

    /// The same, again as long as it is a `timeout`: on a busy machine a server may answer later than a module waits.
    pub(crate) async fn answered(&self, webhook: &Value, body: &'static str) -> Attempt {
        within("an answer of the server", async {
            loop {
                let attempt = self.attempt(webhook, body).await;
                if attempt.error.as_ref().is_none_or(|error| error.kind != "timeout") {
                    break attempt;
                }
            }
        })
        .await
    }

    /// The same beside accepted events that still wait, for an attempt that fails.
    pub(crate) async fn attempt_beside(&self, webhook: &Value, body: impl Into<Bytes>) -> Attempt {
        self.attempted(webhook, body.into(), async || false).await
    }

    async fn attempted(&self, webhook: &Value, body: Bytes, delivered: impl AsyncFn() -> bool) -> Attempt {
        let id = format!("probe-{}", self.probes.fetch_add(1, Ordering::SeqCst));
        let mut webhook = webhook.clone();
        webhook["ack"] = json!("accepted");
        webhook["retry"] = json!({"enabled": false});
        self.webhook(&id, &webhook).await;
        let answer = self.post(&id, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let began = Instant::now();
        let query = DeadLetterQuery { webhook: Some(id), ..DeadLetterQuery::first(1) };
        let letter = within("the attempt to end", async {
            loop {
                // Asked first: an event that was given up does not wait any more, and its dead letter is there.
                let has_ended = delivered().await;
                let letter = self.queue.dead_letters(query.clone()).await.unwrap().pop();
                if has_ended || letter.is_some() {
                    break letter;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let took = began.elapsed();
        let error = letter.map(|letter| Failure { kind: letter.kind.label(), reason: letter.reason.into() });
        Attempt { error, event_id: answer.event_id, took }
    }

    /// How many accepted events wait or are being delivered.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.status().waiting
    }

    /// Waits until no accepted event waits any more.
    pub(crate) async fn drained(&self) {
        eventually("the queue to be drained", async || self.waiting() == 0).await;
    }

    /// The kinds and texts of the first dead letters.
    pub(crate) async fn dead_letters(&self) -> Vec<String> {
        let letters = self.queue.dead_letters(DeadLetterQuery::first(100)).await.unwrap();
        letters.iter().map(|letter| format!("{}: {}", letter.kind.label(), letter.reason)).collect()
    }

    /// Stops as a server does. Returns how long it took, and how many events are left in the queue.
    pub(crate) async fn stop(mut self) -> (Duration, usize) {
        let began = Instant::now();
        drop(self.stop.take());
        within("the deliveries under way to end", self.tasks.ended()).await;
        (began.elapsed(), self.waiting())
    }
}
