//! No acknowledged event is lost: real processes, real signals, real sockets. README.md says which test proves what.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod clocks;
mod dead_letters;
mod dedup;
mod full;
mod hang_ups;
mod history;
mod kills;
mod memory;
mod neighbours;
mod order;
mod stop;
mod support;
mod targets;
