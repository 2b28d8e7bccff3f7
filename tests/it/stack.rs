//! The whole receiver, in process.

mod chain;
mod cleanup;
mod configuration;
mod dedup;
mod delivery;
mod finish;
mod incremental;
mod lines;
mod refusals;
mod retry;
