//! The evidence that the layers have established about a request.
//!
//! The evidence is in one slot of the request's extensions. A copy of [`Matched`] has its own slot, so that handlers
//! can extract it; because any code can replace the copy, no layer trusts it. All rules by which evidence is added and
//! removed are in this folder: evidence about one webhook must never count for another. No other code can make evidence.

mod additions;
mod needs;

use std::sync::Arc;

use http::Extensions;

use super::trace::Trace;
use crate::auth::{Matches, Pending, Position};
use crate::config::Target;
use crate::event::{EventId, Stamp};
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
        let matched = Evidence::of(extensions).matched.as_ref();
        matched.ok_or_else(|| Rejection::misassembled(Missing::LookupWebhook))
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
#[derive(Clone, Debug)]
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
        Evidence::of(extensions).permit()
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
        Evidence::of(extensions).target()
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
        let event = Evidence::of(extensions).event.as_ref();
        event.map(|event| event.id).ok_or_else(|| Rejection::misassembled(Missing::Dedup))
    }
}

#[derive(Clone, Default)]
pub(crate) struct Evidence {
    target: Option<Target>,
    matched: Option<Matched>,
    /// The revision of the configuration that the webhook was found in.
    revision: Revision,
    permit: Option<Permit>,
    /// Boxed: few requests owe a proof, and each creates the evidence.
    owed: Option<Box<Owed>>,
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

/// A fact that a check has established about a request.
pub(crate) enum Established {
    /// It is none of the challenges that come before the guards.
    Greeted,
    /// The guards let it in, once the pending schemes are settled.
    Guarded(Pending),
    /// The body settles all pending schemes.
    Verified(Matches),
    /// It is no signed challenge.
    Challenged,
    /// Its body has the right format.
    Checked,
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

/// The evidence of a request that no layer has seen. It equals the default, which is not used here because it is no constant, and
/// a constant is not used for the default because its copy costs each request 130 instructions.
static NONE: Evidence = Evidence {
    target: None,
    matched: None,
    revision: 0,
    permit: None,
    owed: None,
    is_checked: false,
    is_deduplicated: false,
    is_greeted: false,
    is_challenged: false,
    is_claimed: false,
    event: None,
    trace: None,
};

impl Evidence {
    /// The evidence of a request. The search for it costs more than its use, so a layer should search once.
    pub(super) fn of(extensions: &Extensions) -> &Self {
        extensions.get().unwrap_or(&NONE)
    }

    /// The evidence of a request, which may be empty so far.
    pub(super) fn of_mut(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_default()
    }
}
