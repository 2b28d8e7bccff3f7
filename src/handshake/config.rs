//! The key `handshake` of a webhook.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::rule::{Rule, Token};
use crate::auth::{SecretsConfig, WallClock};
use crate::config::{CompileError, did_you_mean, missing_key, shown};

/// The names of all handshakes.
const NAMES: [&str; 15] = [
    "cloudevents",
    "discord",
    "dropbox",
    "line",
    "meta",
    "msgraph",
    "none",
    "okta",
    "slack",
    "trello",
    "twitch",
    "websub",
    "x",
    "xero",
    "zoom",
];

/// A handshake as it is written: its name, or an object.
#[derive(Debug)]
pub(crate) struct HandshakeConfig(Written);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a string or an object")]
struct Written {
    r#type: String,
    verify_token: Option<SecretsConfig>,
    secrets: Option<SecretsConfig>,
    topics: Option<Vec<String>>,
    origins: Option<Vec<String>>,
    rate: Option<u32>,
}

impl HandshakeConfig {
    /// The handshake of this name, without options.
    pub(crate) fn named(name: &str) -> Self {
        Self(Written { r#type: name.to_owned(), ..Written::default() })
    }

    pub(super) fn with_token(mut self, token: SecretsConfig) -> Self {
        self.0.verify_token = Some(token);
        self
    }

    pub(super) fn with_topics(mut self, topics: Vec<String>) -> Self {
        self.0.topics = Some(topics);
        self
    }

    #[cfg(feature = "signature")]
    pub(super) fn with_secrets(mut self, secrets: SecretsConfig) -> Self {
        self.0.secrets = Some(secrets);
        self
    }

    /// The rules; `None` for `"none"`. `secrets` are those of the webhook's `signature`, which a handshake uses that has
    /// none of its own.
    pub(super) fn build(self, clock: &WallClock, secrets: Option<SecretsConfig>) -> Result<Option<Rule>, CompileError> {
        let mut written = self.0;
        let name = std::mem::take(&mut written.r#type);
        let rule = match name.as_str() {
            "none" => None,
            "dropbox" => Some(Rule::Dropbox),
            "okta" => Some(Rule::Okta),
            "trello" => Some(Rule::Trello),
            "msgraph" => Some(Rule::Graph),
            "slack" => Some(Rule::Slack),
            "twitch" => Some(Rule::Twitch),
            "discord" => Some(Rule::Discord),
            "xero" | "line" => Some(Rule::NoEvents),
            "meta" => Some(Rule::Meta(required(written.token(clock)?, "verify_token")?)),
            "websub" => Some(Rule::WebSub { topics: written.topics()?, token: written.token(clock)? }),
            "cloudevents" => Some(Rule::CloudEvents { origins: written.origins()?, rate: written.rate()? }),
            "x" | "zoom" => Some(keyed(&name, written.secrets.take().or(secrets), clock)?),
            _ => {
                let text = format!("unknown handshake `{}`{}", shown(&name), hint(&name));
                return Err(CompileError::new(text).inside("type"));
            }
        };
        written.require_nothing_left(&name)?;
        Ok(rule)
    }
}

fn hint(name: &str) -> String {
    match did_you_mean(name, NAMES.iter().copied()) {
        nearest if nearest.is_empty() => format!("; expected one of {}", NAMES.join(", ")),
        nearest => nearest,
    }
}

#[cfg(feature = "signature")]
fn keyed(name: &str, secrets: Option<SecretsConfig>, clock: &WallClock) -> Result<Rule, CompileError> {
    let keys = super::rule::Keys::build(required(secrets, "secrets")?, clock)?;
    Ok(if name == "x" { Rule::X(keys) } else { Rule::Zoom(keys) })
}

#[cfg(not(feature = "signature"))]
fn keyed(name: &str, _: Option<SecretsConfig>, _: &WallClock) -> Result<Rule, CompileError> {
    let text = format!("the handshake `{name}` needs the feature `signature`, and this program is built without it");
    Err(CompileError::new(text).inside("type"))
}

fn required<T>(option: Option<T>, key: &str) -> Result<T, CompileError> {
    option.ok_or_else(|| missing_key(key))
}

impl Written {
    fn token(&mut self, clock: &WallClock) -> Result<Option<Token>, CompileError> {
        let token = self.verify_token.take();
        token.map(|token| Token::build(token, clock).map_err(|error| error.inside("verify_token"))).transpose()
    }

    fn topics(&mut self) -> Result<Vec<String>, CompileError> {
        let topics = required(self.topics.take(), "topics")?;
        list(topics, "topics", "the URLs of topics")
    }

    /// None are all.
    fn origins(&mut self) -> Result<Vec<String>, CompileError> {
        self.origins.take().map_or(Ok(Vec::new()), |origins| list(origins, "origins", "the names of senders"))
    }

    fn rate(&mut self) -> Result<Option<u32>, CompileError> {
        match self.rate.take() {
            Some(0) => Err(CompileError::new("expected a number of requests per minute, found 0").inside("rate")),
            rate => Ok(rate),
        }
    }

    /// Refuses options that the handshake does not have.
    fn require_nothing_left(&self, name: &str) -> Result<(), CompileError> {
        let left = [
            ("verify_token", self.verify_token.is_some()),
            ("secrets", self.secrets.is_some()),
            ("topics", self.topics.is_some()),
            ("origins", self.origins.is_some()),
            ("rate", self.rate.is_some()),
        ];
        match left.iter().find(|(_, is_left)| *is_left) {
            Some((key, _)) => {
                Err(CompileError::new(format!("the handshake `{name}` has no such key; remove it")).inside(key))
            }
            None => Ok(()),
        }
    }
}

/// Refuses an empty list, and one with a blank text: it would allow nothing, or anything.
fn list(items: Vec<String>, key: &str, what: &str) -> Result<Vec<String>, CompileError> {
    const MOST: usize = 100;
    match items.len() {
        0 => Err(CompileError::new(format!("expected {what}, found an empty list")).inside(key)),
        1..=MOST if items.iter().any(|item| item.trim().is_empty()) => {
            Err(CompileError::new(format!("expected {what}, found a blank text")).inside(key))
        }
        1..=MOST => Ok(items),
        found => Err(CompileError::new(format!("expected at most {MOST}, found {found}")).inside(key)),
    }
}

impl<'de> Deserialize<'de> for HandshakeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrObject;

        impl<'de> Visitor<'de> for NameOrObject {
            type Value = HandshakeConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a handshake, or an object with `type`")
            }

            fn visit_str<E>(self, name: &str) -> Result<HandshakeConfig, E> {
                Ok(HandshakeConfig::named(name))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HandshakeConfig, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(HandshakeConfig)
            }
        }

        deserializer.deserialize_any(NameOrObject)
    }
}
