//! An admin service with webhooks, a queue on disk and a history in SQLite, in two namespaces.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use tempfile::TempDir;
use tower::ServiceExt;
use tower_webhook::admin::{Admin, AdminToken, AdminTokens, Operator};
use tower_webhook::config::{DataType, WebhookInfo, WebhookKey};
use tower_webhook::event::{DeliverError, DeliverErrorKind, Delivery, EventId};
use tower_webhook::history::sqlite::SqliteHistory;
use tower_webhook::history::{Body, Entry, History, Outcome, Received};
use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::queue::{Backlog, Handout, Offer, Queue, State, Ticket};
use tower_webhook::{Capabilities, Registry, Store};

use crate::support::{Answer, store_of, within};

/// The token that may do everything.
pub(super) const ALL: &str = "token-of-all";
/// The token that may do everything in the namespace `a`.
pub(super) const A: &str = "token-of-a";
/// The token that may read everything.
pub(super) const READ: &str = "token-that-reads";

pub(super) struct World {
    pub(super) admin: Admin,
    pub(super) queue: Queue,
    pub(super) history: History,
    pub(super) store: Store,
    backlog: Backlog,
    _directory: TempDir,
}

impl World {
    /// A world with the webhooks `direct`, `queued` and `broken` in each of the namespaces.
    pub(super) async fn new() -> Self {
        let registry = Registry::builtin().capable_of(Capabilities::none().accepting(true));
        let (direct, queued, broken) = (
            r#"{"module": "discard", "authorization": "Bearer x"}"#,
            r#"{"module": "discard", "ack": "accepted"}"#,
            r#"{"module": "b-marker"}"#,
        );
        let store = store_of(
            registry,
            &[
                ("a", "direct", direct),
                ("a", "queued", queued),
                ("b", "direct", direct),
                ("b", "queued", queued),
                ("b", "broken", broken),
            ],
        )
        .await;
        let directory = tempfile::tempdir().unwrap();
        let (queue, backlog) = DiskQueue::new(directory.path().join("queue")).open().unwrap();
        let history = SqliteHistory::new(directory.path().join("history")).open().unwrap();
        let tokens = vec![
            AdminToken::new(Operator::new("all").unwrap(), ALL).unwrap(),
            AdminToken::new(Operator::new("of-a").unwrap().namespaces(["a"]).unwrap(), A).unwrap(),
            AdminToken::new(Operator::new("reader").unwrap().read_only(), READ).unwrap(),
        ];
        let admin = Admin::new(store.clone()).queue(queue.clone()).history(history.clone());
        let admin = admin.tokens(AdminTokens::new(tokens).unwrap());
        Self { admin, queue, history, store, backlog, _directory: directory }
    }

    /// Puts an event into the queue.
    pub(super) async fn accept(&mut self, namespace: &str, body: &str) -> (EventId, Ticket) {
        let info = WebhookInfo::new(WebhookKey::new(namespace, "queued").unwrap(), DataType::Json);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("authorization", "Bearer s3cret".parse().unwrap());
        let delivery = Delivery::new(info, headers, body.to_owned());
        let written = self.queue.backend().accept(Offer::new(&delivery, Duration::from_secs(5))).unwrap();
        written.await.unwrap();
        loop {
            match within("a ticket", self.backlog.next()).await {
                // The first message has what an earlier process left.
                Some(Handout::Due(due)) if due.is_empty() => {}
                Some(Handout::Due(due)) => return (delivery.id(), due[0].ticket.clone()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Makes a dead letter.
    pub(super) async fn dead_letter(&mut self, namespace: &str, body: &str) -> EventId {
        let (id, ticket) = self.accept(namespace, body).await;
        let error = DeliverError::new(DeliverErrorKind::Permanent, format!("the target of {namespace} said no"));
        self.queue.backend().bury(ticket, id, State { attempts: 3, ..State::default() }, &error);
        id
    }

    /// Records an event in the history.
    pub(super) fn record(&self, namespace: &str, change: impl FnOnce(&mut Received)) -> EventId {
        let info = WebhookInfo::new(WebhookKey::new(namespace, "direct").unwrap(), DataType::Json);
        let id = Delivery::new(info, HeaderMap::new(), "").id();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        let mut received = Received {
            id,
            at: SystemTime::now(),
            webhook: WebhookKey::new(namespace, "direct").unwrap(),
            module: "discard".into(),
            data_type: DataType::Json,
            revision: 1,
            is_accepted: false,
            peer: None,
            method: Method::POST,
            path: "/webhook/direct".into(),
            headers,
            body: Body::Whole(Bytes::from(format!(r#"{{"of": "{namespace}-marker"}}"#))),
            outcome: Outcome::Delivered,
            status: StatusCode::OK,
            duration: Duration::from_millis(3),
            kind: None,
            reason: None,
            dedup: None,
            secrets: Vec::new(),
            steps: Vec::new(),
        };
        change(&mut received);
        self.history.record(Entry::Received(Box::new(received)));
        id
    }

    pub(super) async fn ask(&self, token: &str, line: &str) -> Answer {
        self.ask_with(token, line, "").await
    }

    /// Sends a request; `line` is its method and its path below the mount point.
    pub(super) async fn ask_with(&self, token: &str, line: &str, body: &str) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = within("an answer", self.admin.clone().oneshot(request)).await.unwrap();
        Answer::of(answer).await
    }
}
