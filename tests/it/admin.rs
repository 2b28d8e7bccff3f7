//! The admin service: each route, its tokens and its bounds, in process and mounted.

mod bounds;
mod described;
mod memory;
mod mounted;
mod namespaces;
mod routes;
mod world;
