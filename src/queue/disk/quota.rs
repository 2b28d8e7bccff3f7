//! The quota: how much of the spool's room each webhook and each namespace takes.

use std::collections::HashMap;
use std::hash::Hash;

use crate::base::shares::Held;
use crate::config::WebhookKey;

/// Bytes of all events by webhook and by namespace, including events that are still being written.
#[derive(Default)]
pub(super) struct Shares {
    webhooks: Sums<WebhookKey>,
    namespaces: Sums<Box<str>>,
    total: u64,
}

type Sums<K> = HashMap<K, u64, foldhash::fast::RandomState>;

/// The largest event that an empty spool accepts, if all events together may have `capacity` bytes.
pub(super) fn largest_event(capacity: u64) -> u64 {
    capacity / 2
}

impl Shares {
    /// Whether there is room for an event of this size, if all events together may have `capacity` bytes.
    pub(super) fn has_room(&self, webhook: &WebhookKey, bytes: u64, capacity: u64) -> bool {
        let share = |share: Option<&u64>| share.copied().unwrap_or(0);
        let held = Held {
            all: self.total,
            webhook: share(self.webhooks.get(webhook)),
            namespace: share(self.namespaces.get(webhook.namespace())),
        };
        held.and(bytes).exceeded(capacity, 0).is_none()
    }

    pub(super) fn take(&mut self, webhook: &WebhookKey, bytes: u64) {
        self.total += bytes;
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
        self.total = self.total.saturating_sub(bytes);
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

    fn key(namespace: &str, id: &str) -> WebhookKey {
        WebhookKey::new(namespace, id).unwrap()
    }

    /// Takes room in steps of one byte until there is none. Returns how much it got.
    fn fill(shares: &mut Shares, webhook: &WebhookKey) -> u64 {
        let mut got = 0;
        while shares.has_room(webhook, 1, 1000) {
            shares.take(webhook, 1);
            got += 1;
        }
        got
    }

    #[test]
    fn a_webhook_alone_takes_half_and_a_namespace_alone_two_thirds() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, &key("n", "a")), 500);
        assert_eq!(fill(&mut shares, &key("n", "b")) + fill(&mut shares, &key("n", "c")), 166);
    }

    #[test]
    fn each_namespace_that_comes_later_finds_room() {
        let mut shares = Shares::default();
        let got: Vec<_> = (0..6).map(|n| fill(&mut shares, &key(&format!("n{n}"), "a"))).collect();
        assert_eq!(got, [500, 250, 125, 62, 31, 16]);
    }

    #[test]
    fn equal_demand_ends_in_equal_shares() {
        let mut shares = Shares::default();
        let webhooks: Vec<_> = (0..4).map(|n| key(&format!("n{n}"), "a")).collect();
        webhooks.iter().for_each(|webhook| _ = fill(&mut shares, webhook));
        // Each round every webhook has one event delivered, and all of them want the room.
        for _ in 0..1000 {
            for webhook in &webhooks {
                shares.give_back(webhook, 1);
            }
            webhooks.iter().for_each(|webhook| _ = fill(&mut shares, webhook));
        }
        let taken: Vec<_> = webhooks.iter().map(|webhook| shares.webhooks[webhook]).collect();
        assert!(taken.iter().all(|taken| (190..=210).contains(taken)), "{taken:?}");
    }

    #[test]
    fn shares_that_are_given_back_leave_no_entry() {
        let mut shares = Shares::default();
        let webhook = key("n", "a");
        shares.take(&webhook, 500);
        assert!(!shares.has_room(&webhook, 1, 1000));
        shares.give_back(&webhook, 500);
        assert!(shares.has_room(&webhook, largest_event(1000), 1000));
        assert!(shares.webhooks.is_empty() && shares.namespaces.is_empty() && shares.total == 0);
    }

    #[test]
    fn the_largest_size_has_no_room() {
        assert!(!Shares::default().has_room(&key("n", "a"), u64::MAX, 1000));
    }
}
