//! [tower] layers that receive webhooks. They authenticate the sender, check the body, and acknowledge an event only once
//! it is delivered or stored. Their configuration may change while the server runs.
//!
//! Start with one layer in front of a route of your own, or with [`receiver()`], which is all layers in the right order.
//! Every layer works alone, in axum, hyper, tonic or any other tower stack.
//!
//! [tower]: https://docs.rs/tower
//!
//! # One guard in front of an axum route
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
//! | let only senders with a credential in | [`RequireAuth`](layers::RequireAuth) |
//! | verify a signature over the body | [`RequireAuth`](layers::RequireAuth), [`CollectBody`](layers::CollectBody), [`VerifyBody`](layers::VerifyBody) |
//! | ask another server whether a credential is valid | [`RequireAuth`](layers::RequireAuth), [`CallAuth`](layers::CallAuth) |
//! | answer a provider's challenge | [`AnswerHandshake`](layers::AnswerHandshake), [`Challenge`](layers::Challenge) |
//! | change credentials while the app runs | [`RouteNamespace`](layers::RouteNamespace) and [`LookupWebhook`](layers::LookupWebhook) before `RequireAuth` |
//! | bound a body in size, time and memory | [`CollectBody`](layers::CollectBody) |
//! | refuse a body that is not JSON, or not a form | [`CheckPayload`](layers::CheckPayload), behind `CollectBody` |
//! | process an event once, though it is sent twice | [`Dedup`](layers::Dedup), behind `CollectBody` and the guards |
//! | finish an event whose sender does not wait | [`Finish`](layers::Finish), behind `CollectBody` |
//! | give each refusal a body (RFC 9457) | [`ProblemJson`](layers::ProblemJson), before all others |
//! | log and count refusals | [`Observe`](layers::Observe) |
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
//! | `etcd` | `source::EtcdSource`; building it needs `protoc` |
//! | `file` | `source::FileSource` |
//! | `save-to-disk` | the module `save_to_disk` |
//! | `http-webhook` | the module `http_webhook`, and connections of the type `http` |
//! | `basic-auth` | the guard `basic_auth` |
//! | `signature` | the guards `signature` and `hmac`; building it needs a C compiler |
//! | `durable` | recognised duplicates survive a crash: `dedup::Claims::open` |
//! | `queue-disk` | `queue::disk`: accepted events, kept on disk |
//! | `metrics` | metrics of requests, configuration, duplicates and queue, through the facade `metrics` |
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
#[cfg_attr(not(feature = "full"), allow(rustdoc::broken_intra_doc_links))]
pub mod guide;
pub mod handshake;
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
