//! What the layers have found out about a request.
//!
//! It is in one slot of the request's extensions. A copy of [`Matched`] has a slot of its own, so that handlers can
//! extract it; anybody can put another one there, so no layer decides by the copy. All the rules by which evidence comes
//! and goes are here: nothing that was learned of one webhook may speak for another. Nothing else can make it.

use std::sync::Arc;

use http::Extensions;

use crate::auth::{Matches, Pending, Position};
use crate::config::Target;
use crate::event::{EventId, Stamp};
use crate::handshake::Handshake;
use crate::request::{Missing, Rejection};
use crate::webhook::Webhook;

/// The webhook that a request is for, as it was configured when the request was looked up.
///
/// Only [`LookupWebhook`](super::lookup::LookupWebhook) brings one about.
#[derive(Clone, Debug)]
pub struct Matched(Arc<Webhook>);

impl Matched {
    /// What [`LookupWebhook`](super::lookup::LookupWebhook) found for the request these extensions belong to.
    ///
    /// # Errors
    ///
    /// A 500 [`Misassembled`](crate::RejectionKind::Misassembled) when that layer is missing.
    pub fn of(extensions: &Extensions) -> Result<&Self, Rejection> {
        Evidence::matched(extensions)
    }

    /// The webhook.
    pub fn webhook(&self) -> &Arc<Webhook> {
        &self.0
    }
}

/// The evidence, beside a request, that its sender was let in.
///
/// Only [`RequireAuth`], [`CallAuth`] and [`VerifyBody`] bring one about. It is taken away again by a [`RouteNamespace`] or
/// [`LookupWebhook`] further in: a permit for one webhook must not serve another.
///
/// [`RequireAuth`]: super::require_auth::RequireAuth
/// [`CallAuth`]: super::call_auth::CallAuth
/// [`VerifyBody`]: super::verify_body::VerifyBody
/// [`RouteNamespace`]: super::route::RouteNamespace
/// [`LookupWebhook`]: super::lookup::LookupWebhook
#[derive(Clone, Debug, Default)]
pub struct Permit {
    matches: Matches,
}

impl Permit {
    /// The permit of the request these extensions belong to.
    ///
    /// # Errors
    ///
    /// A 500 [`Misassembled`](crate::RejectionKind::Misassembled) when the layer is missing that would have given it.
    pub fn of(extensions: &Extensions) -> Result<&Self, Rejection> {
        Evidence::permit(extensions)
    }

    /// The secrets that let the sender in: the name of each guard that has several, and the position of the one that fits.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, Position)> {
        self.matches.iter()
    }
}

impl Target {
    /// What [`RouteNamespace`](super::route::RouteNamespace) found for the request these extensions belong to.
    ///
    /// # Errors
    ///
    /// A 500 [`Misassembled`](crate::RejectionKind::Misassembled) when that layer is missing.
    pub fn of(extensions: &Extensions) -> Result<&Self, Rejection> {
        Evidence::target(extensions)
    }
}

#[derive(Clone, Default)]
pub(super) struct Evidence {
    target: Option<Target>,
    matched: Option<Matched>,
    permit: Option<Permit>,
    owed: Option<Owed>,
    is_checked: bool,
    is_deduplicated: bool,
    /// Challenges that come before the guards have been answered.
    is_greeted: bool,
    /// Signed challenges have been answered.
    is_challenged: bool,
    /// A layer further out holds a claim, of whatever rule. Wherever the request is routed, it does.
    is_claimed: bool,
    /// The event that the request brings, wherever it is routed.
    event: Option<Stamp>,
}

/// A proof that is still to come. Unlike a permit it is not taken back when the request is routed elsewhere.
#[derive(Clone)]
struct Owed {
    pending: Pending,
    /// Whether it is owed to the guards of what the request is routed to now: only then a permit follows.
    permits: bool,
}

// --- what the layers bring

impl Evidence {
    pub(super) fn set_target(extensions: &mut Extensions, target: Target) {
        let evidence = Self::slot(extensions);
        let (is_claimed, event) = (evidence.is_claimed, evidence.event);
        *evidence = Self { target: Some(target), owed: evidence.elsewhere(), is_claimed, event, ..Self::default() };
        extensions.remove::<Matched>();
    }

    /// A permit that was given before the webhook was known says nothing of its guards.
    pub(super) fn set_matched(extensions: &mut Extensions, webhook: Arc<Webhook>) {
        let matched = Matched(webhook);
        let evidence = Self::slot(extensions);
        let (target, owed) = (evidence.target, evidence.elsewhere());
        let (is_claimed, event) = (evidence.is_claimed, evidence.event);
        *evidence = Self { target, matched: Some(matched.clone()), owed, is_claimed, event, ..Self::default() };
        extensions.insert(matched);
    }

    /// `matches` are the secrets that let the sender in; they are counted.
    pub(super) fn set_permit(extensions: &mut Extensions, matches: Matches) {
        matches.count();
        Self::slot(extensions).permit.get_or_insert_default().matches.extend(matches);
    }

    /// Adds to what other layers left open.
    pub(super) fn add_pending(extensions: &mut Extensions, more: Pending) {
        let owed = &mut Self::slot(extensions).owed;
        let pending = match owed.take() {
            Some(before) => before.pending.and(more),
            None => more,
        };
        *owed = Some(Owed { pending, permits: true });
    }

    /// The calls have been made, and `pending` is what waits for the body.
    pub(super) fn set_called(extensions: &mut Extensions, pending: Pending) {
        let evidence = Self::slot(extensions);
        match &mut evidence.owed {
            Some(owed) if !pending.is_empty() => owed.pending = pending,
            _ => Self::settle(extensions, pending.into_matches()),
        }
    }

    /// Everything that was waited for is proven.
    pub(super) fn settle(extensions: &mut Extensions, matches: Matches) {
        if Self::slot(extensions).owed.take().is_some_and(|owed| owed.permits) {
            Self::set_permit(extensions, matches);
        }
    }

    pub(super) fn set_checked(extensions: &mut Extensions) {
        Self::slot(extensions).is_checked = true;
    }

    pub(super) fn set_deduplicated(extensions: &mut Extensions) {
        Self::slot(extensions).is_deduplicated = true;
    }

    pub(super) fn set_greeted(extensions: &mut Extensions) {
        Self::slot(extensions).is_greeted = true;
    }

    pub(super) fn set_challenged(extensions: &mut Extensions) {
        Self::slot(extensions).is_challenged = true;
    }

    pub(super) fn set_claimed(extensions: &mut Extensions) {
        Self::slot(extensions).is_claimed = true;
    }

    /// Names the event that the request brings, unless it has a name.
    pub(super) fn name_event(extensions: &mut Extensions) -> EventId {
        Self::slot(extensions).event.get_or_insert_with(Stamp::now).id
    }

    fn slot(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_default()
    }

    /// Takes the proof that is still owed, and marks it: no permit follows from it for the webhook that the request goes to
    /// now.
    fn elsewhere(&mut self) -> Option<Owed> {
        self.owed.take().map(|owed| Owed { permits: false, ..owed })
    }
}

// --- what the layers behind them ask for

impl Evidence {
    pub(super) fn target(extensions: &Extensions) -> Result<&Target, Rejection> {
        Self::find(extensions, |evidence| evidence.target.as_ref(), Missing::RouteNamespace)
    }

    pub(super) fn matched(extensions: &Extensions) -> Result<&Matched, Rejection> {
        Self::find(extensions, |evidence| evidence.matched.as_ref(), Missing::LookupWebhook)
    }

    /// The webhook, if it has been looked up.
    pub(super) fn webhook(extensions: &Extensions) -> Option<&Arc<Webhook>> {
        extensions.get::<Self>()?.matched.as_ref().map(Matched::webhook)
    }

    /// The permit, if no scheme is still waiting for a call or the body.
    pub(super) fn permit(extensions: &Extensions) -> Result<&Permit, Rejection> {
        let evidence = extensions.get::<Self>().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))?;
        evidence.require_nothing_owed()?;
        evidence.permit.as_ref().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))
    }

    /// What is still to be proven; `None` if there is a permit.
    pub(super) fn unsettled(extensions: &Extensions) -> Result<Option<&Pending>, Rejection> {
        match extensions.get::<Self>() {
            Some(Self { owed: Some(owed), .. }) => Ok(Some(&owed.pending)),
            Some(Self { permit: Some(_), .. }) => Ok(None),
            _ => Err(Rejection::misassembled(Missing::RequireAuth)),
        }
    }

    pub(super) fn pending(extensions: &Extensions) -> Option<&Pending> {
        extensions.get::<Self>()?.owed.as_ref().map(|owed| &owed.pending)
    }

    /// Whether a scheme waits for a call. Refuses a request of which nothing has been proven or is waited for.
    pub(super) fn needs_call(extensions: &Extensions) -> Result<bool, Rejection> {
        let evidence = extensions.get::<Self>();
        let owed = evidence.and_then(|evidence| evidence.owed.as_ref());
        match evidence.is_some_and(|evidence| evidence.permit.is_some()) || owed.is_some_and(|owed| owed.permits) {
            true => Ok(owed.is_some_and(|owed| owed.pending.needs_call())),
            false => Err(Rejection::misassembled(Missing::RequireAuth)),
        }
    }

    pub(super) fn require_no_pending(extensions: &Extensions) -> Result<(), Rejection> {
        extensions.get::<Self>().map_or(Ok(()), Self::require_nothing_owed)
    }

    fn require_nothing_owed(&self) -> Result<(), Rejection> {
        match &self.owed {
            None => Ok(()),
            Some(owed) if owed.pending.needs_call() => Err(Rejection::misassembled(Missing::CallAuth)),
            Some(_) => Err(Rejection::misassembled(Missing::VerifyBody)),
        }
    }

    pub(super) fn is_deduplicated(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|evidence| evidence.is_deduplicated)
    }

    pub(super) fn is_claimed(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|evidence| evidence.is_claimed)
    }

    /// The webhook that may have the request, and the event that it brings: everything has been found out that must be.
    /// The webhook is taken out.
    pub(super) fn admit(extensions: &mut Extensions) -> Result<(Arc<Webhook>, Stamp), Rejection> {
        // The copy that handlers see: of another request, it would tell them of a webhook that was not asked for.
        let shown = extensions.remove::<Matched>();
        let evidence = extensions.get_mut::<Self>().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))?;
        let missing = |layer, is_missing| if is_missing { Err(Rejection::misassembled(layer)) } else { Ok(()) };
        evidence.require_nothing_owed()?;
        missing(Missing::RequireAuth, evidence.permit.is_none())?;
        missing(Missing::CheckPayload, !evidence.is_checked)?;
        let is_its_own =
            |matched: &Matched| shown.as_ref().is_none_or(|shown| Arc::ptr_eq(shown.webhook(), matched.webhook()));
        let matched = evidence.matched.take().filter(is_its_own);
        let webhook = matched.ok_or_else(|| Rejection::misassembled(Missing::LookupWebhook))?.0;
        let handshake = webhook.handshake();
        missing(Missing::Handshake, handshake.is_some_and(Handshake::is_of_head) && !evidence.is_greeted)?;
        missing(Missing::Challenge, handshake.is_some_and(Handshake::is_signed) && !evidence.is_challenged)?;
        missing(Missing::Dedup, webhook.dedup().is_some() && !evidence.is_deduplicated)?;
        Ok((webhook, evidence.event.unwrap_or_else(Stamp::now)))
    }

    fn find<'a, T>(
        extensions: &'a Extensions,
        part: impl FnOnce(&'a Self) -> Option<&'a T>,
        layer: Missing,
    ) -> Result<&'a T, Rejection> {
        extensions.get::<Self>().and_then(part).ok_or_else(|| Rejection::misassembled(layer))
    }
}

impl EventId {
    /// The id of the event that the request with these extensions brings. It is the one in the `X-Event-Id` of the answer,
    /// unless the handler sets another.
    ///
    /// # Errors
    ///
    /// A 500 [`Misassembled`](crate::RejectionKind::Misassembled) when the layer [`Dedup`](super::dedup::Dedup) is missing.
    pub fn of(extensions: &Extensions) -> Result<Self, Rejection> {
        Evidence::find(extensions, |evidence| evidence.event.as_ref(), Missing::Dedup).map(|event| event.id)
    }
}
