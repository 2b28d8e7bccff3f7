//! How much of the spool's room each webhook, and each namespace, has taken.

use std::collections::HashMap;
use std::hash::Hash;

use crate::key::WebhookKey;

/// The bytes of the events that are there, those on their way into a segment included.
#[derive(Default)]
pub(super) struct Shares {
    webhooks: Sums<WebhookKey>,
    namespaces: Sums<Box<str>>,
}

type Sums<K> = HashMap<K, u64, foldhash::fast::RandomState>;

impl Shares {
    /// Whether an event of this size leaves room to the others: a webhook may have half of it, and a namespace three
    /// quarters.
    pub(super) fn has_room(&self, webhook: &WebhookKey, bytes: u64, max_bytes: u64) -> bool {
        let (share, namespace) = (self.webhooks.get(webhook), self.namespaces.get(webhook.namespace()));
        let after = |share: Option<&u64>| share.copied().unwrap_or(0) + bytes;
        after(share) <= max_bytes / 2 && after(namespace) <= max_bytes / 4 * 3
    }

    pub(super) fn take(&mut self, webhook: &WebhookKey, bytes: u64) {
        match self.webhooks.get_mut(webhook) {
            Some(share) => *share += bytes,
            None => drop(self.webhooks.insert(webhook.clone(), bytes)),
        }
        match self.namespaces.get_mut(webhook.namespace()) {
            Some(share) => *share += bytes,
            None => drop(self.namespaces.insert(webhook.namespace().into(), bytes)),
        }
    }

    pub(super) fn give_back(&mut self, webhook: &WebhookKey, bytes: u64) {
        subtract(&mut self.webhooks, webhook, bytes);
        subtract(&mut self.namespaces, webhook.namespace(), bytes);
    }
}

fn subtract<K, Q>(sums: &mut Sums<K>, key: &Q, bytes: u64)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(share) = sums.get_mut(key) {
        *share = share.saturating_sub(bytes);
        if *share == 0 {
            sums.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_webhook_nor_a_namespace_takes_it_all() {
        let mut shares = Shares::default();
        let [a, b, c, other] =
            [("n", "a"), ("n", "b"), ("n", "c"), ("o", "a")].map(|(n, w)| WebhookKey::new(n, w).unwrap());
        shares.take(&a, 500);
        assert!(!shares.has_room(&a, 1, 1000) && shares.has_room(&b, 250, 1000));
        shares.take(&b, 250);
        assert!(!shares.has_room(&c, 1, 1000) && shares.has_room(&other, 250, 1000));
        shares.give_back(&a, 500);
        assert!(shares.has_room(&c, 500, 1000));
        shares.give_back(&b, 250);
        assert!(shares.webhooks.is_empty() && shares.namespaces.is_empty());
    }
}
