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
//! | that was taken: answered 2xx | the same status and `X-Event-Id`, and [`X-Duplicate: true`](DUPLICATE) |
//! | that was not: any other answer, an error, a panic | what a new one gets |
//! | without the id | 400: to take it for another would lose it, to let it pass would process it twice |
//!
//! | needs | establishes | refuses |
//! |---|---|---|
//! | [`Matched`], [`Permit`], [`Collected`] | the evidence that [`Dispatch`](crate::Dispatch) asks for if the webhook has a rule | 409 in progress, 400 no id |
//!
//! It stands behind the authentication, so that no stranger can use up an id. A webhook without the key passes at no
//! cost. [`Claims`] holds what is known, in memory or on disk too. With a digest two events of the same bytes are one:
//! it is for senders who give no id and put the time, or a number, into the body.
//!
//! A sender that does not wait for the answer ends the processing, and with it the claim, unless
//! [`Finish`](crate::Finish) stands before this layer, as it does in [`receiver`](crate::receiver()): then the event is
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

mod claims;
mod future;
#[cfg(feature = "durable")]
mod journal;
#[cfg(not(feature = "durable"))]
#[path = "no_journal.rs"]
mod journal;
mod pointer;
mod queues;
mod ranking;
mod rule;
mod table;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderName;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use self::claims::Claim;
pub use self::claims::{Claims, ClaimsOptions, DEFAULT_MAX_ENTRIES};
pub use self::future::DedupFuture;
#[cfg(fuzzing)]
pub(crate) use self::journal::fuzz;
use self::rule::Scope;
pub use self::rule::{DEFAULT_TTL, DedupRule, InvalidRule, MAX_ID, MAX_TTL};
use crate::auth::Permit;
use crate::body::Collected;
use crate::evidence::Evidence;
use crate::lookup::Matched;
use crate::rejection::{Rejection, RejectionKind};
use crate::telemetry::{self, Dedup as Outcome};

/// The header that marks the answer to an event that was taken before: `true`.
pub const DUPLICATE: HeaderName = HeaderName::from_static("x-duplicate");

/// Processes each event once. See the [module docs](self) for an example.
#[derive(Clone, Debug)]
pub struct DedupLayer {
    select: Select,
}

#[derive(Clone, Debug)]
enum Select {
    /// There is no store. Everything passes, and a webhook that has a rule is stopped by what stands behind.
    Nothing,
    Matched(Claims),
    Fixed(Claims, Arc<str>, DedupRule),
}

impl DedupLayer {
    /// Does what the matched webhook's configuration says.
    pub fn new(claims: Claims) -> Self {
        Self { select: Select::Matched(claims) }
    }

    /// Holds every request to the same `rule`, and needs no layer before it but
    /// [`CollectBody`](crate::CollectBody). Put it behind your authentication: who reaches it can use up ids.
    ///
    /// Layers of one `scope` that share a store share their ids; no webhook of the configuration has the same.
    #[must_use]
    pub fn rule(self, scope: impl Into<Arc<str>>, rule: DedupRule) -> Self {
        let select = match self.select {
            Select::Matched(claims) | Select::Fixed(claims, ..) => Select::Fixed(claims, scope.into(), rule),
            Select::Nothing => Select::Nothing,
        };
        Self { select }
    }

    pub(crate) fn without_claims() -> Self {
        Self { select: Select::Nothing }
    }
}

impl<S> Layer<S> for DedupLayer {
    type Service = Dedup<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Dedup { inner, select: self.select.clone() }
    }
}

/// Middleware applied by [`DedupLayer`].
///
/// # Panics
///
/// Its future panics outside of a tokio runtime with timers, if the store is on disk: an answer waits for that only so
/// long.
#[derive(Clone, Debug)]
pub struct Dedup<S> {
    inner: S,
    select: Select,
}

impl<S, ResBody> Service<Request<Collected>> for Dedup<S>
where
    S: Service<Request<Collected>, Response = Response<ResBody>>,
    ResBody: Default + From<Bytes>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DedupFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut req: Request<Collected>) -> Self::Future {
        match self.select.claim(&mut req) {
            Ok(None) => DedupFuture::inner(self.inner.call(req)),
            Ok(Some(Claim::First(pending))) => DedupFuture::first(self.inner.call(req), pending),
            Ok(Some(Claim::Duplicate(answer))) => DedupFuture::duplicate(answer),
            Ok(Some(Claim::InProgress)) => DedupFuture::rejected(RejectionKind::InProgress.into()),
            Err(rejection) => DedupFuture::rejected(rejection),
        }
    }
}

impl Select {
    /// `None` if there is no rule to hold the request to.
    fn claim(&self, req: &mut Request<Collected>) -> Result<Option<Claim>, Rejection> {
        let (claims, ttl, event) = match self {
            Self::Nothing => return Ok(None),
            Self::Matched(claims) => {
                let webhook = Matched::of(req.extensions())?.webhook();
                Permit::of(req.extensions())?;
                let Some(rule) = webhook.dedup() else { return Ok(None) };
                // A layer further out holds the claim: to ask again would be to wait for oneself.
                if Evidence::is_deduplicated(req.extensions()) {
                    return Ok(None);
                }
                let (ttl, event) = (rule.ttl_seconds(), rule.event(Scope::Webhook(webhook.key()), req));
                Evidence::set_deduplicated(req.extensions_mut());
                (claims, ttl, event)
            }
            Self::Fixed(claims, scope, rule) => {
                Evidence::require_no_pending(req.extensions())?;
                (claims, rule.ttl_seconds(), rule.event(Scope::Named(scope), req))
            }
        };
        Evidence::set_claimed(req.extensions_mut());
        let event = event.inspect_err(|_| telemetry::dedup(Outcome::MissingId))?;
        let claim = claims.claim(event, ttl);
        telemetry::dedup(match &claim {
            Claim::First(_) => Outcome::First,
            Claim::Duplicate(_) => Outcome::Duplicate,
            Claim::InProgress => Outcome::InProgress,
        });
        Ok(Some(claim))
    }
}
