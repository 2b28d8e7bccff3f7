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
//! [`receiver`] stacks them in this order; each works alone in front of a service of yours, and its module has an
//! example. What a layer learned travels in the request's extensions. A layer that is missing upstream is a 500 that
//! says so in the log, never a pass.
//!
//! A 200 says that the webhook's [module] has the event. A webhook with `"ack": "accepted"` answers 202 when the
//! event is on disk: a [`Spool`](queue::disk::Spool) keeps it, and a [`Worker`](queue::disk::Worker) delivers it, at least once.
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
//! | `metrics` | metrics of requests, configuration, `dedup` and spool, through the facade `metrics` |
//! | `full` | all of these |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
pub mod body;
mod client_address;
#[cfg(any(feature = "durable", feature = "queue-disk"))]
mod clock;
pub mod config;
mod deadline;
pub mod dedup;
mod delivery;
#[cfg(any(feature = "durable", feature = "etcd", feature = "queue-disk", feature = "save-to-disk"))]
mod directory;
pub mod dispatch;
mod evidence;
pub mod finish;
mod future;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod head;
mod instead;
mod key;
mod log_limit;
pub mod lookup;
pub mod method;
pub mod module;
mod network;
pub mod observe;
pub mod payload;
mod peer;
#[cfg(feature = "etcd")]
mod private;
pub mod problem;
#[cfg(feature = "queue-disk")]
pub mod queue;
mod reflector;
pub mod rejection;
mod round;
pub mod route;
mod sensitive;
pub mod source;
pub mod stack;
mod store;
mod telemetry;
#[cfg(feature = "queue-disk")]
mod worker;

pub use crate::auth::{CallAuth, CallAuthLayer, RequireAuth, RequireAuthLayer, VerifyBody, VerifyBodyLayer};
pub use crate::body::{CollectBody, CollectBodyLayer, Collected};
pub use crate::client_address::{ClientAddress, InvalidClientAddress};
pub use crate::config::{BuildContext, BuildError, Connection, DataType, Promise, Registry, Webhook, WebhookInfo};
pub use crate::dedup::{Dedup, DedupLayer};
pub use crate::dispatch::Dispatch;
pub use crate::evidence::{Matched, Permit};
pub use crate::finish::{Finish, FinishLayer};
pub use crate::future::ResponseFuture;
pub use crate::head::Head;
pub use crate::key::{InvalidKey, InvalidName, Key, MAX_NAME, Target, WebhookKey};
pub use crate::log_limit::LogLimit;
pub use crate::lookup::{LookupWebhook, LookupWebhookLayer};
pub use crate::method::{RequirePost, RequirePostLayer};
pub use crate::network::{InvalidNetwork, Network};
pub use crate::observe::{Observe, ObserveLayer};
pub use crate::payload::{CheckPayload, CheckPayloadLayer};
pub use crate::peer::{ClientCertificate, Peer};
pub use crate::problem::{ProblemBody, ProblemJson, ProblemJsonLayer};
pub use crate::reflector::{Change, OnInvalid, Reflector, reflect};
pub use crate::rejection::{Rejection, RejectionKind};
pub use crate::route::{RouteNamespace, RouteNamespaceLayer};
pub use crate::source::FixedSource;
pub use crate::stack::{Receiver, receiver};
pub use crate::store::{
    Counts, ErrorKind, IgnoredKey, LastError, ListReason, Refusal, Revision, Snapshot, SourceReport, SourceState,
    Status, Store,
};
