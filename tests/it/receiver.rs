//! The whole receiver, in process.

mod chain;
mod configuration;
mod connections;
mod credential_cleanup;
mod dedup;
mod delivery;
mod finish;
mod forms;
mod guards;
mod handshakes;
mod incremental;
mod live_source;
mod log_lines;
mod refusals;
mod retry;
