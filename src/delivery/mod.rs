//! Delivers an event to the modules of its webhook: attempts, retries, limits and chains.

mod clean;
mod counters;
mod gate;
pub(crate) mod lines;
mod metrics;
mod plan;
mod report;
mod retry;
mod steps;
#[cfg(test)]
mod tests;
pub(crate) mod try_until;

pub(crate) use self::clean::Cleanup;
pub use self::counters::{CountBy, WebhookCounters};
pub(crate) use self::gate::{Crowded, Gates, NamespaceGates};
pub(crate) use self::lines::Line;
pub(crate) use self::plan::Plan;
pub(crate) use self::report::Reports;
pub(crate) use self::retry::{Retry, RetryConfig};
pub(crate) use self::steps::{Failure, Step, Steps};

pub(crate) use self::try_until::DEFAULT_DEADLINE;
pub(crate) use self::try_until::{NotDelivered, try_once, try_until};
