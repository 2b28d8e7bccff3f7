//! Configuration from etcd.
//!
//! All keys under the prefix are read in pages at one revision R, then watched from R + 1. What decides what to do next
//! is the [`machine`], which has neither clock nor network; the [`driver`] does it; only [`client`] speaks etcd's
//! protocol.

mod client;
mod driver;
mod health;
mod machine;
mod options;
mod publish;
mod saved;
mod tls;

#[cfg(fuzzing)]
pub(crate) use self::saved::fuzz;

pub use self::options::{EtcdOptions, InvalidOptions};
pub use self::tls::{BadTlsFile, EtcdTls, TlsFile};
use crate::reflector::{Feed, Source};

/// Follows the keys under a prefix in etcd 3.4 or newer.
///
/// * One revision of etcd becomes visible at once, also when a transaction changes many keys. None is lost and none is
///   seen twice: after a break the watch goes on behind the last revision that was applied; when that has been compacted,
///   everything is read again.
/// * Silence is not believed: HTTP/2 keepalive finds a dead peer, and every 10 s a linearizable read on a second
///   connection proves that what is served is what etcd holds. Keys that change all the time hide no loss: the number of keys
///   is compared at the revision of etcd's answer, and up to 1000 keys that changed since the last proof are compared by
///   their revisions.
/// * Revisions are not believed either: an etcd that was wiped, and written by the same script again, has the same. On each
///   new connection, and every ten minutes, each value is compared by digest (16 bytes are kept for each key), in pages with
///   pauses in proportion to the time that they took. A difference is another history. Staleness grows until the comparison
///   has held.
/// * While etcd is away the last configuration is served, and the source reconnects with jittered backoff, each time to
///   the next endpoint.
#[derive(Clone, Debug)]
pub struct EtcdSource {
    options: EtcdOptions,
}

impl EtcdSource {
    /// Follows what `options` say.
    ///
    /// # Errors
    ///
    /// When they could never work: no endpoint, one that is no URL, half of a certificate pair, a prefix that no key can
    /// be meant to have.
    pub fn new(options: EtcdOptions) -> Result<Self, InvalidOptions> {
        options.validate()?;
        Ok(Self { options })
    }
}

impl Source for EtcdSource {
    const NAME: &'static str = "etcd";

    async fn run(self, feed: Feed) {
        driver::run(self.options, feed).await;
    }
}
