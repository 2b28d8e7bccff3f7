//! How the items of a chain are run: the key `chain-config`.

use std::time::Duration;

use serde::Deserialize;

/// How the steps of one attempt are run.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "ChainConfig")]
pub(crate) struct Plan {
    pub(crate) execution: Execution,
    /// Whether the first failure ends the attempt.
    pub(crate) stops: bool,
    /// The time limit of one attempt at all steps.
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Execution {
    Sequential,
    Parallel,
}

impl Plan {
    /// The plan of a webhook without a chain. It has no time limit of its own, because the caller has one.
    pub(crate) const ONE: Self = Self { execution: Execution::Sequential, stops: false, timeout: None };

    /// The plan of a chain without a `chain-config`.
    pub(crate) const CHAIN: Self = Self { timeout: Some(Duration::from_secs(30)), ..Self::ONE };
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
struct ChainConfig {
    execution: Execution,
    continue_on_error: bool,
    timeout: f64,
}

impl Default for ChainConfig {
    fn default() -> Self {
        let Plan { execution, stops, timeout } = Plan::CHAIN;
        Self { execution, continue_on_error: !stops, timeout: timeout.unwrap_or_default().as_secs_f64() }
    }
}

impl TryFrom<ChainConfig> for Plan {
    type Error = &'static str;

    fn try_from(config: ChainConfig) -> Result<Self, &'static str> {
        if !(0.001..=3600.0).contains(&config.timeout) {
            return Err("`timeout` must be 0.001 to 3600 seconds");
        }
        Ok(Self {
            execution: config.execution,
            stops: !config.continue_on_error,
            timeout: Some(Duration::from_secs_f64(config.timeout)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn missing_keys_have_defaults() {
        assert_eq!(plan("{}").unwrap(), Plan::CHAIN);
        assert_eq!(plan(r#"{"continue_on_error": false}"#).unwrap(), Plan { stops: true, ..Plan::CHAIN });
        let parallel = plan(r#"{"execution": "parallel", "timeout": 0.5}"#).unwrap();
        assert_eq!((parallel.execution, parallel.stops), (Execution::Parallel, false));
        assert_eq!(parallel.timeout, Some(Duration::from_millis(500)));
    }

    #[test]
    fn invalid_values_are_refused() {
        for json in [
            r#"{"timeout": 0}"#,
            r#"{"timeout": -1}"#,
            r#"{"timeout": 1e9}"#,
            r#"{"timeout": "30"}"#,
            r#"{"execution": "both"}"#,
            r#"{"continue-on-error": true}"#,
            r#"{"continue_on_error": 1}"#,
            "null",
        ] {
            assert!(plan(json).is_err(), "{json}");
        }
        assert!(Plan::try_from(ChainConfig { timeout: f64::NAN, ..ChainConfig::default() }).is_err());
    }
}
