//! The built gateway, as a process.

mod arguments;
mod attacks;
mod certificates;
mod clients;
mod configuration;
mod dedup;
mod flood;
mod health;
mod http_rules;
mod idle;
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
