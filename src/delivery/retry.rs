//! Decides whether and when another attempt follows a failed one: the key `retry`.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::event::{DeliverError, DeliverErrorKind, LONGEST_WAIT};

/// The shortest wait: a delay of zero must not make a tight loop.
const SHORTEST: Duration = Duration::from_millis(5);

/// The retry rule of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Retry {
    attempts: u32,
    /// In seconds.
    initial_delay: f64,
    /// In seconds.
    max_delay: f64,
    multiplier: f64,
    kinds: Kinds,
}

impl Retry {
    /// One attempt only: the default of a webhook whose sender waits for the delivery.
    pub(crate) fn never() -> Self {
        Self { attempts: 1, initial_delay: 1.0, max_delay: 60.0, multiplier: 2.0, kinds: Kinds::DEFAULT }
    }

    /// The default of a webhook that answers before the delivery: attempts for some five hours, because the sender will not
    /// send the event again.
    pub(crate) fn accepted() -> Self {
        Self { attempts: 20, max_delay: LONGEST_WAIT.as_secs_f64(), ..Self::never() }
    }

    /// The rule that `config` asks for, with warnings for the operator. A number that is out of range is moved into the range,
    /// as by the service that this one replaces.
    ///
    /// # Errors
    ///
    /// When a number is not finite, or `max_attempts` is not a whole number: the key, and what is wrong with its value.
    pub(crate) fn new(config: RetryConfig) -> Result<(Self, Vec<Warning>), (&'static str, &'static str)> {
        let mut warnings = Vec::new();
        if config.enabled.is_none() && config.has_other_keys() {
            warnings.push((None, "has no effect without `\"enabled\": true`".to_owned()));
        }
        let mut in_range = |key, asked: Option<f64>, default: f64, [lowest, highest]: [f64; 2]| {
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
        let attempts = in_range("max_attempts", config.max_attempts, 3.0, [1.0, 20.0])? as u32;
        let initial_delay = in_range("initial_delay", config.initial_delay, 1.0, [0.0, 60.0])?;
        let kinds = config.retryable_errors.unwrap_or(Kinds::DEFAULT);
        let retry = Self {
            attempts: if config.enabled == Some(true) { attempts } else { 1 },
            initial_delay,
            max_delay: in_range("max_delay", config.max_delay, 60.0, [initial_delay, 60.0])?,
            multiplier: in_range("backoff_multiplier", config.backoff_multiplier, 2.0, [0.1, 10.0])?,
            kinds: kinds.without(config.non_retryable_errors.unwrap_or(Kinds::NONE)),
        };
        Ok((retry, warnings))
    }

    /// Whether another attempt may follow attempt number `attempt`, counted from 1.
    pub(crate) fn may_follow(&self, attempt: u32) -> bool {
        attempt < self.attempts
    }

    /// How long to wait after attempt number `attempt` failed with `error`; `None` if no other attempt follows.
    ///
    /// Each wait is drawn uniformly from zero to the current delay (full jitter), so that events that failed together are not
    /// tried again together. The target's `Retry-After` is added.
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

/// A warning for the operator, about one of the keys or about the whole object.
pub(crate) type Warning = (Option<&'static str>, String);

/// Displays a number as the operator wrote it, except a very large one.
struct Asked(f64);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() < 1e15 {
            true => write!(f, "{}", self.0),
            false => write!(f, "{:e}", self.0),
        }
    }
}

/// The value of the key `retry`. A key that is missing is `None`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub(crate) struct RetryConfig {
    #[serde(deserialize_with = "present")]
    enabled: Option<bool>,
    /// A float, so that a number beyond all integers is moved into the range as well.
    #[serde(deserialize_with = "present")]
    max_attempts: Option<f64>,
    #[serde(deserialize_with = "present")]
    initial_delay: Option<f64>,
    #[serde(deserialize_with = "present")]
    max_delay: Option<f64>,
    #[serde(deserialize_with = "present")]
    backoff_multiplier: Option<f64>,
    #[serde(deserialize_with = "present")]
    retryable_errors: Option<Kinds>,
    #[serde(deserialize_with = "present")]
    non_retryable_errors: Option<Kinds>,
}

/// A key that is present must have a value: `null` is refused.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl RetryConfig {
    /// Whether a key other than `enabled` is present.
    fn has_other_keys(&self) -> bool {
        let numbers = [self.max_attempts, self.initial_delay, self.max_delay, self.backoff_multiplier];
        let lists = [self.retryable_errors, self.non_retryable_errors];
        numbers.iter().any(Option::is_some) || lists.iter().any(Option::is_some)
    }
}

/// A set of kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kinds(u16);

/// The name for all kinds together.
const ANY: &str = "any";

/// Names of two kinds that come from HTTP.
const SPELLINGS: [(&str, DeliverErrorKind); 2] =
    [("http_5xx", DeliverErrorKind::Unavailable), ("http_429", DeliverErrorKind::Throttled)];

impl Kinds {
    const NONE: Self = Self(0);

    /// The kinds of failures that may pass by themselves.
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

    /// The kinds that `name` means in a configuration: a label, another spelling of a label, or `any`.
    fn named(name: &str) -> Option<Self> {
        if name == ANY {
            return Some(retryable().fold(Self::NONE, Self::with));
        }
        let label = retryable().find(|kind| kind.label() == name);
        let spelling = || SPELLINGS.into_iter().find(|(spelling, _)| *spelling == name).map(|(_, kind)| kind);
        label.or_else(spelling).map(|kind| Self::NONE.with(kind))
    }
}

/// Every kind that a configuration may retry. A loop is not one of them: each webhook in the loop would multiply the
/// attempts of the next one.
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
    format!("unknown kind of error, expected one of {}", known.join(", "))
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
    fn retries_are_off_unless_they_are_enabled() {
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
    fn a_number_out_of_range_is_moved_into_it_with_a_warning() {
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
    fn a_number_in_range_causes_no_warning() {
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
    fn keys_without_enabled_cause_a_warning() {
        for json in [r#"{"max_attempts": 9}"#, r#"{"retryable_errors": ["any"]}"#] {
            assert_eq!(warned(json).unwrap().1, ["has no effect without `\"enabled\": true`"], "{json}");
        }
    }

    #[test]
    fn a_value_that_is_not_a_number_is_refused() {
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
    fn failures_that_may_pass_by_themselves_are_retried_by_default() {
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
    fn unknown_kinds_are_refused_with_a_list_of_the_known_ones() {
        for name in
            ["hunter2", "", "Any", "connexion", "x.any", "x.io", "x.http_5xx", "http_500", "Timeout", "ConnectionError"]
        {
            let error = retry(&format!(r#"{{"retryable_errors": [{name:?}]}}"#)).unwrap_err();
            assert!(error.contains("expected one of `connect`, ") && error.contains(", `any`"), "{name} -> {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(retry(r#"{"retryable_errors": "any"}"#).is_err());
        assert!(retry(r#"{"max_atempts": 1}"#).is_err());
    }

    #[test]
    fn no_attempt_is_made_before_the_time_that_the_target_asked_for() {
        let retry = retry(r#"{"enabled": true}"#).unwrap();
        let asked = |seconds| retry.next(1, &error(Kind::Throttled).retry_after(Duration::from_secs(seconds))).unwrap();
        assert!((Duration::from_secs(120)..=Duration::from_secs(121)).contains(&asked(120)));
        assert_eq!(asked(1_000_000), LONGEST_WAIT);
        assert_eq!(asked(u64::MAX), LONGEST_WAIT);
    }

    #[test]
    fn waits_grow_and_are_random() {
        let retry = Retry { attempts: 20, ..Retry::never() };
        let waits = |attempt| (0..200).map(move |_| retry.next(attempt, &error(Kind::Io)).unwrap().as_secs_f64());
        for (attempt, bound) in [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (19, 60.0)] {
            let longest = waits(attempt).fold(0.0, f64::max);
            // That all of 200 waits are below three quarters of the bound happens once in 10^25 runs.
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
