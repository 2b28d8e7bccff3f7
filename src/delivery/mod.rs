//! How an event gets to the modules of its webhook: attempts, and what follows from one that failed.

mod retry;
#[cfg(feature = "spool")]
mod schedule;
mod steps;
#[cfg(feature = "spool")]
mod worker;

pub(crate) use self::retry::Retry;
pub(crate) use self::steps::{Done, Failure, Step, Steps};
#[cfg(feature = "spool")]
pub use self::worker::Worker;
