//! The built gateway, as a process.

mod arguments;
mod certificates;
mod configuration;
mod dedup;
mod flood;
mod health;
mod http_rules;
mod limits;
mod lines;
mod linger;
mod loops;
mod modules;
mod operator;
mod protocols;
mod readers;
mod reload;
mod routes;
mod sockets;
mod start;
mod stderr;
mod stdout;
mod stop;
mod waiting;

// Pure parts of the gateway, whose unit tests run here: an example has none of its own.
#[path = "../../examples/gateway/endpoint.rs"]
mod endpoint;
#[path = "../../examples/gateway/misspelt.rs"]
mod misspelt;
#[path = "../../examples/gateway/open_files.rs"]
mod open_files;
#[path = "../../examples/gateway/units.rs"]
mod units;
