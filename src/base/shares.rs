//! How much of a shared capacity each webhook and each namespace may take.
//!
//! The limits are dynamic thresholds: a webhook may hold as many bytes as are still free, and a namespace twice as many
//! (A. Choudhury and E. Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). So one namespace
//! alone may take two thirds of the capacity, and a namespace that comes later always finds room in the rest. As the
//! first ones drain, all namespaces that want room end up with equal shares.

/// Bytes in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Bytes of all webhooks.
    pub(crate) all: u64,
    /// Bytes of the webhook.
    pub(crate) webhook: u64,
    /// Bytes of the webhook's namespace, the webhook included.
    pub(crate) namespace: u64,
}

/// The limit that was exceeded: of the webhook, of its namespace, or of all together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scope {
    Webhook,
    Namespace,
    All,
}

impl Held {
    /// The same with `bytes` more for the webhook.
    pub(crate) fn and(self, bytes: u64) -> Self {
        let [all, webhook, namespace] = [self.all, self.webhook, self.namespace].map(|held| held.saturating_add(bytes));
        Self { all, webhook, namespace }
    }

    /// The limit that is exceeded, if all together may hold `capacity` bytes. A webhook and a namespace may always hold
    /// `least` bytes, as long as the total is within `capacity`.
    pub(crate) fn exceeded(self, capacity: u64, least: u64) -> Option<Scope> {
        let free = capacity.saturating_sub(self.all);
        if self.webhook > free.max(least) {
            Some(Scope::Webhook)
        } else if self.namespace > free.saturating_mul(2).max(least) {
            Some(Scope::Namespace)
        } else if self.all > capacity {
            Some(Scope::All)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_may_hold_what_is_free_and_a_namespace_twice_as_much() {
        let held = |all, webhook, namespace| Held { all, webhook, namespace }.exceeded(1000, 0);
        assert_eq!(held(500, 500, 500), None);
        assert_eq!(held(501, 501, 501), Some(Scope::Webhook));
        assert_eq!(held(600, 400, 600), None);
        assert_eq!(held(700, 300, 601), Some(Scope::Namespace));
        assert_eq!(held(1000, 0, 0), None);
        assert_eq!(held(1001, 0, 0), Some(Scope::All));
        assert_eq!(Held::default().and(u64::MAX).exceeded(1000, 0), Some(Scope::Webhook));
    }

    #[test]
    fn the_least_share_is_granted_as_long_as_there_is_room() {
        let held = |all, webhook, namespace| Held { all, webhook, namespace }.exceeded(1000, 100);
        assert_eq!(held(1000, 100, 100), None);
        assert_eq!(held(1000, 101, 101), Some(Scope::Webhook));
        assert_eq!(held(1000, 100, 101), Some(Scope::Namespace));
        assert_eq!(held(1001, 100, 100), Some(Scope::All));
    }
}
