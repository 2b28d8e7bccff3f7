//! Whether an attempt that failed is followed by another, and when: the key `retry`.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::event::{DeliverError, DeliverErrorKind, LONGEST_WAIT};

/// The shortest wait: a delay of zero must not make a tight loop.
const SHORTEST: Duration = Duration::from_millis(5);

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Retry {
    attempts: u32,
    /// In seconds, as the two below.
    initial_delay: f64,
    max_delay: f64,
    multiplier: f64,
    kinds: Kinds,
}

impl Retry {
    /// One attempt and no other: for an answer that waits for the delivery.
    pub(crate) fn never() -> Self {
        Self { attempts: 1, initial_delay: 1.0, max_delay: 60.0, multiplier: 2.0, kinds: Kinds::DEFAULT }
    }

    /// For an event that is delivered after the answer: some five hours, as nobody sends it again.
    pub(crate) fn accepted() -> Self {
        Self { attempts: 20, max_delay: LONGEST_WAIT.as_secs_f64(), ..Self::never() }
    }

    /// What `config` asks for, and what the operator is to be told: a number that is out of range is moved into it, as the
    /// service before this one did.
    ///
    /// # Errors
    ///
    /// When a number is none, or `max_attempts` no whole one: the key, and what is wrong with its value.
    pub(crate) fn new(config: RetryConfig) -> Result<(Self, Vec<Warning>), (&'static str, &'static str)> {
        let mut warnings = Vec::new();
        if config.enabled.is_none() && config.says_something() {
            warnings.push((None, "has no effect without `\"enabled\": true`".to_owned()));
        }
        let mut moved = |key, asked: Option<f64>, default: f64, [lowest, highest]: [f64; 2]| {
            let asked = asked.unwrap_or(default);
            if !asked.is_finite() {
                return Err((key, "expected a number, found none"));
            }
            let used = asked.clamp(lowest, highest);
            if used != asked {
                warnings.push((Some(key), format!("{} is out of range, {used} is used", Asked(asked))));
            }
            Ok(used)
        };
        if config.max_attempts.is_some_and(|number| number.is_finite() && number.fract() != 0.0) {
            return Err(("max_attempts", "expected a whole number, found a number with a fraction"));
        }
        let attempts = moved("max_attempts", config.max_attempts, 3.0, [1.0, 20.0])? as u32;
        let initial_delay = moved("initial_delay", config.initial_delay, 1.0, [0.0, 60.0])?;
        let kinds = config.retryable_errors.unwrap_or(Kinds::DEFAULT);
        let retry = Self {
            attempts: if config.enabled == Some(true) { attempts } else { 1 },
            initial_delay,
            max_delay: moved("max_delay", config.max_delay, 60.0, [initial_delay, 60.0])?,
            multiplier: moved("backoff_multiplier", config.backoff_multiplier, 2.0, [0.1, 10.0])?,
            kinds: kinds.without(config.non_retryable_errors.unwrap_or(Kinds::NONE)),
        };
        Ok((retry, warnings))
    }

    /// Whether the `attempt`th attempt, counted from 1, may be followed by another.
    pub(crate) fn may_follow(&self, attempt: u32) -> bool {
        attempt < self.attempts
    }

    /// How long to wait after the `attempt`th attempt failed with `error`; `None` if that was the last.
    ///
    /// Full jitter: many events that failed together do not come back together. What the target asks for
    /// (`Retry-After`) comes on top.
    pub(crate) fn next(&self, attempt: u32, error: &DeliverError) -> Option<Duration> {
        if !self.may_follow(attempt) || !self.kinds.contains(error.kind()) {
            return None;
        }
        let steps = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let longest = self.max_delay.min(self.initial_delay * self.multiplier.powi(steps));
        let drawn = Duration::from_secs_f64(longest * fastrand::f64()).max(SHORTEST);
        Some(error.wait().unwrap_or_default().saturating_add(drawn).min(LONGEST_WAIT))
    }
}

/// What an operator is to be told, of one of the keys or of all together.
pub(crate) type Warning = (Option<&'static str>, String);

/// A number as an operator wrote it, but for very large ones.
struct Asked(f64);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() < 1e15 {
            true => write!(f, "{}", self.0),
            false => write!(f, "{:e}", self.0),
        }
    }
}

/// The key `retry` as it is written: the keys that are there.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub(crate) struct RetryConfig {
    #[serde(deserialize_with = "there")]
    enabled: Option<bool>,
    /// Not an integer: one that fits no integer is moved into range like any other.
    #[serde(deserialize_with = "there")]
    max_attempts: Option<f64>,
    #[serde(deserialize_with = "there")]
    initial_delay: Option<f64>,
    #[serde(deserialize_with = "there")]
    max_delay: Option<f64>,
    #[serde(deserialize_with = "there")]
    backoff_multiplier: Option<f64>,
    #[serde(deserialize_with = "there")]
    retryable_errors: Option<Kinds>,
    #[serde(deserialize_with = "there")]
    non_retryable_errors: Option<Kinds>,
}

/// A key that is there must have a value: `null` is none.
fn there<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl RetryConfig {
    /// Whether a key other than `enabled` is there.
    fn says_something(&self) -> bool {
        let numbers = [self.max_attempts, self.initial_delay, self.max_delay, self.backoff_multiplier];
        let lists = [self.retryable_errors, self.non_retryable_errors];
        numbers.iter().any(Option::is_some) || lists.iter().any(Option::is_some)
    }
}

/// A set of kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kinds(u16);

/// The word for every kind.
const ANY: &str = "any";

/// HTTP's words for two of the kinds.
const SPELLINGS: [(&str, DeliverErrorKind); 2] =
    [("http_5xx", DeliverErrorKind::Unavailable), ("http_429", DeliverErrorKind::Throttled)];

impl Kinds {
    const NONE: Self = Self(0);

    /// What may be over by itself.
    const DEFAULT: Self = Self::NONE
        .with(DeliverErrorKind::Connect)
        .with(DeliverErrorKind::Timeout)
        .with(DeliverErrorKind::Io)
        .with(DeliverErrorKind::Unavailable)
        .with(DeliverErrorKind::Throttled);

    const fn with(self, kind: DeliverErrorKind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn contains(self, kind: DeliverErrorKind) -> bool {
        self.0 & Self::NONE.with(kind).0 != 0
    }

    /// The kinds that a configuration means by `name`: a label, another spelling of one, or `any`.
    fn named(name: &str) -> Option<Self> {
        if name == ANY {
            return Some(retryable().fold(Self::NONE, Self::with));
        }
        let label = retryable().find(|kind| kind.label() == name);
        let spelling = || SPELLINGS.into_iter().find(|(spelling, _)| *spelling == name).map(|(_, kind)| kind);
        label.or_else(spelling).map(|kind| Self::NONE.with(kind))
    }
}

/// Every kind that a configuration may have tried again. After a loop it may not: each webhook of the loop would multiply
/// the attempts of the next one.
fn retryable() -> impl Iterator<Item = DeliverErrorKind> {
    DeliverErrorKind::ALL.into_iter().filter(|&kind| kind != DeliverErrorKind::Loop)
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().try_fold(Self::NONE, |all, name| match Self::named(name) {
            Some(kinds) => Ok(Self(all.0 | kinds.0)),
            None => Err(D::Error::custom(unknown_kind())),
        })
    }
}

fn unknown_kind() -> String {
    let labels = retryable().map(DeliverErrorKind::label);
    let known: Vec<_> = labels.chain([ANY]).map(|name| format!("`{name}`")).collect();
    format!("no kind of error has this name; known are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use DeliverErrorKind as Kind;

    fn retry(json: &str) -> Result<Retry, String> {
        warned(json).map(|(retry, _)| retry)
    }

    fn warned(json: &str) -> Result<(Retry, Vec<String>), String> {
        let config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let (retry, warnings) = Retry::new(config).map_err(|(key, wrong)| format!("{key}: {wrong}"))?;
        let text = |(key, text): Warning| key.map_or_else(|| text.clone(), |key| format!("{key}: {text}"));
        Ok((retry, warnings.into_iter().map(text).collect()))
    }

    fn error(kind: Kind) -> DeliverError {
        DeliverError::new(kind, "as told")
    }

    fn retried(retry: &Retry) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|&kind| retry.next(1, &error(kind)).is_some()).collect()
    }

    #[test]
    fn it_is_off_unless_it_is_enabled() {
        for off in [Retry::never(), retry("{}").unwrap(), retry(r#"{"max_attempts": 9}"#).unwrap()] {
            assert!(Kind::ALL.into_iter().all(|kind| off.next(1, &error(kind)).is_none()));
        }
        let on = retry(r#"{"enabled": true}"#).unwrap();
        let waits = |attempt| on.next(attempt, &error(Kind::Connect)).is_some();
        assert_eq!([1, 2, 3, u32::MAX].map(waits), [true, true, false, false]);
        let accepted = Retry::accepted();
        assert!(accepted.may_follow(19) && !accepted.may_follow(20));
        assert_eq!(Retry { attempts: 3, max_delay: 60.0, ..accepted }, on, "everything else is the default");
    }

    #[test]
    fn what_is_out_of_range_is_moved_into_it_and_told() {
        let (high, told) = warned(
            r#"{"enabled": true, "max_attempts": 1e30, "initial_delay": 1e9, "max_delay": 1, "backoff_multiplier": 1e300}"#,
        )
        .unwrap();
        assert_eq!((high.attempts, high.initial_delay, high.max_delay, high.multiplier), (20, 60.0, 60.0, 10.0));
        assert_eq!(
            told,
            [
                "max_attempts: 1e30 is out of range, 20 is used",
                "initial_delay: 1000000000 is out of range, 60 is used",
                "max_delay: 1 is out of range, 60 is used",
                "backoff_multiplier: 1e300 is out of range, 10 is used",
            ]
        );
        let (low, told) = warned(
            r#"{"enabled": true, "max_attempts": -1, "initial_delay": -0.5, "max_delay": -5, "backoff_multiplier": 0}"#,
        )
        .unwrap();
        assert_eq!((low.attempts, low.initial_delay, low.max_delay, low.multiplier), (1, 0.0, 0.0, 0.1));
        assert_eq!(told.len(), 4);
        assert_eq!(told[1], "initial_delay: -0.5 is out of range, 0 is used");
        let (raised, told) = warned(r#"{"enabled": false, "initial_delay": 5, "max_delay": 2}"#).unwrap();
        assert_eq!((raised.initial_delay, raised.max_delay), (5.0, 5.0));
        assert_eq!(told, ["max_delay: 2 is out of range, 5 is used"]);
    }

    #[test]
    fn what_is_in_range_is_not_told() {
        for json in [
            "{}",
            r#"{"enabled": false}"#,
            r#"{"enabled": false, "max_attempts": 9}"#,
            r#"{"enabled": true}"#,
            r#"{"enabled": true, "max_attempts": 20, "initial_delay": 0, "max_delay": 60, "backoff_multiplier": 0.1}"#,
        ] {
            assert_eq!(warned(json).unwrap().1, [""; 0], "{json}");
        }
    }

    #[test]
    fn numbers_without_enabled_are_told_to_have_no_effect() {
        for json in [r#"{"max_attempts": 9}"#, r#"{"retryable_errors": ["any"]}"#] {
            assert_eq!(warned(json).unwrap().1, ["has no effect without `\"enabled\": true`"], "{json}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for json in ["1.5", "0.5", "-1.5", "null", "true", r#""3""#, "[]"] {
            assert!(retry(&format!(r#"{{"max_attempts": {json}}}"#)).is_err(), "{json}");
        }
        for key in ["initial_delay", "max_delay", "backoff_multiplier"] {
            assert!(retry(&format!(r#"{{"{key}": null}}"#)).is_err());
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let numbers = |key: &str| RetryConfig {
                max_attempts: (key == "max_attempts").then_some(number),
                initial_delay: (key == "initial_delay").then_some(number),
                max_delay: (key == "max_delay").then_some(number),
                backoff_multiplier: (key == "backoff_multiplier").then_some(number),
                ..RetryConfig::default()
            };
            for key in ["max_attempts", "initial_delay", "max_delay", "backoff_multiplier"] {
                assert_eq!(Retry::new(numbers(key)).unwrap_err().0, key);
            }
        }
    }

    #[test]
    fn what_may_pass_by_itself_is_tried_again() {
        let default = [Kind::Connect, Kind::Timeout, Kind::Io, Kind::Unavailable, Kind::Throttled];
        assert_eq!(retried(&retry(r#"{"enabled": true}"#).unwrap()), default);
        let lists = |yes: &str, no: &str| {
            let json = format!(r#"{{"enabled": true, "retryable_errors": [{yes}], "non_retryable_errors": [{no}]}}"#);
            retry(&json).map(|retry| retried(&retry))
        };
        assert_eq!(lists("", "").unwrap(), []);
        assert_eq!(lists(r#""any""#, "").unwrap(), retryable().collect::<Vec<_>>());
        assert!(lists(r#""loop""#, "").is_err());
        assert_eq!(lists(r#""any""#, r#""any""#).unwrap(), []);
        assert_eq!(lists(r#""auth", "io""#, r#""io", "config""#).unwrap(), [Kind::Auth], "the second list wins");
        for kind in retryable() {
            assert_eq!(lists(&format!("{:?}", kind.label()), "").unwrap(), [kind]);
        }
        assert_eq!(lists(r#""http_5xx""#, "").unwrap(), lists(r#""unavailable""#, "").unwrap());
        assert_eq!(lists(r#""http_429""#, "").unwrap(), lists(r#""throttled""#, "").unwrap());
        assert_eq!(lists(r#""any""#, r#""http_429", "http_5xx""#), lists(r#""any""#, r#""throttled", "unavailable""#));
    }

    #[test]
    fn other_names_are_refused_with_those_that_are_known() {
        for name in
            ["hunter2", "", "Any", "connexion", "x.any", "x.io", "x.http_5xx", "http_500", "Timeout", "ConnectionError"]
        {
            let error = retry(&format!(r#"{{"retryable_errors": [{name:?}]}}"#)).unwrap_err();
            assert!(error.contains("known are `connect`, ") && error.contains(", `any`"), "{name} -> {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(retry(r#"{"retryable_errors": "any"}"#).is_err());
        assert!(retry(r#"{"max_atempts": 1}"#).is_err());
    }

    #[test]
    fn the_target_is_left_alone_as_long_as_it_asked() {
        let retry = retry(r#"{"enabled": true}"#).unwrap();
        let asked = |seconds| retry.next(1, &error(Kind::Throttled).retry_after(Duration::from_secs(seconds))).unwrap();
        assert!((Duration::from_secs(120)..=Duration::from_secs(121)).contains(&asked(120)));
        assert_eq!(asked(1_000_000), LONGEST_WAIT);
        assert_eq!(asked(u64::MAX), LONGEST_WAIT);
    }

    #[test]
    fn waits_grow_and_differ() {
        let retry = Retry { attempts: 20, ..Retry::never() };
        let waits = |attempt| (0..200).map(move |_| retry.next(attempt, &error(Kind::Io)).unwrap().as_secs_f64());
        for (attempt, bound) in [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (19, 60.0)] {
            let longest = waits(attempt).fold(0.0, f64::max);
            // All of 200 below three quarters: once in 10^25.
            assert!(longest > bound * 0.75 && longest <= bound, "{attempt}: {longest}");
            assert!(waits(attempt).fold(bound, f64::min) < bound * 0.25);
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_too_short_or_too_long(
            initial in -1e300..1e300, max in -1e300..1e300, multiplier in -1e300..1e300, attempt in 0_u32..30,
        ) {
            let config = RetryConfig {
                enabled: Some(true),
                max_attempts: Some(20.0),
                initial_delay: Some(initial),
                max_delay: Some(max),
                backoff_multiplier: Some(multiplier),
                ..RetryConfig::default()
            };
            let (retry, _) = Retry::new(config).unwrap();
            let wait = retry.next(attempt, &error(Kind::Timeout));
            prop_assert_eq!(wait.is_some(), attempt < 20);
            prop_assert!(wait.is_none_or(|wait| wait >= SHORTEST && wait <= Duration::from_secs(60)));
        }
    }
}
