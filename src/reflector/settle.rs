//! Decides what serves once the newest value of a key has been compiled.

use std::sync::Arc;

use crate::config::{CompileError, Key, WebhookKey};
use crate::store::{Refusal, Revision, Slot, Snapshot};
use crate::webhook::Webhook;

/// What is served in place of a value that does not compile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInvalid {
    /// The last value that did, if there was one in the same history of the source; else 503. See
    /// [`Replacement::begin_history`](super::Replacement::begin_history). Also 503 if a connection that this value was built
    /// with has changed or is gone, or if a variable of this value belongs to a connection now.
    #[default]
    Keep,
    /// 503 until a good value comes: what is served is then a function of what the source holds.
    Fence,
}

/// Takes over what was served before.
pub(super) fn take_over(draft: &mut Snapshot, before: &Snapshot, key: &WebhookKey, slot: &Slot) -> Slot {
    let key = Key::Webhook(key.clone());
    let refusal = before.refusal(&key).cloned();
    draft.set_refusal(key, refusal);
    slot.clone()
}

/// What goes on serving if a new value does not compile.
pub(super) fn last_good(before: &Snapshot, key: &WebhookKey, on_invalid: OnInvalid) -> Option<Arc<Webhook>> {
    let serving = before.slot(key).and_then(|slot| slot.serving.clone());
    serving.filter(|_| on_invalid == OnInvalid::Keep)
}

/// Takes an earlier value out of service that serves in place of one that does not compile, because the history changed.
pub(super) fn forsake(draft: &mut Snapshot, key: &WebhookKey, slot: &mut Slot) {
    let key = Key::Webhook(key.clone());
    let Some(refusal) = draft.refusal(&key).filter(|refusal| refusal.serving) else { return };
    let reason = format!("{}; the earlier value is not served: it belongs to a history that is gone", refusal.reason);
    let refusal = Refusal { reason, revision: refusal.revision, serving: false };
    draft.set_refusal(key, Some(Arc::new(refusal)));
    slot.serving = None;
}

/// What becomes of a webhook whose bytes have been compiled; the draft learns of a refusal. `slot` holds what serves if
/// nothing better came.
pub(super) fn settle(
    draft: &mut Snapshot,
    revision: Revision,
    key: &WebhookKey,
    mut slot: Slot,
    outcome: Result<Arc<Webhook>, CompileError>,
) -> Slot {
    let name = Key::Webhook(key.clone());
    match outcome {
        Ok(webhook) => {
            for warning in webhook.warnings() {
                tracing::warn!(key = %name, revision, warning, "configuration taken with a warning");
            }
            draft.set_refusal(name, None);
            slot.serving = Some(webhook);
        }
        Err(error) => refuse(draft, name, revision, &error, slot.serving.is_some()),
    }
    slot
}

/// Shows a refusal of the newest value; `serving` if an earlier one serves in its place.
pub(super) fn refuse(draft: &mut Snapshot, key: Key, revision: Revision, error: &CompileError, serving: bool) {
    draft.set_refusal(key, Some(Arc::new(Refusal { reason: error.to_string(), revision, serving })));
}
