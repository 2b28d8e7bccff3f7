//! Decides what is served once the newest value of a key has been compiled.

use std::sync::Arc;
use std::time::SystemTime;

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
pub(super) fn last_good(before: &Snapshot, key: &WebhookKey, on_invalid: OnInvalid) -> Option<LastGood> {
    let slot = before.slot(key).filter(|_| on_invalid == OnInvalid::Keep)?;
    Some(LastGood { webhook: slot.serving.clone()?, revision: slot.revision })
}

/// A webhook that is served, and the revision that brought it.
pub(super) struct LastGood {
    pub(super) webhook: Arc<Webhook>,
    pub(super) revision: Revision,
}

/// The slot of a value that is compiled: it serves the last good value so far.
pub(super) fn slot(digest: [u8; 16], linked: bool, last_good: Option<LastGood>) -> Slot {
    let revision = last_good.as_ref().map_or(0, |last_good| last_good.revision);
    Slot { digest, linked, serving: last_good.map(|last_good| last_good.webhook), revision }
}

/// Stops serving an earlier value in place of one that does not compile, because the source has a new history.
pub(super) fn withdraw_last_good(draft: &mut Snapshot, key: &WebhookKey, slot: &mut Slot) {
    let key = Key::Webhook(key.clone());
    let Some(refusal) = draft.refusal(&key).filter(|refusal| refusal.serving) else { return };
    let reason = format!("{}; the earlier value is not served: it belongs to a history that is gone", refusal.reason);
    let refusal = Refusal { reason, revision: refusal.revision, at: refusal.at, serving: false };
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
            slot.revision = brought_by(draft, &name, key, &slot, revision);
            draft.set_refusal(name, None);
            slot.serving = Some(webhook);
        }
        Err(error) => refuse(draft, name, revision, &error, slot.serving.is_some()),
    }
    slot
}

/// Records that the newest value is refused; `serving` if an earlier one is served in its place.
pub(super) fn refuse(draft: &mut Snapshot, key: Key, revision: Revision, error: &CompileError, serving: bool) {
    let refusal = Refusal { reason: error.to_string(), revision, at: SystemTime::now(), serving };
    draft.set_refusal(key, Some(Arc::new(refusal)));
}

/// The revision that brought the bytes of a slot. It is an earlier one if only a connection or a secret file has changed.
fn brought_by(draft: &Snapshot, name: &Key, key: &WebhookKey, slot: &Slot, revision: Revision) -> Revision {
    match draft.slot(key).filter(|before| before.digest == slot.digest) {
        Some(before) => draft.refusal(name).map_or(before.revision, |refusal| refusal.revision),
        None => revision,
    }
}
