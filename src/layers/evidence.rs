//! The evidence that the layers have established about a request.
//!
//! The evidence is in one slot of the request's extensions. A copy of [`Matched`] has its own slot, so that handlers
//! can extract it; because any code can replace the copy, no layer trusts it. All rules by which evidence is added and
//! removed are in this file: evidence about one webhook must never count for another. No other code can make evidence.

use std::sync::Arc;

use http::Extensions;

use super::trace::Trace;
use crate::auth::{Matches, Pending, Position};
use crate::config::Target;
use crate::event::{EventId, Stamp};
use crate::handshake::Handshake;
use crate::request::{Missing, Rejection};
use crate::store::Revision;
use crate::webhook::Webhook;

/// The webhook that a request is for, with its configuration at the time of the lookup.
///
/// Only [`LookupWebhook`](super::lookup::LookupWebhook) makes one.
#[derive(Clone, Debug)]
pub struct Matched(Arc<Webhook>);

impl Matched {
    /// The webhook that [`LookupWebhook`](super::lookup::LookupWebhook) has found for the request with these
    /// extensions.
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

/// The evidence that the sender of a request is authenticated.
///
/// Only [`RequireAuth`], [`CallAuth`] and [`VerifyBody`] make one. A later [`RouteNamespace`] or [`LookupWebhook`]
/// removes it: a permit for one webhook must not count for another.
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
    /// The permit of the request with these extensions.
    ///
    /// # Errors
    ///
    /// A 500 [`Misassembled`](crate::RejectionKind::Misassembled) when the layer that gives the permit is missing.
    pub fn of(extensions: &Extensions) -> Result<&Self, Rejection> {
        Evidence::permit_of(extensions)
    }

    /// The secrets that let the sender in: the name of each guard that has several, and the position of the one that fits.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, Position)> {
        self.matches.iter()
    }
}

impl Target {
    /// The target that [`RouteNamespace`](super::route::RouteNamespace) has found for the request with these
    /// extensions.
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
    /// The revision of the configuration that the webhook was found in.
    revision: Revision,
    permit: Option<Permit>,
    owed: Option<Owed>,
    is_checked: bool,
    is_deduplicated: bool,
    /// Whether a layer has answered the challenges that come before the guards.
    is_greeted: bool,
    /// Whether a layer has answered signed challenges.
    is_challenged: bool,
    /// Whether an outer layer holds a claim, by any rule. This stays true wherever the request is routed.
    is_claimed: bool,
    /// The event in the request, which stays the same wherever the request is routed.
    event: Option<Stamp>,
    /// Follows the request for a history. A request that is routed elsewhere is not followed further: the trace is about
    /// one webhook.
    trace: Option<Arc<Trace>>,
}

/// What a lookup leaves in the extensions for handlers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shows {
    /// A copy of [`Matched`].
    Copy,
    Nothing,
}

/// A request that may be delivered.
pub(super) struct Admitted {
    pub(super) webhook: Arc<Webhook>,
    pub(super) stamp: Stamp,
    pub(super) trace: Option<Arc<Trace>>,
}

/// An event that may be processed without its sender.
#[derive(Default)]
pub(super) struct Remainder {
    /// Whether an outer layer holds a claim for the event.
    pub(super) is_claimed: bool,
    pub(super) webhook: Option<Arc<Webhook>>,
    pub(super) trace: Option<Arc<Trace>>,
}

/// A proof that is still missing. Unlike a permit, it is not removed when the request is routed elsewhere.
#[derive(Clone)]
struct Owed {
    pending: Pending,
    /// Whether the current target's guards demand the proof: only then it leads to a permit.
    permits: bool,
}

// --- evidence that the layers add

impl Evidence {
    pub(super) fn set_target(extensions: &mut Extensions, target: Target) {
        let evidence = Self::slot(extensions);
        evidence.forget();
        evidence.target = Some(target);
        evidence.matched = None;
        // Whoever has put it there: any code can.
        extensions.remove::<Matched>();
    }

    /// A permit from before the lookup does not satisfy the webhook's guards.
    pub(super) fn set_matched(extensions: &mut Extensions, webhook: Arc<Webhook>, revision: Revision, shows: Shows) {
        let matched = Matched(webhook);
        let evidence = Self::slot(extensions);
        evidence.forget();
        evidence.matched = Some(matched.clone());
        evidence.revision = revision;
        match shows {
            Shows::Copy => drop(extensions.insert(matched)),
            // `set_target` has removed the copy of an outer lookup.
            Shows::Nothing => {}
        }
    }

    /// From now on, the layers note in `trace` what they know of the request.
    pub(super) fn set_trace(extensions: &mut Extensions, trace: Arc<Trace>) {
        let evidence = Self::slot(extensions);
        if let Some(event) = evidence.event {
            trace.named(event.id);
        }
        evidence.trace = Some(trace);
    }

    /// Counts `matches`, the secrets that let the sender in.
    pub(super) fn set_permit(extensions: &mut Extensions, matches: Matches) {
        let evidence = Self::slot(extensions);
        evidence.permit(matches);
        evidence.ended("guards");
    }

    /// Adds schemes that wait for the body or a call to those of other layers.
    pub(super) fn add_pending(extensions: &mut Extensions, more: Pending) {
        let evidence = Self::slot(extensions);
        let pending = match evidence.owed.take() {
            Some(before) => before.pending.and(more),
            None => more,
        };
        evidence.owed = Some(Owed { pending, permits: true });
        if let Some(trace) = &evidence.trace {
            trace.owes();
            trace.ended("guards");
        }
    }

    /// The calls have been made; the schemes in `pending` wait for the body.
    pub(super) fn set_called(extensions: &mut Extensions, pending: Pending) {
        let evidence = Self::slot(extensions);
        match &mut evidence.owed {
            Some(owed) if !pending.is_empty() => owed.pending = pending,
            _ => evidence.settle(pending.into_matches()),
        }
        evidence.ended("calls");
    }

    /// All missing proofs have been given by the body.
    pub(super) fn set_verified(extensions: &mut Extensions, matches: Matches) {
        let evidence = Self::slot(extensions);
        evidence.settle(matches);
        evidence.ended("signature");
    }

    /// All missing proofs have been given.
    fn settle(&mut self, matches: Matches) {
        if self.owed.take().is_some_and(|owed| owed.permits) {
            self.permit(matches);
        }
    }

    fn permit(&mut self, matches: Matches) {
        matches.count();
        if let Some(trace) = &self.trace {
            trace.permitted(&matches);
        }
        self.permit.get_or_insert_default().matches.extend(matches);
    }

    /// A step of the request's way has ended.
    fn ended(&self, step: &'static str) {
        if let Some(trace) = &self.trace {
            trace.ended(step);
        }
    }

    pub(super) fn set_checked(extensions: &mut Extensions) {
        let evidence = Self::slot(extensions);
        evidence.is_checked = true;
        evidence.ended("payload");
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

    /// Gives the event in the request an id, unless it has one.
    pub(super) fn name_event(extensions: &mut Extensions) -> EventId {
        let evidence = Self::slot(extensions);
        let id = evidence.event.get_or_insert_with(Stamp::now).id;
        if let Some(trace) = &evidence.trace {
            trace.named(id);
        }
        id
    }

    fn slot(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_default()
    }

    /// Forgets what counts only for the webhook that the request had. A missing proof must still be given, but leads to
    /// no permit for the new webhook.
    fn forget(&mut self) {
        // Each field by its name, so that a new one is not kept by mistake.
        let Self {
            target: _,
            matched: _,
            revision,
            permit,
            owed,
            is_checked,
            is_deduplicated,
            is_greeted,
            is_challenged,
            is_claimed: _,
            event: _,
            trace,
        } = self;
        (*revision, *permit, *trace) = (0, None, None);
        (*is_checked, *is_deduplicated, *is_greeted, *is_challenged) = (false, false, false, false);
        if let Some(owed) = owed {
            owed.permits = false;
        }
    }
}

// --- evidence that later layers need

impl Evidence {
    pub(super) fn target(extensions: &Extensions) -> Result<&Target, Rejection> {
        Self::find(extensions, |evidence| evidence.target.as_ref(), Missing::RouteNamespace)
    }

    pub(super) fn matched(extensions: &Extensions) -> Result<&Matched, Rejection> {
        Self::find(extensions, |evidence| evidence.matched.as_ref(), Missing::LookupWebhook)
    }

    /// The trace, if the request is followed.
    pub(super) fn trace(extensions: &Extensions) -> Option<&Arc<Trace>> {
        extensions.get::<Self>()?.trace.as_ref()
    }

    /// The revision of the configuration that the webhook was found in.
    pub(super) fn revision(extensions: &Extensions) -> Revision {
        extensions.get::<Self>().map_or(0, |evidence| evidence.revision)
    }

    /// The webhook, if it has been looked up.
    pub(super) fn webhook(extensions: &Extensions) -> Option<&Arc<Webhook>> {
        extensions.get::<Self>()?.matched.as_ref().map(Matched::webhook)
    }

    /// The permit, if no scheme still waits for a call or the body.
    pub(super) fn permit_of(extensions: &Extensions) -> Result<&Permit, Rejection> {
        let evidence = extensions.get::<Self>().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))?;
        evidence.require_nothing_owed()?;
        evidence.permit.as_ref().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))
    }

    /// The schemes that still wait; `None` if there is a permit.
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

    /// Whether a scheme waits for a call. Refuses a request for which nothing has been proved and nothing is awaited.
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

    /// What a layer needs that processes an event without its sender.
    pub(super) fn remainder(extensions: &Extensions) -> Remainder {
        let Some(evidence) = extensions.get::<Self>() else { return Remainder::default() };
        Remainder {
            is_claimed: evidence.is_claimed,
            webhook: evidence.matched.as_ref().map(|matched| Arc::clone(matched.webhook())),
            trace: evidence.trace.clone(),
        }
    }

    pub(super) fn is_deduplicated(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|evidence| evidence.is_deduplicated)
    }

    /// A request that has all necessary evidence. Its webhook is removed from the extensions.
    pub(super) fn admit(extensions: &mut Extensions) -> Result<Admitted, Rejection> {
        // The handlers' copy of `Matched`: passed on, it would name a webhook that was not asked for.
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
        let stamp = evidence.event.unwrap_or_else(Stamp::now);
        let trace = evidence.trace.take();
        if let Some(trace) = &trace {
            trace.admitted(stamp.id, webhook.promise());
        }
        Ok(Admitted { webhook, stamp, trace })
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
    /// The id of the event in the request with these extensions. It is also the `X-Event-Id` of the answer, unless the
    /// handler sets another.
    ///
    /// # Errors
    ///
    /// A 500 [`Misassembled`](crate::RejectionKind::Misassembled) when the layer [`Dedup`](super::dedup::Dedup) is missing.
    pub fn of(extensions: &Extensions) -> Result<Self, Rejection> {
        Evidence::find(extensions, |evidence| evidence.event.as_ref(), Missing::Dedup).map(|event| event.id)
    }
}
