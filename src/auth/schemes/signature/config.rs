//! The configuration of the key `signature`: the name of a provider, or a custom dialect.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::content::known_url;
use super::key::{Algorithm, Encoding, Key, KeyForm, Written};
use super::plan::{Dialect, Plan};
use super::presented::{Form, Source};
use super::presets::{self, How, ROWS, Row, UNSUPPORTED};
use super::timestamp::{Format, MOST as MOST_TOLERANCE, Rule, TOLERANCE, TimeFrom};
use super::verifier::Verifier;
use crate::auth::{Secrets, SecretsConfig};
use crate::config::{BuildContext, CompileError, PublicUrl, did_you_mean, missing_key};

/// The value of the key `signature`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct SignatureConfig {
    pub(super) preset: Option<String>,
    pub(super) secrets: Option<SecretsConfig>,
    pub(super) params: BTreeMap<String, String>,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) encoding: Option<Encoding>,
    pub(super) header: Option<Names>,
    pub(super) prefix: Option<String>,
    pub(super) separator: Option<String>,
    pub(super) kv: Option<Names>,
    pub(super) content: Option<String>,
    pub(super) timestamp: Option<TimestampConfig>,
    pub(super) key: Option<KeyConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub(super) struct TimestampConfig {
    pub(super) header: Option<String>,
    pub(super) kv: Option<String>,
    pub(super) json: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) tolerance: Option<u32>,
    pub(super) future_tolerance: Option<u32>,
}

/// How a secret is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub(super) struct KeyConfig {
    pub(super) encoding: Option<Written>,
    pub(super) strip: Option<String>,
}

/// The longest text of a dialect, in bytes.
const LONGEST: usize = 1024;

/// A dialect has no more fields, and no more `kv`.
const MOST: usize = 16;

/// The surroundings that a verifier is built in.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a> {
    pub(super) url: Option<&'a PublicUrl>,
    /// Of a webhook's configuration.
    pub(super) cx: Option<&'a BuildContext<'a>>,
}

impl Environment<'_> {
    fn warn(self, text: &str) {
        if let Some(cx) = self.cx {
            cx.warn(text);
        }
    }

    fn secrets(
        self,
        secrets: Option<SecretsConfig>,
        algorithm: Algorithm,
        form: KeyForm<'_>,
    ) -> Result<Secrets<Key>, CompileError> {
        let secrets = secrets.ok_or_else(|| missing_key("secrets"))?;
        let make = |text: &str| Key::new(text, algorithm, form);
        let secrets = match self.cx {
            Some(cx) => Secrets::build_measured(secrets, cx, make),
            None => Secrets::new(secrets, |text| make(text).map(|(key, _)| key)),
        };
        secrets.map_err(|error| error.inside("secrets"))
    }
}

impl SignatureConfig {
    pub(super) fn build(self, env: Environment<'_>) -> Result<(Verifier, Secrets<Key>), CompileError> {
        match self.preset.as_deref().map(row).transpose().map_err(|error| error.inside("preset"))? {
            Some(row) => self.build_preset(row, env),
            None => self.build_dialect(env),
        }
    }

    /// The name of the preset, if there is such a one.
    pub(super) fn known_preset(&self) -> Option<&'static str> {
        presets::find(self.preset.as_deref()?).map(|row| row.name)
    }

    fn build_preset(self, row: &Row, env: Environment<'_>) -> Result<(Verifier, Secrets<Key>), CompileError> {
        self.check_beside_preset(row)?;
        let verifier = match row.how {
            How::Adyen => Verifier::Adyen,
            How::MsGraph => Verifier::MsGraph,
            How::Contentful => Verifier::Contentful(known_url(env.url)?),
            How::Twilio => Verifier::Twilio(known_url(env.url)?),
            How::Dialect(mut dialect) => {
                let own_header: Vec<&str> = self.header.iter().flat_map(Names::iter).collect();
                if !own_header.is_empty() {
                    dialect.source = Source::Headers(&own_header);
                }
                if let Some(times) = &self.timestamp {
                    times.adjust(dialect.timestamp.as_mut()).map_err(|error| error.inside("timestamp"))?;
                }
                check_dedup(row, &dialect, env.cx)?;
                Verifier::Dialect(Plan::new(&dialect, row.algorithm, env.url, &|name| self.param(name))?.into())
            }
        };
        Ok((verifier, env.secrets(self.secrets, row.algorithm, row.key)?))
    }

    fn build_dialect(self, env: Environment<'_>) -> Result<(Verifier, Secrets<Key>), CompileError> {
        let algorithm = self.algorithm.ok_or_else(|| {
            CompileError::new("expected the key `preset` with the name of a provider, or `algorithm`, found neither")
        })?;
        let encoding = self.encoding.ok_or_else(|| missing_key("encoding"))?;
        let headers: Vec<&str> = self.header.as_ref().ok_or_else(|| missing_key("header"))?.checked("header")?;
        let keys: Vec<&str> = self.kv.as_ref().map(|keys| keys.checked("kv")).transpose()?.unwrap_or_default();
        let content = self.content.as_deref().ok_or_else(|| missing_key("content"))?;
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let texts = [("content", Some(content)), ("prefix", Some(prefix)), ("separator", self.separator.as_deref())];
        for (key, text) in texts {
            let length = text.map_or(0, str::len);
            if length > LONGEST || (key == "separator" && text == Some("")) {
                let text = format!("expected a text of 1 to {LONGEST} bytes, found {length}");
                return Err(CompileError::new(text).inside(key));
            }
        }
        let form = match (&self.separator, &*keys) {
            (None, []) => Form::Plain { prefix },
            (Some(separator), []) => Form::List { separator, prefix },
            (_, _) if !prefix.is_empty() => {
                return Err(CompileError::new("expected no prefix beside `kv`, found one").inside("prefix"));
            }
            (separator, keys) => Form::Pairs { separator: separator.as_deref().unwrap_or(","), equals: "=", keys },
        };
        let timestamp = self.timestamp.as_ref().map(TimestampConfig::rule).transpose();
        let timestamp = timestamp.map_err(|error| error.inside("timestamp"))?;
        let dialect = Dialect { source: Source::Headers(&headers), form, encoding, content, timestamp };
        let plan = Plan::new(&dialect, algorithm, env.url, &|name| self.param(name))?;
        if !plan.covers_body() {
            env.warn(
                "the signature does not cover the body: anybody who has seen a signature can send other events with it",
            );
        }
        let key = self.key.clone().unwrap_or_default();
        let strip = key.strip.as_deref().unwrap_or_default();
        let secrets =
            env.secrets(self.secrets, algorithm, KeyForm { strip, written: key.encoding.unwrap_or(Written::Text) })?;
        Ok((Verifier::Dialect(plan.into()), secrets))
    }

    /// A preset fixes everything but the secrets, the tolerance and the parameters of the operator.
    fn check_beside_preset(&self, row: &Row) -> Result<(), CompileError> {
        let has_header = self.header.is_some() && !row.has_own_header;
        let found = [
            ("algorithm", self.algorithm.is_some()),
            ("encoding", self.encoding.is_some()),
            ("header", has_header),
            ("prefix", self.prefix.is_some()),
            ("separator", self.separator.is_some()),
            ("kv", self.kv.is_some()),
            ("content", self.content.is_some()),
            ("key", self.key.is_some()),
        ];
        if let Some((key, _)) = found.into_iter().find(|(_, is_there)| *is_there) {
            return Err(CompileError::new("has no effect beside `preset`: leave it out").inside(key));
        }
        if let Some(name) = self.params.keys().find(|name| !row.params.contains(&name.as_str())) {
            let nearest = did_you_mean(name, row.params.iter().copied());
            return Err(CompileError::new(format!("`{}` has no such parameter{nearest}", row.name)).inside("params"));
        }
        match (&self.timestamp, row.how) {
            (Some(_), How::Adyen | How::Contentful | How::MsGraph | How::Twilio) => {
                Err(CompileError::new("this provider's tolerance cannot be set: leave it out").inside("timestamp"))
            }
            _ => Ok(()),
        }
    }

    fn param(&self, name: &str) -> Result<String, CompileError> {
        self.params
            .get(name)
            .filter(|value| !value.trim().is_empty())
            .cloned()
            .ok_or_else(|| CompileError::new(format!("expected the parameter `{name}`, found none")).inside("params"))
    }
}

/// The row of this name. The name of a provider is no secret, and is quoted only if it is known.
fn row(name: &str) -> Result<&'static Row, CompileError> {
    presets::find(name).ok_or_else(|| {
        CompileError::new(match UNSUPPORTED.iter().find(|(known, _)| *known == name) {
            Some((known, what)) => format!("`{known}` is no preset: {what}"),
            None => {
                let nearest = did_you_mean(name, ROWS.iter().map(|row| row.name));
                format!(
                    "there is no such preset{nearest}; spell the dialect out with `algorithm`, `header` and `content`"
                )
            }
        })
    })
}

/// A signature that does not cover the event would let in any event, unless each signature is accepted once.
fn check_dedup(row: &Row, dialect: &Dialect<'_>, cx: Option<&BuildContext<'_>>) -> Result<(), CompileError> {
    let (Some(pointer), Some(cx)) = (row.dedup, cx) else { return Ok(()) };
    let name = row.name;
    let dedup = cx.dedup.filter(|dedup| dedup.pointer == Some(pointer)).ok_or_else(|| {
        CompileError::new(format!(
            "`{name}` does not sign the event: expected `\"dedup\": {{\"pointer\": \"{pointer}\"}}`, so that a signature \
             that was seen brings no other event, found another `dedup` or none"
        ))
    })?;
    let past = dialect.timestamp.map_or(0, |rule| rule.past.saturating_add(rule.future));
    match dedup.ttl < Duration::from_secs(past.into()) {
        true => Err(CompileError::new(format!(
            "`{name}` does not sign the event: expected a `ttl` of `dedup` of at least {past} seconds, as long as a \
             signature can be sent again, found a shorter one"
        ))),
        false => Ok(()),
    }
}

impl TimestampConfig {
    fn rule(&self) -> Result<Rule<'_>, CompileError> {
        let from = match (&self.header, &self.kv, &self.json) {
            (Some(name), None, None) => TimeFrom::Header(name),
            (None, Some(key), None) => TimeFrom::Pair(key),
            (None, None, Some(path)) => TimeFrom::Json(path),
            _ => {
                return Err(CompileError::new(
                    "expected exactly one of `header`, `kv` and `json`, found another number",
                ));
            }
        };
        let mut rule = Rule { from, format: self.format.unwrap_or(Format::Unix), past: TOLERANCE, future: TOLERANCE };
        self.set_tolerance(&mut rule)?;
        Ok(rule)
    }

    /// Sets the tolerance of a provider's rule.
    fn adjust(&self, rule: Option<&mut Rule<'_>>) -> Result<(), CompileError> {
        let rule = rule.ok_or_else(|| CompileError::new("this provider signs no time: leave it out"))?;
        if self.header.is_some() || self.kv.is_some() || self.json.is_some() || self.format.is_some() {
            let text =
                "expected `tolerance` and `future_tolerance` beside `preset`, which says the rest, found another key";
            return Err(CompileError::new(text));
        }
        self.set_tolerance(rule)
    }

    /// Without `future_tolerance`, `tolerance` also applies to the future, up to the default.
    fn set_tolerance(&self, rule: &mut Rule<'_>) -> Result<(), CompileError> {
        let checked = |key: &str, seconds: Option<u32>| match seconds {
            Some(seconds) if !(1..=MOST_TOLERANCE).contains(&seconds) => {
                let text = format!("expected 1 to {MOST_TOLERANCE} seconds, found another number");
                Err(CompileError::new(text).inside(key))
            }
            seconds => Ok(seconds),
        };
        let past = checked("tolerance", self.tolerance)?;
        let future = checked("future_tolerance", self.future_tolerance)?;
        rule.past = past.unwrap_or(rule.past);
        rule.future = future.or(past.map(|past| past.min(TOLERANCE))).unwrap_or(rule.future);
        Ok(())
    }
}

/// A name, or several.
#[derive(Clone, Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn checked(&self, key: &str) -> Result<Vec<&str>, CompileError> {
        let is_good = (1..=MOST).contains(&self.0.len()) && self.iter().all(|name| (1..=256).contains(&name.len()));
        let error =
            || CompileError::new(format!("expected 1 to {MOST} names of 1 to 256 bytes, found others")).inside(key);
        if is_good { Ok(self.iter().collect()) } else { Err(error()) }
    }
}

impl<S: Into<String>> From<S> for Names {
    fn from(name: S) -> Self {
        Self(vec![name.into()])
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of strings")
            }

            fn visit_str<E>(self, name: &str) -> Result<Names, E> {
                Ok(name.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}
