//! The layer that processes each event once.

mod future;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

pub use self::future::DedupFuture;
use super::evidence::Evidence;
use crate::dedup::metrics::{self, Outcome};
use crate::dedup::{Claim, Claims, DedupRule, Scope};
use crate::event::{Render, receipt};
use crate::history;
use crate::request::{Collected, Rejection, RejectionKind};

/// Processes each event once. [`dedup`](crate::dedup) has the rules and an example.
#[derive(Clone, Debug)]
pub struct DedupLayer {
    select: Select,
    render: Render,
}

#[derive(Clone, Debug)]
enum Select {
    Matched(Claims),
    Fixed(Claims, Arc<Fixed>),
}

/// The same rule for every request. Shared: each request clones the services behind
/// [`CollectBody`](super::collect_body::CollectBody).
#[derive(Debug)]
struct Fixed {
    scope: Arc<str>,
    rule: DedupRule,
}

impl DedupLayer {
    /// Uses the rule of the matched webhook.
    pub fn new(claims: Claims) -> Self {
        Self { select: Select::Matched(claims), render: receipt::empty }
    }

    /// Uses the same `rule` for every request, and needs no layer before it except
    /// [`CollectBody`](super::collect_body::CollectBody). Put it behind your authentication: every sender that reaches
    /// it can use up ids.
    ///
    /// Layers with the same `scope` that share a store share their ids. A configured webhook never has the same scope.
    #[must_use]
    pub fn rule(self, scope: impl Into<Arc<str>>, rule: DedupRule) -> Self {
        let select = match self.select {
            Select::Matched(claims) | Select::Fixed(claims, _) => {
                Select::Fixed(claims, Arc::new(Fixed { scope: scope.into(), rule }))
            }
        };
        Self { select, ..self }
    }

    /// Makes the body and the headers of the answer to a duplicate with `render`. By default the answer has no body:
    /// only the status and the event's id of the first answer are kept. Before [`Dispatch`](super::dispatch::Dispatch),
    /// use [`dispatch_answer`](crate::event::dispatch_answer), as [`receiver`](crate::receiver()) does.
    #[must_use]
    pub fn answer_duplicates(self, render: Render) -> Self {
        Self { render, ..self }
    }
}

impl<S> Layer<S> for DedupLayer {
    type Service = Dedup<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Dedup { inner, select: self.select.clone(), render: self.render }
    }
}

/// Middleware applied by [`DedupLayer`].
///
/// # Panics
///
/// When the store is on disk and its future is polled outside of a tokio runtime with timers, which limit the wait for
/// the disk.
#[derive(Clone, Debug)]
pub struct Dedup<S> {
    inner: S,
    select: Select,
    render: Render,
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
            Ok(None) => {
                let id = Evidence::of_mut(req.extensions_mut()).name_event();
                DedupFuture::inner(self.inner.call(req), id)
            }
            Ok(Some(Claim::First(pending))) => {
                note(&req, history::Dedup::First);
                let id = Evidence::of_mut(req.extensions_mut()).name_event();
                DedupFuture::first(self.inner.call(req), id, pending)
            }
            Ok(Some(Claim::Duplicate(answer))) => {
                note(&req, history::Dedup::Duplicate);
                DedupFuture::duplicate(answer, self.render)
            }
            Ok(Some(Claim::InProgress)) => DedupFuture::rejected(RejectionKind::InProgress.into()),
            Err(rejection) => DedupFuture::rejected(rejection),
        }
    }
}

/// Tells the history, if there is one.
fn note(req: &Request<Collected>, result: history::Dedup) {
    if let Some(trace) = Evidence::of(req.extensions()).trace() {
        trace.deduplicated(result);
    }
}

impl Select {
    /// `None` if no rule applies to the request.
    fn claim(&self, req: &mut Request<Collected>) -> Result<Option<Claim>, Rejection> {
        let (claims, ttl, event) = match self {
            Self::Matched(claims) => {
                let evidence = Evidence::of(req.extensions());
                let webhook = evidence.webhook()?;
                evidence.permit()?;
                let Some(rule) = webhook.dedup() else { return Ok(None) };
                // An outer layer holds the claim: claiming again would wait for that layer, and so for ever.
                if evidence.is_deduplicated() {
                    return Ok(None);
                }
                let (ttl, event) = (rule.ttl_seconds(), rule.event(Scope::Webhook(webhook.key()), req));
                Evidence::of_mut(req.extensions_mut()).set_deduplicated();
                (claims, ttl, event)
            }
            Self::Fixed(claims, fixed) => {
                Evidence::of(req.extensions()).require_nothing_owed()?;
                let Fixed { scope, rule } = &**fixed;
                (claims, rule.ttl_seconds(), rule.event(Scope::Named(scope), req))
            }
        };
        Evidence::of_mut(req.extensions_mut()).set_claimed();
        let event = event.inspect_err(|_| metrics::looked_up(Outcome::MissingId))?;
        let claim = claims.claim(event, ttl);
        metrics::looked_up(match &claim {
            Claim::First(_) => Outcome::First,
            Claim::Duplicate(_) => Outcome::Duplicate,
            Claim::InProgress => Outcome::InProgress,
        });
        Ok(Some(claim))
    }
}
