//! What is missing from a stack of layers, and where it belongs.

/// A part of the stack that another one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Missing {
    RouteNamespace,
    LookupWebhook,
    RequireAuth,
    CallAuth,
    VerifyBody,
    Handshake,
    Challenge,
    CheckPayload,
    Dedup,
    Queue,
}

impl Missing {
    #[cfg(test)]
    const ALL: [Self; 10] = [
        Self::RouteNamespace,
        Self::LookupWebhook,
        Self::RequireAuth,
        Self::CallAuth,
        Self::VerifyBody,
        Self::Handshake,
        Self::Challenge,
        Self::CheckPayload,
        Self::Dedup,
        Self::Queue,
    ];

    /// What to write, and where.
    pub(crate) fn cure(self) -> &'static str {
        match self {
            Self::RouteNamespace => "put a `RouteNamespaceLayer` outside of the layers that need its `Target`",
            Self::LookupWebhook => {
                "put a `LookupWebhookLayer` behind `RouteNamespaceLayer` and before `RequireAuthLayer`"
            }
            Self::RequireAuth => "put a `RequireAuthLayer` behind `LookupWebhookLayer` and before `CollectBodyLayer`",
            Self::CallAuth => {
                "put a `CallAuthLayer` behind `RequireAuthLayer` and before `CollectBodyLayer`, and announce it with \
                 `RequireAuthLayer::call_auth_follows()`"
            }
            Self::VerifyBody => {
                "put a `VerifyBodyLayer` behind `CollectBodyLayer`, and announce it with \
                 `RequireAuthLayer::verify_body_follows()`"
            }
            Self::Handshake => "put a `HandshakeLayer` behind `LookupWebhookLayer` and before `RequireAuthLayer`",
            Self::Challenge => "put a `ChallengeLayer` behind `VerifyBodyLayer` and before `CheckPayloadLayer`",
            Self::CheckPayload => "put a `CheckPayloadLayer` between `CollectBodyLayer` and `Dispatch`",
            Self::Dedup => "put a `DedupLayer` between `CheckPayloadLayer` and `Dispatch`",
            Self::Queue => "give `Dispatch` a queue with `Dispatch::queue`, and its backlog to a running `Worker`",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_names_the_missing_part_and_the_call_that_announces_it() {
        for missing in Missing::ALL {
            let part = match missing {
                Missing::Queue => "`Dispatch::queue`".to_owned(),
                layer => format!("`{layer:?}Layer`"),
            };
            assert!(missing.cure().contains(&part), "{missing:?}: {}", missing.cure());
        }
        assert!(Missing::CallAuth.cure().contains("`RequireAuthLayer::call_auth_follows()`"));
        assert!(Missing::VerifyBody.cure().contains("`RequireAuthLayer::verify_body_follows()`"));
    }
}
