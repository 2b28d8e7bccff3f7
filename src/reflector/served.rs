//! Tracks which connections are used by served webhooks, so that their clients are kept, and closed afterwards.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Connection, WebhookKey};
use crate::webhook::Webhook;

/// The connections that served webhooks use. Their clients are kept.
#[derive(Default)]
pub(super) struct Served {
    by: HashMap<WebhookKey, Box<[Arc<Connection>]>>,
    open: Vec<Arc<Connection>>,
    is_changed: bool,
}

impl Served {
    /// Records the webhook that is served for `key` from now on.
    pub(super) fn serve(&mut self, key: &WebhookKey, webhook: Option<&Webhook>) {
        let connections = webhook.map(Webhook::connections).unwrap_or_default();
        self.is_changed |= match connections {
            [] => self.by.remove(key).is_some(),
            _ => self.by.insert(key.clone(), connections.into()).is_none_or(|before| !is_same(&before, connections)),
        };
    }

    /// Forgets all webhooks; the caller records all of them again.
    pub(super) fn begin_anew(&mut self) {
        self.by.clear();
        self.is_changed = true;
    }

    /// Opens the connections that are used now. Returns the connections that are no longer used, which the caller
    /// closes once no request is served with them.
    pub(super) fn open(&mut self) -> Vec<Arc<Connection>> {
        if !std::mem::take(&mut self.is_changed) {
            return Vec::new();
        }
        let used: HashMap<_, _> = self.by.values().flatten().map(|used| (Arc::as_ptr(used), used)).collect();
        used.values().for_each(|connection| connection.client().open());
        let before = std::mem::replace(&mut self.open, used.values().map(|used| Arc::clone(used)).collect());
        before.into_iter().filter(|connection| !used.contains_key(&Arc::as_ptr(connection))).collect()
    }
}

fn is_same(one: &[Arc<Connection>], other: &[Arc<Connection>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}
