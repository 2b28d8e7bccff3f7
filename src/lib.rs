//! [tower] layers that receive webhooks. They authenticate the sender, check the body, and acknowledge an event only once
//! it is delivered or stored. Their configuration may change while the server runs.
//!
//! Start with one layer in front of a route of your own, or with [`receiver()`], which is all layers in the right order.
//! The layers work in axum, hyper, tonic or any other tower stack. [What each needs](guide::layers#the-requests-way)
//! before it is in the manual.
//!
//! [tower]: https://docs.rs/tower
//!
//! # One guard in front of an axum route
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use axum::{Router, routing::post};
//! use tower_webhook::auth::Bearer;
//! use tower_webhook::layers::RequireAuthLayer;
//!
//! let guard = RequireAuthLayer::new(Bearer::new("s3cret")?);
//! let app: Router = Router::new().route("/orders", post(|| async { "taken" }).layer(guard));
//!
//! // In a program: axum::serve(listener, app).await
//! use axum::{body::Body, http::Request};
//! use tower::ServiceExt;
//! let stranger = Request::post("/orders").body(Body::empty())?;
//! assert_eq!(app.clone().oneshot(stranger).await?.status(), 401);
//! let sender = Request::post("/orders").header("authorization", "Bearer s3cret").body(Body::empty())?;
//! assert_eq!(app.oneshot(sender).await?.status(), 200);
//! # Ok(()) }
//! ```
//!
//! In a program, `main` returns `Result<(), Box<dyn Error + Send + Sync>>`: the errors of most guards are of this type.
//! `examples/github_signature.rs` lets in what GitHub has signed.
//!
//! # The whole receiver
//!
//! A [source] brings webhooks, a [`Store`] holds them compiled, and the receiver serves them below `/{id}` and
//! `/{namespace}/{id}`. A webhook names its guards and the [module](guide::targets) that takes its events.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::Router;
//! use tower_webhook::source::FixedSource;
//! use tower_webhook::{Registry, receiver, reflect};
//!
//! let webhook = r#"{"module": "log", "authorization": "Bearer s3cret"}"#;
//! let source = FixedSource::new().webhook("default", "orders", webhook)?;
//! let (store, reflector) = reflect(source, Registry::builtin());
//! tokio::spawn(reflector.run());
//!
//! let app: Router = Router::new().nest_service("/webhook", receiver(store)); // POST /webhook/orders
//! # Ok(()) }
//! ```
//!
//! With `EtcdSource` or `FileSource` in place of `FixedSource`, webhooks change while the server runs.
//! [`Receiver::builder`] adds a queue on disk and the recognition of duplicates.
//!
//! # Which layer do I want?
//!
//! | I want to | take |
//! |---|---|
//! | let only senders with a credential in | [`RequireAuthLayer`](layers::RequireAuthLayer) |
//! | verify a signature over the body | `RequireAuthLayer` with [`verify_body_follows()`](layers::RequireAuthLayer::verify_body_follows), [`CollectBodyLayer`](layers::CollectBodyLayer), [`VerifyBodyLayer`](layers::VerifyBodyLayer) |
//! | ask another server whether a credential is valid | `RequireAuthLayer` with [`call_auth_follows()`](layers::RequireAuthLayer::call_auth_follows), [`CallAuthLayer`](layers::CallAuthLayer) |
//! | be sure in a handler that a guard let the sender in, and that none still waits | [`Permit::of`] |
//! | answer a provider's challenge | [`HandshakeLayer`](layers::HandshakeLayer), [`ChallengeLayer`](layers::ChallengeLayer) |
//! | refuse all methods but POST, without handshakes | [`RequirePostLayer`](layers::RequirePostLayer) |
//! | change credentials while the app runs | [`RouteNamespaceLayer`](layers::RouteNamespaceLayer) and [`LookupWebhookLayer`](layers::LookupWebhookLayer) before `RequireAuthLayer` |
//! | bound a body in size and time | `CollectBodyLayer`; in memory too, with [`memory`](layers::CollectBodyLayer::memory) |
//! | refuse a body that is not JSON, or not a form | [`CheckPayloadLayer`](layers::CheckPayloadLayer), behind `CollectBodyLayer` |
//! | process an event once, though it is sent twice | [`DedupLayer`](layers::DedupLayer), behind `CollectBodyLayer` and the guards |
//! | finish an event whose sender does not wait | [`FinishLayer`](layers::FinishLayer), behind `CollectBodyLayer` |
//! | give each refusal a body (RFC 9457) | [`ProblemJsonLayer`](layers::ProblemJsonLayer), before all others |
//! | log and count refusals | [`ObserveLayer`](layers::ObserveLayer) |
//! | have all of it | [`receiver()`], or [`Receiver::builder`] |
//!
//! # Where to go on
//!
//! The [`guide`] is the manual:
//!
//! * senders: [guards](guide::guards), [signatures of known providers](guide::providers), [handshakes](guide::handshakes),
//!   [security](guide::security);
//! * webhooks: [their keys](guide::configuration), [targets](guide::targets), [what the etcd source promises](guide::etcd);
//! * answers: [each status](guide::answers), [accepted events](guide::accepted);
//! * your own code: [layers in your app](guide::layers), [guards, modules and sources](guide::extending).
//!
//! The program `gateway` in `examples/gateway` is a server with all of this: [how to operate it](guide::operating).
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | brings |
//! |---|---|
//! | (none) | all layers, [`source::FixedSource`], the modules `discard` and `log`, [`dedup::Claims`] in memory |
//! | `etcd` | `source::EtcdSource`; building it needs `protoc` and a C compiler |
//! | `file` | `source::FileSource` |
//! | `save-to-disk` | the module `save_to_disk` |
//! | `http-webhook` | the module `http_webhook`, and connections of the type `http`; building it needs a C compiler |
//! | `activemq` | the module `activemq`, and connections of that type; building it needs a C compiler |
//! | `kafka` | the module `kafka`, and connections of that type; building it needs a C compiler, make, zlib and OpenSSL |
//! | `mqtt` | the module `mqtt`, and connections of that type; building it needs a C compiler |
//! | `nats` | the module `nats`, and connections of that type; building it needs a C compiler |
//! | `rabbitmq` | the module `rabbitmq`, and connections of that type; building it needs a C compiler |
//! | `redis` | the modules `redis_publish`, `redis_stream` and `redis_rq`, and connections of the type `redis`; building it needs a C compiler |
//! | `websocket` | the module `websocket`, and connections of that type; building it needs a C compiler |
//! | `zeromq` | the module `zeromq`, and connections of that type; building it needs a C compiler |
//! | `basic-auth` | the guard `basic_auth` |
//! | `signature` | the guards `signature` and `hmac`, and the handshakes of X and Zoom; building it needs a C compiler |
//! | `durable` | recognised duplicates survive a crash: `dedup::Claims::open` |
//! | `queue-disk` | `queue::disk`: accepted events, kept on disk |
//! | `history` | `history::sqlite`: the history of events, in SQLite; building it needs a C compiler |
//! | `metrics` | metrics of requests, configuration, duplicates and queue, through the facade `metrics` |
//! | `admin` | `admin`: a service for operators, with a page that shows what happened |
//! | `full` | all of these |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "admin")]
pub mod admin;
pub mod auth;
mod base;
pub mod config;
pub mod dedup;
mod delivery;
// Each module uses a part of it.
#[cfg(feature = "_egress")]
#[cfg_attr(not(feature = "full"), allow(dead_code, unused_imports))]
mod egress;
pub mod event;
mod form;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
#[cfg_attr(not(feature = "full"), allow(rustdoc::broken_intra_doc_links))]
pub mod guide;
pub mod handshake;
pub mod history;
mod json;
pub mod layers;
pub mod module;
pub mod queue;
pub mod receiver;
mod reflector;
pub mod request;
pub mod source;
pub mod store;
mod webhook;
pub mod worker;

#[doc(inline)]
pub use self::base::log_limit::LogLimit;
#[doc(inline)]
pub use self::layers::evidence::{Matched, Permit};
#[doc(inline)]
pub use self::receiver::assembly::{Receiver, receiver};
#[doc(inline)]
pub use self::reflector::{Change, OnInvalid, Reflector, reflect};
#[doc(inline)]
pub use self::request::rejection::{Rejection, RejectionKind};
#[doc(inline)]
pub use self::store::current::Store;
#[doc(inline)]
pub use self::webhook::{Capabilities, Promise, Registry, Webhook};
