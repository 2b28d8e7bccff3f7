//! What the layers have found out about a request.
//!
//! It is in one slot of the request's extensions. A copy of [`Matched`] has a slot of its own, so that handlers can
//! extract it; anybody can put another one there, so no layer decides by the copy. All the rules by which evidence comes
//! and goes are here: nothing that was learned of one webhook may speak for another.

use std::sync::Arc;

use http::Extensions;

use crate::auth::{Pending, Permit};
use crate::config::Webhook;
use crate::key::Target;
use crate::lookup::Matched;
use crate::rejection::Rejection;

#[derive(Clone, Default)]
pub(crate) struct Evidence {
    target: Option<Target>,
    matched: Option<Matched>,
    permit: Option<Permit>,
    /// An obligation: unlike a permit it is not taken back when the request is routed elsewhere.
    pending: Option<Pending>,
    is_checked: bool,
    is_deduplicated: bool,
    /// A layer further out holds a claim, of whatever rule. Wherever the request is routed, it does.
    is_claimed: bool,
}

// --- what the layers bring

impl Evidence {
    pub(crate) fn set_target(extensions: &mut Extensions, target: Target) {
        let evidence = Self::slot(extensions);
        let is_claimed = evidence.is_claimed;
        *evidence = Self { target: Some(target), pending: evidence.elsewhere(), is_claimed, ..Self::default() };
        extensions.remove::<Matched>();
    }

    /// A permit that was given before the webhook was known says nothing of its guards.
    pub(crate) fn set_matched(extensions: &mut Extensions, matched: Matched) {
        let evidence = Self::slot(extensions);
        let (target, pending, is_claimed) = (evidence.target, evidence.elsewhere(), evidence.is_claimed);
        *evidence = Self { target, matched: Some(matched.clone()), pending, is_claimed, ..Self::default() };
        extensions.insert(matched);
    }

    pub(crate) fn set_permit(extensions: &mut Extensions, permit: Permit) {
        Self::slot(extensions).permit = Some(permit);
    }

    /// Adds to what other layers left open.
    pub(crate) fn add_pending(extensions: &mut Extensions, more: Pending) {
        let pending = &mut Self::slot(extensions).pending;
        *pending = Some(match pending.take() {
            Some(before) => before.and(more),
            None => more,
        });
    }

    /// Everything that was waited for is proven.
    pub(crate) fn settle(extensions: &mut Extensions) {
        let evidence = Self::slot(extensions);
        if let Some(permit) = evidence.pending.take().and_then(Pending::settled) {
            evidence.permit = Some(permit);
        }
    }

    pub(crate) fn set_checked(extensions: &mut Extensions) {
        Self::slot(extensions).is_checked = true;
    }

    pub(crate) fn set_deduplicated(extensions: &mut Extensions) {
        Self::slot(extensions).is_deduplicated = true;
    }

    pub(crate) fn set_claimed(extensions: &mut Extensions) {
        Self::slot(extensions).is_claimed = true;
    }

    fn slot(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_default()
    }

    /// What is still open, of which nothing lets anybody in where the request goes now.
    fn elsewhere(&mut self) -> Option<Pending> {
        self.pending.take().map(Pending::elsewhere)
    }
}

// --- what the layers behind them ask for

impl Evidence {
    pub(crate) fn target(extensions: &Extensions) -> Result<&Target, Rejection> {
        Self::find(extensions, |evidence| evidence.target.as_ref(), "RouteNamespace")
    }

    pub(crate) fn matched(extensions: &Extensions) -> Result<&Matched, Rejection> {
        Self::find(extensions, |evidence| evidence.matched.as_ref(), "LookupWebhook")
    }

    /// The webhook, if it has been looked up.
    pub(crate) fn webhook(extensions: &Extensions) -> Option<&Arc<Webhook>> {
        extensions.get::<Self>()?.matched.as_ref().map(Matched::webhook)
    }

    /// The permit, if no scheme is still waiting for the body.
    pub(crate) fn permit(extensions: &Extensions) -> Result<&Permit, Rejection> {
        Self::require_no_pending(extensions)?;
        Self::find(extensions, |evidence| evidence.permit.as_ref(), "RequireAuth")
    }

    pub(crate) fn pending(extensions: &Extensions) -> Option<&Pending> {
        extensions.get::<Self>()?.pending.as_ref()
    }

    pub(crate) fn require_no_pending(extensions: &Extensions) -> Result<(), Rejection> {
        match Self::pending(extensions) {
            Some(_) => Err(Rejection::misassembled("VerifyBody")),
            None => Ok(()),
        }
    }

    pub(crate) fn is_deduplicated(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|evidence| evidence.is_deduplicated)
    }

    pub(crate) fn is_claimed(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|evidence| evidence.is_claimed)
    }

    /// The webhook that may have the request: everything has been found out that must be. It is taken out.
    pub(crate) fn admit(extensions: &mut Extensions) -> Result<Arc<Webhook>, Rejection> {
        // The copy that handlers see: of another request, it would tell them of a webhook that was not asked for.
        let shown = extensions.remove::<Matched>();
        let evidence = extensions.get_mut::<Self>().ok_or_else(|| Rejection::misassembled("RequireAuth"))?;
        let missing = |layer, is_missing| if is_missing { Err(Rejection::misassembled(layer)) } else { Ok(()) };
        missing("VerifyBody", evidence.pending.is_some())?;
        missing("RequireAuth", evidence.permit.is_none())?;
        missing("CheckPayload", !evidence.is_checked)?;
        let is_its_own =
            |matched: &Matched| shown.as_ref().is_none_or(|shown| Arc::ptr_eq(shown.webhook(), matched.webhook()));
        let matched = evidence.matched.take().filter(is_its_own);
        let webhook = matched.ok_or_else(|| Rejection::misassembled("LookupWebhook"))?.into_webhook();
        missing("Dedup", webhook.dedup().is_some() && !evidence.is_deduplicated)?;
        Ok(webhook)
    }

    fn find<'a, T>(
        extensions: &'a Extensions,
        part: impl FnOnce(&'a Self) -> Option<&'a T>,
        layer: &'static str,
    ) -> Result<&'a T, Rejection> {
        extensions.get::<Self>().and_then(part).ok_or_else(|| Rejection::misassembled(layer))
    }
}
