//! `discard`: takes and drops.

use std::future::{Future, ready};

use serde::Deserialize;

use super::Module;
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, Delivery};

/// Takes every event and drops it, for load tests and dry runs. It has no options.
#[derive(Clone, Copy, Debug)]
pub struct Discard;

/// Nothing can be said to [`Discard`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardConfig {}

impl Module for Discard {
    const NAME: &'static str = "discard";

    type Config = DiscardConfig;

    fn build(_: DiscardConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self)
    }

    fn deliver(&self, _: Delivery) -> impl Future<Output = Result<Ack, DeliverError>> + Send {
        ready(Ok(Ack::Delivered))
    }
}
