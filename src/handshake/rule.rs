//! The rules of the providers, and the tokens and secrets in them.

#[cfg(feature = "signature")]
use super::key::Key;
use crate::auth::{SecretDigest, Secrets, SecretsConfig, WallClock};
use crate::config::CompileError;

/// The rules of one provider.
pub(super) enum Rule {
    Dropbox,
    Okta,
    Trello,
    /// Microsoft Graph.
    Graph,
    CloudEvents {
        /// The origins that may send; any, if the list is empty.
        origins: Vec<String>,
        /// The highest rate that is allowed, in requests per minute.
        rate: Option<u32>,
    },
    Meta(Token),
    WebSub {
        /// The topics that are subscribed to.
        topics: Vec<String>,
        token: Option<Token>,
    },
    Slack,
    Twitch,
    Discord,
    /// Xero and LINE.
    NoEvents,
    #[cfg(feature = "signature")]
    X(Keys),
    #[cfg(feature = "signature")]
    Zoom(Keys),
}

/// A token that the operator has given to the provider.
pub(super) struct Token {
    secrets: Secrets<SecretDigest>,
    clock: WallClock,
}

impl Token {
    pub(super) fn build(token: SecretsConfig, clock: &WallClock) -> Result<Self, CompileError> {
        let secrets = Secrets::new(token, |text| Ok(SecretDigest::new(text)?))?;
        Ok(Self { secrets, clock: clock.clone() })
    }

    /// In constant time.
    pub(super) fn is(&self, sent: &str) -> bool {
        self.secrets.find(&self.clock, |secret| secret.matches(sent.as_bytes())).is_ok()
    }
}

/// The secrets that a provider signs with.
#[cfg(feature = "signature")]
pub(super) struct Keys {
    secrets: Secrets<Key>,
    clock: WallClock,
}

#[cfg(feature = "signature")]
impl Keys {
    pub(super) fn build(secrets: SecretsConfig, clock: &WallClock) -> Result<Self, CompileError> {
        let secrets = Secrets::new(secrets, Key::new).map_err(|error| error.inside("secrets"))?;
        Ok(Self { secrets, clock: clock.clone() })
    }

    /// The first one that fits and is valid now.
    pub(super) fn find(&self, fits: impl FnMut(&Key) -> bool) -> Option<&Key> {
        let position = self.secrets.find(&self.clock, fits).ok()?;
        self.secrets.keys().nth(position.index())
    }
}
