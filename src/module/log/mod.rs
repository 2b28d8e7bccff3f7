//! `log`: prints events.

mod config;
mod form;
mod layout;
mod lines;
mod render;

use http::HeaderName;
use tokio::task::spawn_blocking;

pub use self::config::LogConfig;
pub use self::lines::Lines;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The largest body, in bytes, that is rendered on the current thread, where other tasks wait for it.
const MAX_IN_PASSING: usize = 64 << 10;

/// Prints each event to stdout as JSON: on one line, or pretty.
///
/// The line holds the event's id, the webhook, the time of receipt and the payload, never the request's header fields.
///
/// JSON is printed token by token: numbers, escapes, the order of fields and repeated fields stay as they are; only the
/// whitespace between tokens changes. Fields whose name indicates a secret are redacted unless `redact_sensitive` is
/// off, and so are fields with a name longer than 1,024 bytes. Control characters are escaped, so that a payload can
/// neither forge a line nor control a terminal. A string longer than 10,000 characters is cut, and so is an event
/// longer than 64 KiB. A JSON body over 256 KiB, or one that cannot be redacted, is not printed; the line gives its
/// size. A form is printed as an object of decoded fields: the values of a repeated name become an array, and a value that
/// is a JSON object or array is printed as such. Other bodies are printed as text, with invalid UTF-8 replaced.
///
/// An event is acknowledged once it is written. While nobody reads stdout, events wait, and are refused with 504 when
/// the time for the delivery is over. When stdout is closed or `/dev/null`, or its disk is full, they are refused with
/// 503. An event whose sender has given up is not printed, unless its line is being written at that time.
#[derive(Clone, Debug)]
pub struct Log {
    config: LogConfig,
    lines: Lines,
}

impl Log {
    /// Prints to `lines`.
    pub fn new(config: LogConfig, lines: Lines) -> Self {
        Self { config, lines }
    }
}

impl Module for Log {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let config = self.config;
        let line = match delivery.body().len() <= MAX_IN_PASSING {
            true => render::render(&delivery, config),
            false => {
                let rendered = spawn_blocking(move || render::render(&delivery, config)).await;
                rendered.map_err(|_| DeliverError::new(DeliverErrorKind::Io, "the event cannot be printed"))?
            }
        };
        self.lines
            .write(&line)
            .await
            .map_err(|error| DeliverError::new(DeliverErrorKind::Io, format!("cannot write the log: {error}")))?;
        Ok(Ack::Delivered)
    }

    fn uses_header(&self, _: &HeaderName) -> bool {
        false
    }
}

impl ConfigModule for Log {
    const NAME: &'static str = "log";
    type Config = LogConfig;

    /// Prints to a stdout of its own; the `log` of [`Registry::builtin`](crate::Registry::builtin) is shared
    /// by all webhooks.
    fn build(config: LogConfig, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self::new(config, Lines::stdout()))
    }
}
