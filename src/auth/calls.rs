//! How many calls of [`CallAuth`](crate::layers::CallAuth) run at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;

use crate::base::lock::lock;
use crate::config::WebhookKey;

/// A namespace has this many times the places of one of its webhooks.
const WEBHOOKS: usize = 4;

/// The requests whose calls run, counted by webhook and by namespace.
#[derive(Debug)]
pub(crate) struct Calls {
    max_per_webhook: usize,
    running: Mutex<HashMap<Share, usize, RandomState>>,
}

/// A group of requests with a bound of its own. Requests for which no webhook was looked up are a group as large as a
/// namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Share {
    Webhook(WebhookKey),
    Namespace(Box<str>),
    NoWebhook,
}

/// As long as it is there, a request has its places.
#[derive(Debug)]
pub(crate) struct Place {
    calls: Arc<Calls>,
    shares: Vec<Share>,
}

impl Calls {
    pub(crate) fn new(max_per_webhook: usize) -> Arc<Self> {
        Arc::new(Self { max_per_webhook, running: Mutex::default() })
    }

    /// A place for the calls of one request; `None` if all are taken.
    pub(crate) fn begin(self: &Arc<Self>, webhook: Option<&WebhookKey>) -> Option<Place> {
        let shares = match webhook {
            Some(key) => vec![Share::Webhook(key.clone()), Share::Namespace(key.namespace().into())],
            None => vec![Share::NoWebhook],
        };
        let mut running = self.lock();
        let has_room = |share| running.get(share).is_none_or(|running| *running < self.max(share));
        if !shares.iter().all(has_room) {
            return None;
        }
        for share in &shares {
            *running.entry(share.clone()).or_default() += 1;
        }
        Some(Place { calls: Arc::clone(self), shares })
    }

    fn max(&self, share: &Share) -> usize {
        match share {
            Share::Webhook(_) => self.max_per_webhook,
            Share::Namespace(_) | Share::NoWebhook => self.max_per_webhook.saturating_mul(WEBHOOKS),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Share, usize, RandomState>> {
        lock(&self.running)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.calls.lock();
        for share in &self.shares {
            if let Some(number) = running.get_mut(share) {
                *number = number.saturating_sub(1);
                if *number == 0 {
                    running.remove(share);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, id: &str) -> WebhookKey {
        WebhookKey::new(namespace, id).unwrap()
    }

    #[test]
    fn a_webhook_has_a_share_and_leaves_the_rest_to_the_others() {
        let calls = Calls::new(2);
        let (one, other) = (key("a", "one"), key("a", "other"));
        let first = calls.begin(Some(&one)).unwrap();
        let _second = calls.begin(Some(&one)).unwrap();
        assert!(calls.begin(Some(&one)).is_none());
        let _other = calls.begin(Some(&other)).unwrap();
        drop(first);
        let _again = calls.begin(Some(&one)).unwrap();
        assert!(calls.begin(Some(&one)).is_none());
    }

    #[test]
    fn a_namespace_has_a_share_and_leaves_the_rest_to_the_others() {
        let calls = Calls::new(1);
        let places: Vec<_> = (0..WEBHOOKS).map(|id| calls.begin(Some(&key("a", &id.to_string()))).unwrap()).collect();
        assert!(calls.begin(Some(&key("a", "more"))).is_none());
        let _other = calls.begin(Some(&key("b", "more"))).unwrap();
        drop(places);
        assert!(calls.begin(Some(&key("a", "more"))).is_some());
    }

    #[test]
    fn requests_for_no_webhook_are_bounded_together() {
        let calls = Calls::new(1);
        let places: Vec<_> = (0..WEBHOOKS).map(|_| calls.begin(None).unwrap()).collect();
        assert!(calls.begin(None).is_none());
        assert!(calls.begin(Some(&key("a", "one"))).is_some());
        drop(places);
        assert!(calls.begin(None).is_some());
    }

    #[test]
    fn what_has_ended_is_not_remembered() {
        let calls = Calls::new(1);
        drop((calls.begin(None), calls.begin(Some(&key("a", "one")))));
        assert!(calls.lock().is_empty());
        // Nor is one that was refused.
        let _place = calls.begin(Some(&key("a", "one")));
        assert!(calls.begin(Some(&key("a", "one"))).is_none());
        assert_eq!(calls.lock().values().sum::<usize>(), 2);
    }
}
