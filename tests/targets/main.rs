//! The modules for brokers, against real servers: README.md says what is tested, and how a module is added.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod activemq;
mod chain;
mod kafka;
mod mqtt;
mod nats;
mod rabbitmq;
mod redis;
mod rotation;
// Each module uses what its server can do.
#[allow(dead_code)]
mod suite;
#[allow(dead_code)]
mod support;
mod websocket;
mod zeromq;
