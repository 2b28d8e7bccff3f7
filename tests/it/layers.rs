//! Each layer alone in front of a mock, which panics when it is called without having been polled ready.

mod collect_body;
mod contract;
mod dedup;
mod refusals;
