//! The evidence that later layers need.

use std::sync::Arc;

use http::Extensions;

use super::{Admitted, Evidence, Matched, Permit, Remainder};
use crate::auth::Pending;
use crate::config::Target;
use crate::event::Stamp;
use crate::handshake::Handshake;
use crate::layers::trace::Trace;
use crate::request::{Missing, Rejection};
use crate::store::Revision;
use crate::webhook::Webhook;

impl Evidence {
    pub(in crate::layers) fn target(&self) -> Result<&Target, Rejection> {
        self.target.as_ref().ok_or_else(|| Rejection::misassembled(Missing::RouteNamespace))
    }

    pub(in crate::layers) fn webhook(&self) -> Result<&Arc<Webhook>, Rejection> {
        self.known_webhook().ok_or_else(|| Rejection::misassembled(Missing::LookupWebhook))
    }

    /// The webhook, if it has been looked up.
    pub(in crate::layers) fn known_webhook(&self) -> Option<&Arc<Webhook>> {
        self.matched.as_ref().map(Matched::webhook)
    }

    /// The trace, if the request is followed.
    pub(in crate::layers) fn trace(&self) -> Option<&Arc<Trace>> {
        self.trace.as_ref()
    }

    /// The revision of the configuration that the webhook was found in.
    pub(in crate::layers) fn revision(&self) -> Revision {
        self.revision
    }

    /// The permit, if no scheme still waits for a call or the body.
    pub(in crate::layers) fn permit(&self) -> Result<&Permit, Rejection> {
        self.require_nothing_owed()?;
        self.permit.as_ref().ok_or_else(|| Rejection::misassembled(Missing::RequireAuth))
    }

    /// Refuses a request that has no permit even when all missing proofs are given.
    pub(in crate::layers) fn require_permit_once_settled(&self) -> Result<(), Rejection> {
        match self.permit.is_some() || self.owed.as_ref().is_some_and(|owed| owed.permits) {
            true => Ok(()),
            false => Err(Rejection::misassembled(Missing::RequireAuth)),
        }
    }

    /// The schemes that still wait; `None` if there is a permit.
    pub(in crate::layers) fn unsettled(&self) -> Result<Option<&Pending>, Rejection> {
        match (self.pending(), &self.permit) {
            (None, None) => Err(Rejection::misassembled(Missing::RequireAuth)),
            (pending, _) => Ok(pending),
        }
    }

    pub(in crate::layers) fn pending(&self) -> Option<&Pending> {
        self.owed.as_ref().map(|owed| &owed.pending)
    }

    /// Whether a scheme waits for a call. Refuses a request for which nothing has been proved and nothing is awaited.
    pub(in crate::layers) fn needs_call(&self) -> Result<bool, Rejection> {
        self.require_permit_once_settled()?;
        Ok(self.pending().is_some_and(Pending::needs_call))
    }

    pub(in crate::layers) fn require_nothing_owed(&self) -> Result<(), Rejection> {
        match self.pending() {
            None => Ok(()),
            Some(pending) if pending.needs_call() => Err(Rejection::misassembled(Missing::CallAuth)),
            Some(_) => Err(Rejection::misassembled(Missing::VerifyBody)),
        }
    }

    /// The parts by which a layer processes an event without its sender.
    pub(in crate::layers) fn remainder(&self) -> Remainder {
        Remainder { is_claimed: self.is_claimed, webhook: self.known_webhook().cloned(), trace: self.trace.clone() }
    }

    pub(in crate::layers) fn is_deduplicated(&self) -> bool {
        self.is_deduplicated
    }

    /// A request that has all necessary evidence. Its webhook is removed from the extensions.
    pub(in crate::layers) fn admit(extensions: &mut Extensions) -> Result<Admitted, Rejection> {
        // The handlers' copy of `Matched`: passed on, it would name a webhook that was not asked for.
        let shown = extensions.remove::<Matched>();
        let evidence = Self::of_mut(extensions);
        let missing = |layer, is_missing| if is_missing { Err(Rejection::misassembled(layer)) } else { Ok(()) };
        evidence.permit()?;
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
}
