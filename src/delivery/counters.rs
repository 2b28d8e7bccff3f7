//! Counts requests and attempts of each webhook or namespace.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::base::lock::lock;
use crate::base::metrics::{Counter, counter};
use crate::config::WebhookKey;

/// Counts the requests and the attempts of each webhook, or of each namespace, as metrics.
///
/// With the feature `metrics`, a receiver that was given this ([`ReceiverBuilder::count_by_webhook`]) counts
/// `tower_webhook_webhook_requests_total` and, for accepted events, `tower_webhook_webhook_attempts_total`, both with the
/// labels `namespace`, `webhook` and `outcome`. The first has an outcome for each request that reached a configured
/// webhook, the same as `tower_webhook_requests_total`; so no label holds text that a sender made up.
///
/// The number of series is bounded. Once there are so many, a webhook without a series is counted with `other` as its
/// namespace and its id. Clones share the series.
///
/// [`ReceiverBuilder::count_by_webhook`]: crate::receiver::ReceiverBuilder::count_by_webhook
#[derive(Clone)]
pub struct WebhookCounters(Arc<Inner>);

/// The labels of [`WebhookCounters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CountBy {
    /// `namespace` alone; `webhook` is empty, which Prometheus takes for a label that is not there.
    Namespace,
    /// `namespace` and `webhook`.
    Webhook,
}

struct Inner {
    by: CountBy,
    max_series: usize,
    series: Mutex<Series>,
}

/// The counters of requests and of attempts, by webhook or namespace and by outcome.
#[derive(Default)]
struct Series {
    requests: Family,
    attempts: Family,
    /// How many there are of both.
    count: usize,
}

type Family = HashMap<Box<str>, Vec<(&'static str, Counter)>, foldhash::fast::RandomState>;

/// The namespace and the id of webhooks without a series of their own.
const OTHER: &str = "other";

impl WebhookCounters {
    /// Counts with at most `max_series` series, and one more for each outcome of `other`.
    pub fn new(by: CountBy, max_series: usize) -> Self {
        Self(Arc::new(Inner { by, max_series, series: Mutex::default() }))
    }

    /// Counts a request with this outcome.
    pub(crate) fn requested(&self, webhook: &WebhookKey, outcome: &'static str) {
        self.count(webhook, outcome, |series| &mut series.requests, |namespace, webhook| {
            counter!("tower_webhook_webhook_requests_total", "namespace" => namespace, "webhook" => webhook, "outcome" => outcome)
        });
    }

    /// Counts an attempt to deliver an accepted event.
    pub(crate) fn attempted(&self, webhook: &WebhookKey, outcome: &'static str) {
        self.count(webhook, outcome, |series| &mut series.attempts, |namespace, webhook| {
            counter!("tower_webhook_webhook_attempts_total", "namespace" => namespace, "webhook" => webhook, "outcome" => outcome)
        });
    }

    #[allow(clippy::clone_on_copy)] // Without the feature `metrics` a counter is nothing, and can be copied.
    fn count(
        &self,
        webhook: &WebhookKey,
        outcome: &'static str,
        family: impl Fn(&mut Series) -> &mut Family,
        make: impl FnOnce(String, String) -> Counter,
    ) {
        let (namespace, id) = match self.0.by {
            CountBy::Namespace => (webhook.namespace(), ""),
            CountBy::Webhook => (webhook.namespace(), webhook.id()),
        };
        let name = match self.0.by {
            CountBy::Namespace => namespace,
            CountBy::Webhook => webhook.as_str(),
        };
        let mut series = lock(&self.0.series);
        let known = |all: &Family, name: &str| {
            all.get(name)?.iter().find(|(other, _)| *other == outcome).map(|(_, counter)| counter.clone())
        };
        let counter = match known(family(&mut series), name) {
            Some(counter) => counter,
            None => {
                let is_full = series.count >= self.0.max_series;
                let (name, namespace, id) = if is_full { ("", OTHER, OTHER) } else { (name, namespace, id) };
                series.count += usize::from(!is_full);
                match known(family(&mut series), name) {
                    Some(counter) => counter,
                    None => {
                        let counter = make(namespace.to_owned(), id.to_owned());
                        family(&mut series).entry(name.into()).or_default().push((outcome, counter.clone()));
                        counter
                    }
                }
            }
        };
        drop(series);
        counter.increment(1);
    }
}

impl fmt::Debug for WebhookCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookCounters").field("by", &self.0.by).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(family: &Family) -> Vec<(&str, Vec<&str>)> {
        let mut names: Vec<_> = family
            .iter()
            .map(|(name, series)| (&**name, series.iter().map(|(outcome, _)| *outcome).collect()))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn series_are_bounded_and_the_rest_is_counted_together() {
        let counters = WebhookCounters::new(CountBy::Webhook, 3);
        let key = |id: &str| WebhookKey::new("shop", id).unwrap();
        for id in ["a", "a", "b"] {
            counters.requested(&key(id), "delivered");
        }
        counters.attempted(&key("a"), "connect");
        for n in 0..100 {
            counters.requested(&key(&n.to_string()), "delivered");
            counters.requested(&key("b"), "unauthenticated");
            counters.attempted(&key("c"), "timeout");
        }
        let series = lock(&counters.0.series);
        assert_eq!(series.count, 3);
        let expected =
            [("", vec!["delivered", "unauthenticated"]), ("shop/a", vec!["delivered"]), ("shop/b", vec!["delivered"])];
        assert_eq!(names(&series.requests), expected);
        assert_eq!(names(&series.attempts), [("", vec!["timeout"]), ("shop/a", vec!["connect"])]);
    }

    #[test]
    fn webhooks_of_a_namespace_share_its_series() {
        let counters = WebhookCounters::new(CountBy::Namespace, 3);
        for id in ["a", "b"] {
            counters.requested(&WebhookKey::new("shop", id).unwrap(), "delivered");
        }
        assert_eq!(names(&lock(&counters.0.series).requests), [("shop", vec!["delivered"])]);
    }
}
