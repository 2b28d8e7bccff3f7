//! The whole receiver, in process.

mod configuration;
mod delivery;
mod incremental;
mod refusals;
mod retry;
