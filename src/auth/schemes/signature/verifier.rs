//! How the requests of a sender are verified: by a dialect, or by a file of its own.

use std::sync::Arc;

use http::HeaderName;

use super::key::Key;
use super::plan::Plan;
use super::{adyen, contentful, msgraph, twilio};
use crate::auth::{AuthError, Proof, Secrets, WallClock};
use crate::config::PublicUrl;
use crate::request::Head;

#[derive(Clone, Debug)]
pub(super) enum Verifier {
    Dialect(Arc<Plan>),
    Adyen,
    Contentful(PublicUrl),
    MsGraph,
    Twilio(PublicUrl),
}

impl Verifier {
    /// Whether the signature is read from this header field.
    pub(super) fn reads_credential(&self, name: &HeaderName) -> bool {
        match self {
            Self::Dialect(plan) => plan.reads_credential(name),
            Self::Contentful(_) => *name == contentful::SIGNATURE,
            Self::Twilio(_) => *name == twilio::SIGNATURE,
            Self::Adyen | Self::MsGraph => false,
        }
    }

    pub(super) fn check_head(
        &self,
        head: Head<'_>,
        secrets: &Secrets<Key>,
        clock: &WallClock,
    ) -> Result<Proof, AuthError> {
        match self {
            Self::Dialect(plan) => return plan.check_head(head, secrets, clock),
            Self::Contentful(_) => contentful::check_head(head, clock)?,
            Self::Twilio(_) => twilio::check_head(head)?,
            Self::Adyen | Self::MsGraph => {}
        }
        Ok(Proof::NeedsBody)
    }

    pub(super) fn check_body(
        &self,
        head: Head<'_>,
        body: &[u8],
        secrets: &Secrets<Key>,
        clock: &WallClock,
    ) -> Result<Proof, AuthError> {
        let position = match self {
            Self::Dialect(plan) => return plan.check_body(head, body, secrets, clock),
            Self::Adyen => adyen::check_body(body, secrets, clock),
            Self::Contentful(url) => contentful::check_body(head, &url.path(head.uri), body, secrets, clock),
            Self::MsGraph => msgraph::check_body(body, secrets, clock),
            Self::Twilio(url) => twilio::check_body(head, url, body, secrets, clock),
        };
        position.map(Proof::from)
    }
}
