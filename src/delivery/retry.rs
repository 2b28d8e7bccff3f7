//! Whether an attempt that failed is followed by another, and when: the key `retry`.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::module::{DeliverError, DeliverErrorKind, LONGEST_WAIT};

/// The shortest wait: a delay of zero must not make a tight loop.
const SHORTEST: Duration = Duration::from_millis(5);

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RetryConfig")]
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

/// The key `retry` as it is written. What is out of range is moved into it, as the service before this one did.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
struct RetryConfig {
    enabled: bool,
    max_attempts: i64,
    initial_delay: f64,
    max_delay: f64,
    backoff_multiplier: f64,
    retryable_errors: Kinds,
    non_retryable_errors: Kinds,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_attempts: 3,
            initial_delay: 1.0,
            max_delay: 60.0,
            backoff_multiplier: 2.0,
            retryable_errors: Kinds::DEFAULT,
            non_retryable_errors: Kinds::NONE,
        }
    }
}

impl TryFrom<RetryConfig> for Retry {
    type Error = &'static str;

    fn try_from(config: RetryConfig) -> Result<Self, &'static str> {
        // A variable may hold the text `NaN`; no range does.
        if config.initial_delay.is_nan() || config.max_delay.is_nan() || config.backoff_multiplier.is_nan() {
            return Err("delays and the multiplier must be numbers");
        }
        let initial_delay = config.initial_delay.clamp(0.0, 60.0);
        Ok(Self {
            attempts: if config.enabled { config.max_attempts.clamp(1, 20) as u32 } else { 1 },
            initial_delay,
            max_delay: config.max_delay.clamp(initial_delay, 60.0),
            multiplier: config.backoff_multiplier.clamp(0.1, 10.0),
            kinds: config.retryable_errors.without(config.non_retryable_errors),
        })
    }
}

/// A set of kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kinds(u16);

/// The word for every kind.
const ANY: &str = "any";

/// The classes that configurations of the Python service name.
const ALIASES: [(&str, DeliverErrorKind); 13] = [
    ("ConnectionError", DeliverErrorKind::Connect),
    ("ConnectionRefusedError", DeliverErrorKind::Connect),
    ("ConnectionResetError", DeliverErrorKind::Connect),
    ("ConnectionAbortedError", DeliverErrorKind::Connect),
    ("BrokenPipeError", DeliverErrorKind::Connect),
    ("TimeoutError", DeliverErrorKind::Timeout),
    ("OSError", DeliverErrorKind::Io),
    ("IOError", DeliverErrorKind::Io),
    ("AuthenticationError", DeliverErrorKind::Auth),
    ("PermissionError", DeliverErrorKind::Auth),
    ("ValueError", DeliverErrorKind::Config),
    ("KeyError", DeliverErrorKind::Config),
    ("TypeError", DeliverErrorKind::Config),
];

impl Kinds {
    const NONE: Self = Self(0);

    /// What may be over by itself.
    const DEFAULT: Self = Self::NONE
        .with(DeliverErrorKind::Connect)
        .with(DeliverErrorKind::Timeout)
        .with(DeliverErrorKind::Io)
        .with(DeliverErrorKind::Http5xx)
        .with(DeliverErrorKind::Http429);

    const fn with(self, kind: DeliverErrorKind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn contains(self, kind: DeliverErrorKind) -> bool {
        self.0 & Self::NONE.with(kind).0 != 0
    }

    /// The kinds that a configuration means by `name`: a label, `any`, or a class of Python's, plain or qualified.
    fn named(name: &str) -> Option<Self> {
        if name == ANY {
            return Some(DeliverErrorKind::ALL.into_iter().fold(Self::NONE, Self::with));
        }
        let class = name.rsplit('.').next().unwrap_or(name);
        let label = DeliverErrorKind::ALL.into_iter().find(|kind| kind.label() == name);
        let kind = label.or_else(|| ALIASES.iter().find(|(alias, _)| *alias == class).map(|&(_, kind)| kind));
        kind.map(|kind| Self::NONE.with(kind))
    }
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
    let labels = DeliverErrorKind::ALL.into_iter().map(DeliverErrorKind::label);
    let known: Vec<_> = labels.chain([ANY]).chain(ALIASES.map(|(alias, _)| alias)).map(|n| format!("`{n}`")).collect();
    format!("no kind of error has this name; known are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use DeliverErrorKind as Kind;

    fn retry(json: &str) -> Result<Retry, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
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
    fn what_is_out_of_range_is_moved_into_it() {
        let extremes = r#"{"enabled": true, "max_attempts": 99, "initial_delay": 1e9, "max_delay": 1, "backoff_multiplier": 1e300}"#;
        let high = retry(extremes).unwrap();
        assert_eq!((high.attempts, high.initial_delay, high.max_delay, high.multiplier), (20, 60.0, 60.0, 10.0));
        let extremes =
            r#"{"enabled": true, "max_attempts": -1, "initial_delay": -1, "max_delay": -5, "backoff_multiplier": 0}"#;
        let low = retry(extremes).unwrap();
        assert_eq!((low.attempts, low.initial_delay, low.max_delay, low.multiplier), (1, 0.0, 0.0, 0.1));
        let raised = retry(r#"{"initial_delay": 5, "max_delay": 2}"#).unwrap();
        assert_eq!((raised.initial_delay, raised.max_delay), (5.0, 5.0));
        assert!(Retry::try_from(RetryConfig { max_delay: f64::NAN, ..RetryConfig::default() }).is_err());
        let endless = RetryConfig { initial_delay: f64::INFINITY, ..RetryConfig::default() };
        assert_eq!(Retry::try_from(endless).unwrap().initial_delay, 60.0);
    }

    #[test]
    fn what_may_pass_by_itself_is_tried_again() {
        let default = [Kind::Connect, Kind::Timeout, Kind::Io, Kind::Http5xx, Kind::Http429];
        assert_eq!(retried(&retry(r#"{"enabled": true}"#).unwrap()), default);
        let lists = |yes: &str, no: &str| {
            let json = format!(r#"{{"enabled": true, "retryable_errors": [{yes}], "non_retryable_errors": [{no}]}}"#);
            retry(&json).map(|retry| retried(&retry))
        };
        assert_eq!(lists("", "").unwrap(), []);
        assert_eq!(lists(r#""any""#, "").unwrap(), Kind::ALL);
        assert_eq!(lists(r#""any""#, r#""any""#).unwrap(), []);
        assert_eq!(lists(r#""auth", "io""#, r#""io", "config""#).unwrap(), [Kind::Auth], "the second list wins");
        for kind in Kind::ALL {
            assert_eq!(lists(&format!("{:?}", kind.label()), "").unwrap(), [kind]);
        }
    }

    #[test]
    fn classes_of_python_are_understood() {
        for (class, kind) in [
            ("ConnectionError", Kind::Connect),
            ("builtins.ConnectionResetError", Kind::Connect),
            ("asyncio.TimeoutError", Kind::Timeout),
            ("asyncio.exceptions.TimeoutError", Kind::Timeout),
            ("OSError", Kind::Io),
            ("PermissionError", Kind::Auth),
            ("KeyError", Kind::Config),
        ] {
            assert_eq!(Kinds::named(class), Some(Kinds::NONE.with(kind)), "{class}");
        }
    }

    #[test]
    fn other_names_are_refused_with_those_that_are_known() {
        for name in ["hunter2", "", "Any", "connexion", "x.any", "x.io", "Timeout", "ConnectionError."] {
            let error = retry(&format!(r#"{{"retryable_errors": [{name:?}]}}"#)).unwrap_err();
            assert!(error.contains("`http_5xx`, ") && error.contains("`any`, `ConnectionError`"), "{name} -> {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(retry(r#"{"retryable_errors": "any"}"#).is_err());
        assert!(retry(r#"{"max_atempts": 1}"#).is_err());
    }

    #[test]
    fn the_target_is_left_alone_as_long_as_it_asked() {
        let retry = retry(r#"{"enabled": true}"#).unwrap();
        let asked = |seconds| retry.next(1, &error(Kind::Http429).retry_after(Duration::from_secs(seconds))).unwrap();
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
                enabled: true,
                max_attempts: 20,
                initial_delay: initial,
                max_delay: max,
                backoff_multiplier: multiplier,
                ..RetryConfig::default()
            };
            let wait = Retry::try_from(config).unwrap().next(attempt, &error(Kind::Timeout));
            prop_assert_eq!(wait.is_some(), attempt < 20);
            prop_assert!(wait.is_none_or(|wait| wait >= SHORTEST && wait <= Duration::from_secs(60)));
        }
    }
}
