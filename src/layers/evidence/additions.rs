//! How evidence is added and removed.

use std::sync::Arc;

use http::Extensions;

use super::{Established, Evidence, Matched, Owed, Permit, Shows};
use crate::auth::{Matches, Pending};
use crate::config::Target;
use crate::event::{EventId, Stamp};
use crate::layers::trace::Trace;
use crate::request::Rejection;
use crate::store::Revision;
use crate::webhook::Webhook;

impl Evidence {
    pub(in crate::layers) fn set_target(extensions: &mut Extensions, target: Target) {
        // Whoever has put it there: any code can.
        extensions.remove::<Matched>();
        let evidence = Self::of_mut(extensions);
        evidence.forget();
        evidence.target = Some(target);
        evidence.matched = None;
    }

    /// Sets the webhook that `find` returns for the target, and its revision. A permit from before the lookup does not
    /// satisfy the webhook's guards.
    pub(in crate::layers) fn look_up(
        extensions: &mut Extensions,
        shows: Shows,
        find: impl FnOnce(&Target) -> Result<(Arc<Webhook>, Revision), Rejection>,
    ) -> Result<(), Rejection> {
        let evidence = Self::of_mut(extensions);
        let (webhook, revision) = find(evidence.target()?)?;
        let matched = Matched(webhook);
        evidence.forget();
        evidence.matched = Some(matched.clone());
        evidence.revision = revision;
        match shows {
            Shows::Copy => drop(extensions.insert(matched)),
            // `set_target` has removed the copy of an outer lookup.
            Shows::Nothing => {}
        }
        Ok(())
    }

    /// From now on, the layers note in `trace` what they know of the request.
    pub(in crate::layers) fn set_trace(&mut self, trace: Arc<Trace>) {
        if let Some(event) = self.event {
            trace.named(event.id);
        }
        self.trace = Some(trace);
    }

    /// Adds what a check has established.
    pub(in crate::layers) fn add(&mut self, established: Established) {
        match established {
            Established::Greeted => self.is_greeted = true,
            Established::Guarded(pending) => {
                match pending.is_empty() {
                    true => self.set_permit(pending.into_matches()),
                    false => self.owe(pending),
                }
                self.ended("guards");
            }
            Established::Verified(matches) => {
                self.settle(matches);
                self.ended("signature");
            }
            Established::Challenged => self.is_challenged = true,
            Established::Checked => {
                self.is_checked = true;
                self.ended("payload");
            }
        }
    }

    /// Adds schemes that wait for the body or a call to those of other layers.
    fn owe(&mut self, more: Pending) {
        let pending = match self.owed.take() {
            Some(before) => before.pending.and(more),
            None => more,
        };
        self.owed = Some(Box::new(Owed { pending, permits: true }));
        if let Some(trace) = &self.trace {
            trace.owes();
        }
    }

    /// The calls have been made; the schemes in `pending` wait for the body.
    pub(in crate::layers) fn set_called(&mut self, pending: Pending) {
        match &mut self.owed {
            Some(owed) if !pending.is_empty() => owed.pending = pending,
            _ => self.settle(pending.into_matches()),
        }
        self.ended("calls");
    }

    /// All missing proofs have been given.
    fn settle(&mut self, matches: Matches) {
        if self.owed.take().is_some_and(|owed| owed.permits) {
            self.set_permit(matches);
        }
    }

    /// Counts `matches`, the secrets that let the sender in.
    fn set_permit(&mut self, matches: Matches) {
        matches.count();
        if let Some(trace) = &self.trace {
            trace.permitted(&matches);
        }
        match &mut self.permit {
            Some(permit) => permit.matches.extend(matches),
            None => self.permit = Some(Permit { matches }),
        }
    }

    /// A step of the request's way has ended.
    fn ended(&self, step: &'static str) {
        if let Some(trace) = &self.trace {
            trace.ended(step);
        }
    }

    pub(in crate::layers) fn set_deduplicated(&mut self) {
        self.is_deduplicated = true;
    }

    pub(in crate::layers) fn set_claimed(&mut self) {
        self.is_claimed = true;
    }

    /// Gives the event in the request an id, unless it has one.
    pub(in crate::layers) fn name_event(&mut self) -> EventId {
        let id = self.event.get_or_insert_with(Stamp::now).id;
        if let Some(trace) = &self.trace {
            trace.named(id);
        }
        id
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
