//! Decides what is served once the newest value of a key has been compiled.

use std::sync::Arc;

use crate::config::{CompileError, Key, WebhookKey};
use crate::store::{Refusal, Revision, Slot, Snapshot};
use crate::webhook::Webhook;

/// The value that is served in place of one that does not compile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInvalid {
    /// The last value that compiled, within the same history of the source (see
    /// [`Replacement::begin_history`](super::Replacement::begin_history)). The webhook answers 503 if there is none, if
    /// a connection that this value was built with has changed or is gone, or if a connection now reserves a variable
    /// of this value.
    #[default]
    Keep,
    /// None: the webhook answers 503 until a valid value comes. The served configuration is then a function of the
    /// source's content.
    Fence,
}

/// Carries an unchanged webhook over to the draft.
pub(super) fn take_over(draft: &mut Snapshot, before: &Snapshot, key: &WebhookKey, slot: &Slot) -> Slot {
    let key = Key::Webhook(key.clone());
    let refusal = before.refusal(&key).cloned();
    draft.set_refusal(key, refusal);
    slot.clone()
}

/// The webhook that may go on being served if a new value does not compile.
pub(super) fn last_good(before: &Snapshot, key: &WebhookKey, on_invalid: OnInvalid) -> Option<Arc<Webhook>> {
    let serving = before.slot(key).and_then(|slot| slot.serving.clone());
    serving.filter(|_| on_invalid == OnInvalid::Keep)
}

/// Stops serving an earlier value in place of one that does not compile, because the source has a new history.
pub(super) fn withdraw_last_good(draft: &mut Snapshot, key: &WebhookKey, slot: &mut Slot) {
    let key = Key::Webhook(key.clone());
    let Some(refusal) = draft.refusal(&key).filter(|refusal| refusal.serving) else { return };
    let reason = format!("{}; the earlier value is not served: it belongs to a history that is gone", refusal.reason);
    let refusal = Refusal { reason, revision: refusal.revision, serving: false };
    draft.set_refusal(key, Some(Arc::new(refusal)));
    slot.serving = None;
}

/// Applies the outcome of compiling a webhook, and records a refusal in the draft. `slot` holds the webhook that is
/// served if the outcome is an error.
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
            for warning in webhook.logged_warnings() {
                tracing::warn!(key = %name, revision, warning, "configuration accepted with a warning");
            }
            draft.set_refusal(name, None);
            slot.serving = Some(webhook);
        }
        Err(error) => refuse(draft, name, revision, &error, slot.serving.is_some()),
    }
    slot
}

/// Records that the newest value is refused; `serving` if an earlier one is served in its place.
pub(super) fn refuse(draft: &mut Snapshot, key: Key, revision: Revision, error: &CompileError, serving: bool) {
    draft.set_refusal(key, Some(Arc::new(Refusal { reason: error.to_string(), revision, serving })));
}
