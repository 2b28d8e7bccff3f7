//! The etcd source against real etcd processes.
//!
//! `ETCD_35` and `ETCD_34` name the servers' binaries; `make test` installs both. Every test runs against each.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod auth;
mod breaks;
mod cluster;
mod compaction;
mod fleet;
mod follow;
mod history;
mod keys;
mod lost;
mod members;
mod network;
mod process;
mod proof;
mod restore;
mod rotation;
mod saved;
mod scale;
mod server;
mod speed;
mod support;
mod tls;
mod values;
