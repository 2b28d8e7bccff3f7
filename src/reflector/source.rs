//! What brings the configuration.

use std::future::Future;

use super::Feed;

/// Brings configuration to a [`Feed`].
pub trait Source: Send + 'static {
    /// The kind of the source, for status pages.
    const NAME: &'static str;

    /// Brings everything, then every change, for as long as there may be one. It never ends for an error: it keeps
    /// trying, and reports that with [`Feed::state`].
    fn run(self, feed: Feed) -> impl Future<Output = ()> + Send;
}
