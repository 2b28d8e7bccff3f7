//! The secrets of a scheme: several at a time, each for as long as it is valid.
//!
//! In a configuration they are a string, or an array of strings and of objects with `value`, `not_before` and `not_after`
//! (RFC 3339): a rotation needs no second deployment.

use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::AuthError;
use crate::base::rfc3339;
use crate::base::secret::check_secret;
use crate::base::wall_clock::WallClock;
use crate::config::{BuildContext, BuildError, CompileError};

/// A scheme has no more secrets at a time.
pub(crate) const MOST: usize = 16;

/// A shorter secret, in bytes, can be guessed sooner or later.
const SHORT: usize = 16;

/// The secrets of a scheme, each made into a `K`.
///
/// ```
/// use tower_webhook::auth::{AuthError, SecretDigest, Secrets, WallClock};
///
/// let secrets = Secrets::new(["a secret that is new", "a secret that is old"], |text| Ok(SecretDigest::new(text)?)).unwrap();
/// let find = |sent: &str| secrets.find(&WallClock::system(), |secret| secret.matches(sent.as_bytes()));
/// assert_eq!(find("a secret that is old").unwrap().index(), 1);
/// assert_eq!(find("another"), Err(AuthError::Invalid));
/// ```
#[derive(Clone)]
pub struct Secrets<K>(Box<[Entry<K>]>);

#[derive(Clone)]
struct Entry<K> {
    key: K,
    /// Most secrets have none.
    window: Option<Box<Window>>,
}

/// When a secret is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    not_before: Option<SystemTime>,
    not_after: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    NotYet,
    Now,
    NoLonger,
}

/// The place of a secret in the list of its scheme, from 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u8);

impl Position {
    /// The place, counted from 0.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K> Secrets<K> {
    /// Secrets that are fixed in a program: `make` makes a `K` of the text of each.
    ///
    /// # Errors
    ///
    /// When there is no secret or there are more than 16, when a secret is blank or a placeholder that nothing has filled
    /// in, when a date is no date or a secret would end before it begins, and when `make` fails.
    pub fn new(
        secrets: impl Into<SecretsConfig>,
        mut make: impl FnMut(&str) -> Result<K, BuildError>,
    ) -> Result<Self, CompileError> {
        let SecretsConfig { secrets, is_list } = secrets.into();
        match secrets.len() {
            0 => return Err(CompileError::new("expected at least one secret, found none")),
            1..=MOST => {}
            found => return Err(CompileError::new(format!("expected at most {MOST} secrets, found {found}"))),
        }
        let entries = secrets.iter().enumerate().map(|(at, secret)| {
            secret.build(&mut make).map_err(|error| if is_list { error.inside(&at.to_string()) } else { error })
        });
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }

    /// Secrets of a webhook's configuration. What is odd about them is a warning: that a secret is short, or that none is
    /// valid any more.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn build(
        secrets: SecretsConfig,
        cx: &BuildContext<'_>,
        mut make: impl FnMut(&str) -> Result<K, BuildError>,
    ) -> Result<Self, CompileError> {
        Self::build_measured(secrets, cx, |text| Ok((make(text)?, text.len())))
    }

    /// As [`build`](Self::build), for a text that is more, or less, than the secret: `make` also says how many bytes the
    /// secret has.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn build_measured(
        secrets: SecretsConfig,
        cx: &BuildContext<'_>,
        mut make: impl FnMut(&str) -> Result<(K, usize), BuildError>,
    ) -> Result<Self, CompileError> {
        let is_list = secrets.is_list;
        let mut lengths = Vec::new();
        let secrets = Self::new(secrets, |text| {
            let (key, length) = make(text)?;
            lengths.push(length);
            Ok(key)
        })?;
        for (at, length) in lengths.into_iter().enumerate().filter(|(_, length)| *length < SHORT) {
            let which = if is_list { format!("secret {at}") } else { "the secret".to_owned() };
            cx.remark(format_args!("{which} has {length} bytes, expected at least {SHORT}: a longer one is safer"));
        }
        let now = cx.clock().now();
        if secrets.0.iter().all(|entry| entry.validity(now) == Validity::NoLonger) {
            cx.warn("no secret is valid any more, so nobody is let in: add a new one");
        }
        Ok(secrets)
    }

    /// The place of the secret that fits. All are tried, however early one fits.
    ///
    /// # Errors
    ///
    /// [`AuthError::ExpiredSecret`] when one fits that is no longer valid and none that is; else [`AuthError::Invalid`], also
    /// when the only one that fits is not valid yet.
    pub fn find(&self, clock: &WallClock, fits: impl FnMut(&K) -> bool) -> Result<Position, AuthError> {
        self.judge(clock, self.keys().map(fits))
    }

    /// As [`find`](Self::find), for a scheme that has found out elsewhere which secrets fit: `fit` says it of each, in the
    /// order of [`keys`](Self::keys).
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn judge(&self, clock: &WallClock, fit: impl IntoIterator<Item = bool>) -> Result<Position, AuthError> {
        let mut verdict = Err(AuthError::Invalid);
        for (at, (entry, fits)) in (0..).zip(self.0.iter().zip(fit)) {
            if !fits || verdict.is_ok() {
                continue;
            }
            // Whoever has no dates does not pay for the clock.
            match entry.window.as_ref().map_or(Validity::Now, |window| window.validity(clock.now())) {
                Validity::Now => verdict = Ok(Position(at)),
                Validity::NoLonger => verdict = Err(AuthError::ExpiredSecret),
                Validity::NotYet => {}
            }
        }
        verdict
    }

    /// The secrets in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.0.iter().map(|entry| &entry.key)
    }
}

impl<K> Entry<K> {
    fn validity(&self, now: SystemTime) -> Validity {
        self.window.as_ref().map_or(Validity::Now, |window| window.validity(now))
    }
}

impl Window {
    fn validity(&self, now: SystemTime) -> Validity {
        match self {
            Self { not_after: Some(end), .. } if now >= *end => Validity::NoLonger,
            Self { not_before: Some(begin), .. } if now < *begin => Validity::NotYet,
            _ => Validity::Now,
        }
    }
}

/// How many there are, and nothing of any.
impl<K> fmt::Debug for Secrets<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// The secrets of a scheme as they are written: a string, or an array of strings and of objects with `value`, `not_before`
/// and `not_after`. The type of a field in the configuration of a [`ConfigScheme`](super::ConfigScheme).
#[derive(Clone)]
pub struct SecretsConfig {
    secrets: Vec<Written>,
    /// Whether an error must say which of them it is about.
    is_list: bool,
}

/// One secret as it is written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `value`, `not_before` and `not_after`")]
struct Written {
    value: String,
    #[serde(default)]
    not_before: Option<String>,
    #[serde(default)]
    not_after: Option<String>,
}

impl Written {
    fn build<K>(&self, make: &mut impl FnMut(&str) -> Result<K, BuildError>) -> Result<Entry<K>, CompileError> {
        check_secret(&self.value).map_err(|error| CompileError::new(error.to_string()))?;
        let (not_before, not_after) = (date(&self.not_before, "not_before")?, date(&self.not_after, "not_after")?);
        if not_before.zip(not_after).is_some_and(|(begin, end)| end <= begin) {
            return Err(CompileError::new(
                "expected a `not_after` that is later than `not_before`, found an earlier one",
            ));
        }
        let window = Window { not_before, not_after };
        let window = (window != Window::default()).then(|| Box::new(window));
        match make(&self.value) {
            Ok(key) => Ok(Entry { key, window }),
            Err(error) => Err(match error.downcast::<CompileError>() {
                Ok(error) => *error,
                Err(error) => CompileError::new(error.to_string()),
            }),
        }
    }
}

fn date(text: &Option<String>, key: &str) -> Result<Option<SystemTime>, CompileError> {
    let Some(text) = text else { return Ok(None) };
    let invalid = || {
        let text = "expected a time as in RFC 3339, such as `2026-11-27T00:30:00Z`, found another string";
        CompileError::new(text).inside(key)
    };
    rfc3339::parse(text.trim().as_bytes()).map(Some).ok_or_else(invalid)
}

impl From<&str> for SecretsConfig {
    fn from(secret: &str) -> Self {
        secret.to_owned().into()
    }
}

impl From<String> for SecretsConfig {
    fn from(secret: String) -> Self {
        Self { secrets: vec![secret.into()], is_list: false }
    }
}

impl<S: Into<String>> From<Vec<S>> for SecretsConfig {
    fn from(secrets: Vec<S>) -> Self {
        Self { secrets: secrets.into_iter().map(|secret| secret.into().into()).collect(), is_list: true }
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for SecretsConfig {
    fn from(secrets: [S; N]) -> Self {
        Vec::from(secrets).into()
    }
}

impl From<String> for Written {
    fn from(value: String) -> Self {
        Self { value, not_before: None, not_after: None }
    }
}

impl fmt::Debug for SecretsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretsConfig({})", self.secrets.len())
    }
}

impl<'de> Deserialize<'de> for SecretsConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = SecretsConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of strings and objects")
            }

            fn visit_str<E>(self, text: &str) -> Result<SecretsConfig, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SecretsConfig, A::Error> {
                let mut secrets = Vec::new();
                while let Some(Item(secret)) = seq.next_element()? {
                    secrets.push(secret);
                }
                Ok(SecretsConfig { secrets, is_list: true })
            }
        }

        deserializer.deserialize_any(List)
    }
}

/// An item of an array of secrets.
struct Item(Written);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;

        impl<'de> Visitor<'de> for One {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an object with `value`, `not_before` and `not_after`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item(text.to_owned().into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(Item)
            }
        }

        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::config::{Node, Notes, WebhookKey};

    fn make(text: &str) -> Result<String, BuildError> {
        Ok(text.to_owned())
    }

    fn read(json: &str) -> Result<SecretsConfig, String> {
        Node::parse(json.as_bytes()).and_then(Node::read).map_err(|error| error.to_string())
    }

    fn secrets(json: &str) -> Result<Secrets<String>, String> {
        Secrets::new(read(json)?, make).map_err(|error| error.to_string())
    }

    fn at(text: &str) -> WallClock {
        let time = rfc3339::parse(text.as_bytes()).unwrap();
        WallClock::from_fn(move || time)
    }

    fn find(secrets: &Secrets<String>, sent: &str, now: &str) -> Result<usize, AuthError> {
        secrets.find(&at(now), |secret| secret == sent).map(Position::index)
    }

    const NOW: &str = "2026-11-27T00:00:00Z";

    #[test]
    fn the_secret_that_fits_is_found_at_its_position() {
        let secrets = secrets(r#"["one", {"value": "two"}, "three"]"#).unwrap();
        for (sent, position) in [("one", Ok(0)), ("two", Ok(1)), ("three", Ok(2)), ("four", Err(AuthError::Invalid))] {
            assert_eq!(find(&secrets, sent, NOW), position);
        }
    }

    #[test]
    fn every_secret_is_tried_however_early_one_fits() {
        let secrets = secrets(r#"["one", "two", "three"]"#).unwrap();
        for sent in ["one", "three", "none"] {
            let mut tried = 0;
            let _ = secrets.find(&at(NOW), |secret| {
                tried += 1;
                secret == sent
            });
            assert_eq!(tried, 3);
        }
    }

    #[test]
    fn a_secret_is_valid_from_its_first_second_and_no_longer_at_its_last() {
        let json =
            r#"[{"value": "a", "not_before": "2026-11-27T00:00:00Z", "not_after": "2026-11-27T01:00:00+01:00"}]"#;
        assert!(secrets(json).unwrap_err().contains("later than `not_before`"));
        let json = r#"[{"value": "a", "not_before": "2026-11-27T00:00:00Z", "not_after": "2026-11-27T00:10:00Z"}]"#;
        let secrets = secrets(json).unwrap();
        for (now, position) in [
            ("2026-11-26T23:59:59.999999999Z", Err(AuthError::Invalid)),
            ("2026-11-27T00:00:00Z", Ok(0)),
            ("2026-11-27T00:09:59.999999999Z", Ok(0)),
            ("2026-11-27T00:10:00Z", Err(AuthError::ExpiredSecret)),
            ("2030-01-01T00:00:00Z", Err(AuthError::ExpiredSecret)),
        ] {
            assert_eq!(find(&secrets, "a", now), position, "{now}");
            assert_eq!(find(&secrets, "b", now), Err(AuthError::Invalid), "{now}");
        }
    }

    #[test]
    fn a_secret_expires_while_it_is_in_use() {
        let secrets = secrets(r#"[{"value": "a", "not_after": "1970-01-01T00:16:40Z"}]"#).unwrap();
        let seconds = Arc::new(AtomicU64::new(999));
        let clock = {
            let seconds = Arc::clone(&seconds);
            WallClock::from_fn(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)))
        };
        assert!(secrets.find(&clock, |_| true).is_ok());
        seconds.store(1000, Ordering::Relaxed);
        assert_eq!(secrets.find(&clock, |_| true), Err(AuthError::ExpiredSecret));
    }

    #[test]
    fn a_secret_that_stands_twice_is_valid_while_one_of_them_is() {
        let old = r#"{"value": "a", "not_after": "2020-01-01T00:00:00Z"}"#;
        let next = r#"{"value": "a", "not_before": "2030-01-01T00:00:00Z"}"#;
        let valid = secrets(&format!(r#"[{old}, {next}, "a"]"#)).unwrap();
        assert_eq!(find(&valid, "a", NOW), Ok(2));
        let between = secrets(&format!("[{old}, {next}]")).unwrap();
        assert_eq!(find(&between, "a", NOW), Err(AuthError::ExpiredSecret));
    }

    #[test]
    fn what_is_no_secret_is_refused_with_its_place() {
        let blank = "the secret is empty";
        for (json, error) in [
            (r#""""#, blank),
            (r#"["a", " "]"#, "1: the secret is empty"),
            (r#"[{"value": ""}]"#, "0: the secret is empty"),
            ("[]", "expected at least one secret, found none"),
            ("{}", "expected a string, or an array of strings and objects, found an object"),
            ("null", "expected a string, or an array of strings and objects, found null"),
            ("7", "expected a string, or an array of strings and objects, found a number"),
            ("[7]", "expected a string, or an object with `value`, `not_before` and `not_after`, found a number"),
            (r#"[{"value": "a", "not_afer": "x"}]"#, "unknown key `not_afer`, did you mean `not_after`?"),
            (r#"[{"not_after": "2026-11-27T00:00:00Z"}]"#, "the key `value` is missing"),
            (
                r#"[{"value": "a", "not_after": "hunter2"}]"#,
                "0.not_after: expected a time as in RFC 3339, such as `2026-11-27T00:30:00Z`, found another string",
            ),
        ] {
            assert_eq!(secrets(json).unwrap_err(), error, "{json}");
        }
        assert!(secrets(r#"["${TOKEN}"]"#).unwrap_err().starts_with("0: the secret is a placeholder"));
        let many = |count| secrets(&format!("[{}]", vec![r#""a""#; count].join(",")));
        assert!(many(16).is_ok());
        assert_eq!(many(17).unwrap_err(), "expected at most 16 secrets, found 17");
    }

    #[test]
    fn a_secret_of_a_variable_is_one() {
        let node = Node::Array(vec![Node::Expanded("12345".into()), Node::Filled("x12345".into())]);
        let config = node.read::<SecretsConfig>().unwrap();
        let secrets = Secrets::new(config, make).unwrap();
        assert_eq!(find(&secrets, "12345", NOW), Ok(0));
        assert_eq!(find(&secrets, "x12345", NOW), Ok(1));
    }

    #[test]
    fn what_is_odd_is_told_and_no_reason_to_refuse() {
        let key = WebhookKey::new("default", "a").unwrap();
        let warnings = |json: &str| {
            let (notes, clock) = (Notes::new(), at(NOW));
            let cx = BuildContext { notes: &notes, clock: &clock, ..BuildContext::bare(&key) };
            Secrets::build(read(json).unwrap(), &cx, make).unwrap();
            notes.into_warnings().iter().map(|warning| warning.text().to_owned()).collect::<Vec<_>>()
        };
        let long = "a secret of 16 by";
        assert_eq!(warnings(&format!(r#""{long}""#)), [""; 0]);
        let short = "has 15 bytes, expected at least 16: a longer one is safer";
        assert_eq!(warnings(r#""123456789012345""#), [format!("the secret {short}")]);
        assert_eq!(warnings(&format!(r#"["{long}", "123456789012345"]"#)), [format!("secret 1 {short}")]);
        let old = format!(r#"{{"value": "{long}", "not_after": "2026-11-27T00:00:00Z"}}"#);
        let none = "no secret is valid any more, so nobody is let in: add a new one";
        assert_eq!(warnings(&format!("[{old}]")), [none]);
        assert_eq!(warnings(&format!(r#"[{old}, "{long}"]"#)), [""; 0]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = read(r#"["hunter2", {"value": "hunter3"}]"#).unwrap();
        let shown = format!("{config:?} {:?}", Secrets::new(config.clone(), make).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
