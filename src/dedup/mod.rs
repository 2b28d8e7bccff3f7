//! An event that is sent twice is processed once.
//!
//! Senders try again when they do not hear an answer, also when the event was taken. [`DedupLayer`] knows an event by
//! the id that its sender gave it: in a header, in the JSON body, or the body's digest, as the webhook's key `dedup`
//! says. Ids of one webhook are never those of another.
//!
//! | an event | gets |
//! |---|---|
//! | that is new | the inner service's answer |
//! | that is being processed | 409 and `Retry-After`: what will become of it is not known yet |
//! | that was taken: answered 2xx | the same status and `X-Event-Id`, and [`X-Duplicate: true`](crate::event::DUPLICATE) |
//! | that was not: any other answer, an error, a panic | what a new one gets |
//! | without the id | 400: to take it for another would lose it, to let it pass would process it twice |
//!
//! | needs | establishes | refuses |
//! |---|---|---|
//! | [`Matched`], [`Permit`], [`Collected`] | the [`EventId`](crate::event::EventId) of the request; the evidence that [`Dispatch`](crate::layers::Dispatch) asks for if the webhook has a rule | 409 in progress, 400 no id |
//!
//! It names each event: a handler behind it reads the id with [`EventId::of`](crate::event::EventId::of), and the answer
//! has it in [`X-Event-Id`](crate::event::EVENT_ID) unless the handler has set another.
//!
//! It stands behind the authentication, so that no stranger can use up an id. A webhook without the key passes at no
//! cost. [`Claims`] holds what is known, in memory or on disk too. With a digest two events of the same bytes are one:
//! it is for senders who give no id and put the time, or a number, into the body.
//!
//! A sender that does not wait for the answer ends the processing, and with it the claim, unless
//! [`Finish`](crate::layers::Finish) stands before this layer, as it does in [`receiver`](crate::receiver::receiver()): then the event is
//! being processed until its end.
//!
//! An event is processed again, rather than lost, when there is doubt: after a crash in the middle, after a power cut
//! for what was taken in the last second, when its time (`ttl`) is over, and when more events were taken since than are
//! remembered. Then the webhook forgets that has the most, not those beside it: see [`ClaimsOptions::max_entries`]. And a
//! module whose answer came too late for the sender may have done its work.
//!
//! Before a service of one's own, with one rule for all requests:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_webhook::dedup::{Claims, DedupRule};
//! use tower_webhook::{CollectBodyLayer, Collected, DedupLayer};
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
//! [`DedupLayer`]: crate::DedupLayer
//! [`Matched`]: crate::Matched
//! [`Permit`]: crate::Permit
//! [`Collected`]: crate::Collected

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
