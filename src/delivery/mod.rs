//! How an event gets to the modules of its webhook: attempts, and what follows from one that failed.

mod retry;
mod steps;

pub(crate) use self::retry::Retry;
pub(crate) use self::steps::{Done, Failure, Step, Steps};
