//! Composable [tower] layers that receive webhooks, guarded by live, multi-tenant configuration.
//!
//! [tower]: https://docs.rs/tower
//!
//! # The request's way
//!
//! | layer | needs | establishes | refuses with |
//! |---|---|---|---|
//! | [`RouteNamespace`] | a path `/{id}` or `/{namespace}/{id}` | [`Target`] | 400, 404 |
//! | [`RequirePost`] | nothing | nothing | 405 |
//! | [`LookupWebhook`] | [`Target`] | [`Matched`] | 404, 503 |
//! | [`RequireAuth`] | a fixed scheme, or [`Matched`] | [`Permit`], or a pending proof | 401, 403, 503 |
//! | [`CallAuth`] | [`RequireAuth`] before it | [`Permit`], or a pending proof | 401, 403, 503 |
//! | [`CollectBody`] | nothing | the body type [`Collected`] | 413, 408, 400 |
//! | [`VerifyBody`] | [`Collected`] | [`Permit`] | 401, 403, 503 |
//! | [`CheckPayload`] | [`Collected`], [`Matched`] | that it was checked | 400, 415 |
//! | [`Finish`] | [`Collected`] | nothing: the event is processed also if its sender does not wait | |
//! | [`Dedup`] | [`Collected`], [`Matched`], [`Permit`] | that it was deduplicated | 409, 400 |
//! | [`Dispatch`] | all of these | the answer: 200 delivered, 202 accepted | 502, 503, 504 |
//!
//! [`receiver()`] stacks them in this order; each works alone in front of a service of yours, and its module has an
//! example. What a layer learned travels in the request's extensions. A layer that is missing upstream is a 500 that
//! says so in the log, never a pass.
//!
//! A 200 says that the webhook's [module] has the event. A webhook with `"ack": "accepted"` answers 202 when the
//! event is on disk: a [`Queue`](queue::Queue) keeps it, and a [`Worker`](worker::Worker) delivers it, at least once.
//!
//! # The configuration's way
//!
//! A [`Source`](source::Source) brings values, a [`Reflector`] compiles them when they change, a [`Store`] holds one
//! immutable snapshot for all readers. See [`config`] for what a value may say and [`module`] for where events go.
//!
//! ```no_run
//! # #[cfg(feature = "etcd")]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_webhook::source::{EtcdOptions, EtcdSource};
//! use tower_webhook::{Registry, receiver, reflect};
//!
//! let source = EtcdSource::new(EtcdOptions::new(["http://localhost:2379"]))?;
//! let (store, reflector) = reflect(source, Registry::builtin());
//! tokio::spawn(reflector.run());
//! store.wait_ready().await;
//! let app: axum::Router = axum::Router::new().nest_service("/webhook", receiver(store));
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | brings |
//! |---|---|
//! | (none) | all layers, the fixed source, the modules `discard` and `log`, [`dedup::Claims`] in memory |
//! | `etcd` | [`source::EtcdSource`]; building it needs `protoc` |
//! | `file` | [`source::FileSource`] |
//! | `save-to-disk` | the module `save_to_disk` |
//! | `durable` | the ids of events that were taken outlive a crash: [`dedup::Claims::open`] |
//! | `queue-disk` | accepted events, on disk: [`queue::disk`] |
//! | `http-webhook` | the module `http_webhook` |
//! | `metrics` | metrics of requests, configuration, `dedup` and queue, through the facade `metrics` |
//! | `full` | all of these |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
mod base;
pub mod config;
pub mod dedup;
mod delivery;
pub mod event;
mod form;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod json;
pub mod layers;
pub mod module;
pub mod queue;
pub mod receiver;
mod reflector;
pub mod request;
pub mod source;
mod store;
pub mod webhook;
pub mod worker;

pub use self::config::{BuildContext, BuildError, DataType, WebhookInfo};
pub use self::receiver::{Receiver, receiver};
pub use self::reflector::{Change, OnInvalid, Reflector, reflect};
pub use self::source::FixedSource;
pub use self::store::{
    Counts, ErrorKind, IgnoredKey, LastError, ListReason, Refusal, Revision, Snapshot, SourceReport, SourceState,
    Status, Store,
};
pub use self::webhook::{Promise, Webhook};
pub use crate::base::log_limit::LogLimit;
pub use crate::base::network::{InvalidNetwork, Network};
pub use crate::config::{InvalidKey, InvalidName, Key, MAX_NAME, Target, WebhookKey};
pub use crate::layers::{
    CallAuth, CallAuthLayer, CheckPayload, CheckPayloadLayer, CollectBody, CollectBodyLayer, Dedup, DedupLayer,
    Dispatch, Finish, FinishLayer, LookupWebhook, LookupWebhookLayer, Matched, Observe, ObserveLayer, Permit,
    ProblemBody, ProblemJson, ProblemJsonLayer, RequireAuth, RequireAuthLayer, RequirePost, RequirePostLayer,
    RouteNamespace, RouteNamespaceLayer, VerifyBody, VerifyBodyLayer,
};
pub use crate::request::{
    ClientAddress, ClientCertificate, Collected, Head, InvalidClientAddress, Peer, Rejection, RejectionKind,
    ResponseFuture,
};
pub use crate::webhook::Registry;
