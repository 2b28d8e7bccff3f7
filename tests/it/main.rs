//! The layers as an application uses them, and the gateway as a process.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::assertions_on_constants)] // compile-time properties are asserted as constants

mod admin;
mod assembly;
mod axum;
mod call_auth;
mod examples;
mod floors;
mod gateway;
mod http_webhook;
mod hyper;
mod layer_order;
mod layers;
mod named_tests;
mod old_service;
mod own_module;
mod queue;
mod receiver;
mod recording;
mod secrets;
mod signers;
mod support;
mod surface;
mod tonic;
