//! How much of a common room each webhook, and each namespace, may take.
//!
//! The limits are dynamic thresholds: a webhook may hold as many bytes as are still free, and a namespace twice as many
//! (A. Choudhury and E. Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). One namespace
//! alone may so take two thirds of the room, and a namespace that comes later always finds some of the rest. When the
//! first ones drain, all that want room end up with equal shares.

/// Bytes that are held.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) all: u64,
    /// Of these, the webhook's.
    pub(crate) webhook: u64,
    /// Of these, those of its namespace, the webhook's included.
    pub(crate) namespace: u64,
}

/// Whose bytes are too many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scope {
    Webhook,
    Namespace,
    All,
}

impl Held {
    /// The same with so many bytes more of the webhook.
    pub(crate) fn and(self, bytes: u64) -> Self {
        let [all, webhook, namespace] = [self.all, self.webhook, self.namespace].map(|held| held.saturating_add(bytes));
        Self { all, webhook, namespace }
    }

    /// Whose bytes are too many, if all may hold `capacity` bytes. `least` bytes are not too many for a webhook, nor for a
    /// namespace, as long as all together are not.
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
    fn the_least_is_not_too_much_as_long_as_there_is_room() {
        let held = |all, webhook, namespace| Held { all, webhook, namespace }.exceeded(1000, 100);
        assert_eq!(held(1000, 100, 100), None);
        assert_eq!(held(1000, 101, 101), Some(Scope::Webhook));
        assert_eq!(held(1000, 100, 101), Some(Scope::Namespace));
        assert_eq!(held(1001, 100, 100), Some(Scope::All));
    }
}
