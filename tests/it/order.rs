//! A stack in a wrong order, or with a layer missing, refuses or does not compile; it never lets a stranger in.

mod dedup;
mod permits;
mod sequences;
mod types;
