//! The interface of a source of configuration.

use std::future::Future;

use super::Feed;

/// Delivers configuration to a [`Feed`].
pub trait Source: Send + 'static {
    /// The kind of the source, for status pages.
    const NAME: &'static str;

    /// Delivers everything, then every change, for as long as there may be one. An error does not end it: it keeps
    /// trying, and reports the error with [`Feed::state`].
    fn run(self, feed: Feed) -> impl Future<Output = ()> + Send;
}
