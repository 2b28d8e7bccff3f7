//! The built gateway, as a process.

mod configuration;
mod dedup;
mod http_rules;
mod limits;
mod lines;
mod modules;
mod protocols;
mod reload;
mod routes;
mod start;
mod stderr;
mod stop;
