//! The layer that counts the requests of each webhook.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::metrics::Outcome;
use crate::delivery::WebhookCounters;
use crate::layers::evidence::Evidence;
use crate::webhook::Webhook;

/// Counts requests by webhook, behind `LookupWebhook`: only configured webhooks are labels. Without counters it does
/// nothing.
#[derive(Clone, Debug)]
pub(crate) struct CountWebhooksLayer {
    counters: Option<WebhookCounters>,
}

impl CountWebhooksLayer {
    pub(crate) fn of(counters: Option<WebhookCounters>) -> Self {
        Self { counters }
    }
}

impl<S> Layer<S> for CountWebhooksLayer {
    type Service = CountWebhooks<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountWebhooks { inner, counters: self.counters.clone() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct CountWebhooks<S> {
    inner: S,
    counters: Option<WebhookCounters>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CountWebhooks<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CountWebhooksFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request<ReqBody>) -> Self::Future {
        match &self.counters {
            Some(counters) => count(&mut self.inner, counters, req),
            None => CountWebhooksFuture { inner: self.inner.call(req), counting: None },
        }
    }
}

// A function of its own: a request that `call` looked at would be copied once more, also without counters.
fn count<S: Service<Request<B>>, B>(
    inner: &mut S,
    counters: &WebhookCounters,
    req: Request<B>,
) -> CountWebhooksFuture<S::Future> {
    let webhook = Evidence::of(req.extensions()).known_webhook().cloned();
    let counting = webhook.map(|webhook| Counting { counters: counters.clone(), webhook, outcome: Outcome::Aborted });
    CountWebhooksFuture { inner: inner.call(req), counting }
}

/// Counts one request when it is dropped.
#[derive(Debug)]
struct Counting {
    counters: WebhookCounters,
    webhook: Arc<Webhook>,
    outcome: Outcome,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.counters.requested(self.webhook.key(), self.outcome.label());
    }
}

#[pin_project]
#[derive(Debug)]
pub(crate) struct CountWebhooksFuture<F> {
    #[pin]
    inner: F,
    counting: Option<Counting>,
}

impl<F, B, E> Future for CountWebhooksFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.counting.is_none() {
            return this.inner.poll(cx);
        }
        let polled = this.inner.poll(cx);
        if let Poll::Ready(outcome) = &polled
            && let (Some(mut counting), Ok(response)) = (this.counting.take(), outcome)
        {
            counting.outcome = Outcome::of(response);
        }
        polled
    }
}
