//! `discard`: accepts events and drops them.

use std::future::{Future, ready};

use http::HeaderName;
use serde::Deserialize;

use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, Delivery};

/// Accepts every event and drops it, for load tests and dry runs. It has no options.
#[derive(Clone, Copy, Debug)]
pub struct Discard;

/// The options of [`Discard`]: none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardConfig {}

impl Module for Discard {
    fn deliver(&self, _: Delivery) -> impl Future<Output = Result<Ack, DeliverError>> + Send {
        ready(Ok(Ack::Delivered))
    }

    fn uses_header(&self, _: &HeaderName) -> bool {
        false
    }
}

impl ConfigModule for Discard {
    const NAME: &'static str = "discard";
    type Config = DiscardConfig;

    fn build(_: DiscardConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self)
    }
}
