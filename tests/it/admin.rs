//! The admin service: each route, its tokens and its bounds, in process and mounted.

mod bounds;
mod described;
mod mounted;
mod namespaces;
mod routes;
mod webhooks;
mod world;
