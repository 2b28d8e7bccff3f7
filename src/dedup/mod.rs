//! Deduplication: an event that is sent twice is processed once.
//!
//! Senders retry when they receive no answer, even if the event was processed. [`DedupLayer`] recognises an event by its
//! id, which the webhook's key `dedup` locates: in a header, in the JSON body, in a field of a form, or as the digest of the
//! body. The same id at two webhooks means two events. An event counts as *taken* once it was answered 2xx.
//!
//! | event | answer |
//! |---|---|
//! | new | the inner service's |
//! | being processed | 409 and `Retry-After`, because the outcome is not known yet |
//! | taken | the same status and `X-Event-Id`, and [`X-Duplicate: true`](crate::event::DUPLICATE) |
//! | failed before: another answer, an error, a panic | the inner service's, as for a new event |
//! | without an id | 400: it cannot be told whether the event is new |
//!
//! | needs | establishes | refuses |
//! |---|---|---|
//! | [`Matched`], [`Permit`], [`Collected`] | the [`EventId`](crate::event::EventId) of the request; the evidence that [`Dispatch`](crate::layers::Dispatch) asks for if the webhook has a rule | 409 in progress, 400 no id |
//!
//! The layer gives each request an event id: a handler behind it reads the id with
//! [`EventId::of`](crate::event::EventId::of), and the response carries it in [`X-Event-Id`](crate::event::EVENT_ID) unless
//! the handler has set another one.
//!
//! Put the layer behind the authentication, so that no stranger can use up an id. It costs nothing for a webhook without
//! the key. [`Claims`] stores the ids, in memory or on disk as well. With a digest, two events with the same bytes are the
//! same event: use it for senders that give no id, but put a time or a number into the body.
//!
//! A sender that hangs up ends the processing, and with it the claim, unless
//! [`Finish`](crate::layers::Finish) is in front of this layer, as in [`receiver`](crate::receiver()): then the
//! processing goes on to its end.
//!
//! In doubt an event is processed again rather than lost: after a crash during the processing, after a power cut within a
//! second of the answer, when its time (`ttl`) is over, and when enough other events came since to displace it. The
//! events of the webhook with the most entries are forgotten first: see [`ClaimsOptions::max_entries`]. A module whose
//! result came too late for the sender may also have done its work.
//!
//! In front of a service of your own, with one rule for all requests:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_webhook::dedup::{Claims, DedupRule};
//! use tower_webhook::layers::{CollectBodyLayer, DedupLayer};
//! use tower_webhook::request::Collected;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let rule = DedupRule::header("x-github-delivery").unwrap();
//! let service = ServiceBuilder::new()
//!     .layer(CollectBodyLayer::new())
//!     .layer(DedupLayer::new(Claims::in_memory()).rule("orders", rule))
//!     .service_fn(|_: Request<Collected>| async {
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("processed")))
//!     });
//!
//! let request = || Request::post("/").header("x-github-delivery", "72d3162e").body(Full::<Bytes>::default()).unwrap();
//! let first = service.clone().oneshot(request()).await.unwrap();
//! assert!(!first.headers().contains_key("x-duplicate"));
//! let second = service.clone().oneshot(request()).await.unwrap();
//! assert_eq!(second.status(), 200);
//! assert_eq!(second.headers()["x-duplicate"], "true");
//!
//! let without = service.oneshot(Request::post("/").body(Full::<Bytes>::default()).unwrap()).await.unwrap();
//! assert_eq!(without.status(), 400);
//! # }
//! ```
//!
//! [`DedupLayer`]: crate::layers::DedupLayer
//! [`Matched`]: crate::Matched
//! [`Permit`]: crate::Permit
//! [`Collected`]: crate::request::Collected

mod claims;
mod durable;
#[cfg(feature = "durable")]
mod journal;
pub(crate) mod metrics;
mod queues;
mod ranking;
mod rule;
mod table;

pub(crate) use self::claims::{Claim, Pending};
pub(crate) use self::rule::Scope;
pub(crate) use self::table::Answer;

pub use self::claims::{Claims, ClaimsOptions, DEFAULT_MAX_ENTRIES};
#[cfg(fuzzing)]
pub(crate) use self::journal::fuzz;
pub use self::rule::{DEFAULT_TTL, DedupRule, InvalidRule, MAX_ID, MAX_TTL};
