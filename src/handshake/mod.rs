//! Challenges by which a provider checks that an address is meant for its webhooks.
//!
//! A [`Handshake`] holds the rules of one provider. [`HandshakeLayer`](crate::layers::HandshakeLayer) answers challenges by
//! GET, HEAD or OPTIONS, before any guard; [`ChallengeLayer`](crate::layers::ChallengeLayer) answers those by a POST that
//! passed the guards. [`guide::handshakes`](crate::guide::handshakes) lists the providers.

mod answer;
mod ask;
mod config;
mod head;
#[cfg(feature = "signature")]
mod key;
#[cfg(feature = "signature")]
mod keyed;
mod rule;
mod signed;

use std::fmt;
use std::sync::Arc;

use http::Method;

pub(crate) use self::answer::{Answered, IsHandshake};
pub(crate) use self::config::HandshakeConfig;
use self::rule::Rule;
use crate::auth::{SecretsConfig, WallClock};
use crate::config::CompileError;
use crate::request::Head;

/// The challenges of one provider and their answers: the key `handshake` of a webhook.
#[derive(Clone)]
pub struct Handshake(Arc<Rule>);

impl Handshake {
    /// The handshake of this name that needs nothing else: `cloudevents`, `discord`, `dropbox`, `line`, `msgraph`, `okta`,
    /// `slack`, `trello`, `twitch` or `xero`.
    ///
    /// # Errors
    ///
    /// When there is no such handshake, or it needs more.
    pub fn named(name: &str) -> Result<Self, CompileError> {
        Self::of(HandshakeConfig::named(name))
    }

    /// The handshake of Meta: a GET with `hub.challenge` and a token that you have chosen.
    ///
    /// # Errors
    ///
    /// When the token is blank.
    pub fn meta(verify_token: impl Into<SecretsConfig>) -> Result<Self, CompileError> {
        Self::of(HandshakeConfig::named("meta").with_token(verify_token.into()))
    }

    /// The handshake of a WebSub hub: a GET with `hub.challenge`, for one of these topics.
    ///
    /// # Errors
    ///
    /// When there is no topic, or a blank one.
    pub fn web_sub<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Result<Self, CompileError> {
        Self::of(HandshakeConfig::named("websub").with_topics(topics.into_iter().map(Into::into).collect()))
    }

    /// The handshake of X: a GET with `crc_token`, answered with a signature.
    ///
    /// # Errors
    ///
    /// When there is no secret, or a blank one.
    #[cfg(feature = "signature")]
    pub fn x(secrets: impl Into<SecretsConfig>) -> Result<Self, CompileError> {
        Self::of(HandshakeConfig::named("x").with_secrets(secrets.into()))
    }

    /// The handshake of Zoom: a signed POST, answered with a signature.
    ///
    /// # Errors
    ///
    /// When there is no secret, or a blank one.
    #[cfg(feature = "signature")]
    pub fn zoom(secrets: impl Into<SecretsConfig>) -> Result<Self, CompileError> {
        Self::of(HandshakeConfig::named("zoom").with_secrets(secrets.into()))
    }

    fn of(config: HandshakeConfig) -> Result<Self, CompileError> {
        let none = || CompileError::new("expected the name of a handshake, found `none`");
        Self::configured(config, &WallClock::system(), None)?.ok_or_else(none)
    }

    /// The handshake of a configuration; `None` for `"none"`. `secrets` are those of the webhook's signature, for a handshake
    /// without secrets of its own.
    pub(crate) fn configured(
        config: HandshakeConfig,
        clock: &WallClock,
        secrets: Option<SecretsConfig>,
    ) -> Result<Option<Self>, CompileError> {
        Ok(config.build(clock, secrets)?.map(|rule| Self(Arc::new(rule))))
    }

    /// The method of the challenges that come before the guards, if it is not POST.
    pub(crate) fn method(&self) -> Option<Method> {
        head::method(&self.0)
    }

    /// Whether challenges come before the guards, by whatever method.
    pub(crate) fn is_of_head(&self) -> bool {
        self.method().is_some() || matches!(*self.0, Rule::Graph)
    }

    /// Whether challenges come by POST, and the guards see them first.
    pub(crate) fn is_signed(&self) -> bool {
        signed::is_signed(&self.0)
    }

    /// Answers a request before the guards have seen it. `None` if it is no challenge: a POST, or another method than that
    /// of the challenges.
    pub(crate) fn answer_head(&self, head: Head<'_>) -> Option<Answered> {
        match *head.method {
            Method::POST => head::answer_post(&self.0, head),
            _ => (self.method().as_ref() == Some(head.method)).then(|| head::answer(&self.0, head)),
        }
    }

    /// Answers a request that the guards have let in. `None` if it is an event.
    pub(crate) fn answer_body(&self, head: Head<'_>, body: &[u8]) -> Option<Answered> {
        signed::answer(&self.0, head, body)
    }
}

// Shows no secret.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self.0 {
            Rule::Dropbox => "dropbox",
            Rule::Okta => "okta",
            Rule::Trello => "trello",
            Rule::Graph => "msgraph",
            Rule::CloudEvents { .. } => "cloudevents",
            Rule::Meta(_) => "meta",
            Rule::WebSub { .. } => "websub",
            Rule::Slack => "slack",
            Rule::Twitch => "twitch",
            Rule::Discord => "discord",
            Rule::NoEvents => "xero",
            #[cfg(feature = "signature")]
            Rule::X(_) => "x",
            #[cfg(feature = "signature")]
            Rule::Zoom(_) => "zoom",
        };
        write!(f, "Handshake({name})")
    }
}

/// The handshake that belongs to a preset of the key `signature`, and needs no other option than its secrets.
pub(crate) fn handshake_of(preset: &str) -> Option<&'static str> {
    const OF_PRESETS: [&str; 10] =
        ["discord", "dropbox", "line", "msgraph", "okta", "slack", "twitch", "x", "xero", "zoom"];
    OF_PRESETS.iter().copied().find(|name| *name == preset)
}

/// No challenge makes a rule panic, and every answer is short and printable.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(challenge: &[u8]) {
    use http::Request;

    let (query, body) = challenge.split_at(challenge.iter().position(|byte| *byte == b'\n').unwrap_or(challenge.len()));
    let names = ["cloudevents", "discord", "dropbox", "msgraph", "okta", "slack", "trello", "twitch", "xero"];
    let rules =
        names.into_iter().map(Handshake::named).chain([Handshake::meta("token"), Handshake::web_sub(["topic"])]);
    for handshake in rules.filter_map(Result::ok) {
        let uri = [b"/?", query].concat();
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let mut request = Request::builder().method(method).uri(uri.as_slice());
            for field in ["x-okta-verification-challenge", "webhook-request-origin", "webhook-request-rate"] {
                request = request.header(field, body.trim_ascii());
            }
            let request = request.header("twitch-eventsub-message-type", "webhook_callback_verification");
            let Ok(request) = request.body(()) else { continue };
            let head = Head::of(&request);
            for answered in [handshake.answer_head(head), handshake.answer_body(head, body)].into_iter().flatten() {
                let Ok(answer) = answered else { continue };
                let body = answer.into_response::<bytes::Bytes>().into_body();
                // JSON escapes a text of at most 1 KiB.
                assert!(body.len() < 4096 && body.iter().all(|byte| (b' '..=b'~').contains(byte)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_preset_that_needs_nothing_more_brings_its_handshake() {
        for name in ["slack", "twitch", "discord", "dropbox", "okta", "msgraph", "xero", "line"] {
            assert!(handshake_of(name).is_some_and(|name| Handshake::named(name).is_ok()), "{name}");
        }
        for name in ["meta", "github", "cloudevents", ""] {
            assert_eq!(handshake_of(name), None, "{name}");
        }
        assert!(Handshake::named("none").is_err() && Handshake::named("meta").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let meta = Handshake::meta("hunter2-hunter2").unwrap();
        assert_eq!(format!("{meta:?}"), "Handshake(meta)");
    }

    proptest! {
        #[test]
        fn no_challenge_makes_a_rule_panic(
            name in "challenge|validationToken|hub[.]challenge",
            query in r"[a-z=&%0-9A-F+<>]{0,24}",
            body in r#"(\{"type":("url_verification"|[01]),"challenge":"[a-z<"\\]{0,8}"\})|([\{\}"a-z:,\[\]]{0,24})"#,
        ) {
            fuzz(format!("{name}={query}&hub.mode=subscribe&hub.verify_token=token&hub.topic=topic\n{body}").as_bytes());
        }
    }
}
