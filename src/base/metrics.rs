//! Metrics, through the `metrics` facade. Without the feature `metrics` they record nothing.
//!
//! Each subject has a file `metrics.rs` with the names, the labels and the meaning of its metrics. Labels have a bounded
//! number of values: never text from a request. A webhook's name is a label only in the metrics that
//! [`WebhookCounters`](crate::delivery::WebhookCounters) counts, whose series are bounded. `help.rs` has a text for each
//! metric.

#[cfg(feature = "metrics")]
pub(crate) use ::metrics::{Counter, Histogram, counter, gauge, histogram};

#[cfg(not(feature = "metrics"))]
pub(crate) use self::nothing::{
    Nothing, Nothing as Counter, Nothing as Histogram, nothing as counter, nothing as gauge, nothing as histogram,
};

/// Whether anything is recorded.
pub(crate) const ENABLED: bool = cfg!(feature = "metrics");

#[cfg(feature = "metrics")]
mod help;

#[cfg(feature = "metrics")]
pub use self::help::describe_metrics;

#[cfg(not(feature = "metrics"))]
mod nothing {
    /// Stands in for a counter, a gauge or a histogram.
    #[derive(Clone, Copy)]
    pub(crate) struct Nothing;

    impl Nothing {
        pub(crate) fn increment(self, _: u64) {}

        pub(crate) fn absolute(self, _: u64) {}

        pub(crate) fn set(self, _: f64) {}

        pub(crate) fn record<T>(self, _: T) {}
    }

    macro_rules! nothing {
        ($name:expr $(, $label:expr => $value:expr)*) => {{
            $(let _ = || $value;)*
            $crate::base::metrics::Nothing
        }};
    }
    pub(crate) use nothing;
}
