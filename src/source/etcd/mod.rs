//! Configuration from etcd.
//!
//! All keys under the prefix are read in pages at one revision R, then watched from R + 1. The [`machine`] decides what
//! to do next, without clock or network; the [`driver`] executes its commands; only [`client`] speaks etcd's protocol.

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
/// * Each revision of etcd becomes visible as a whole, even if a transaction changes many keys. None is lost or applied
///   twice: after a disconnection the watch resumes after the last applied revision. If that revision has been
///   compacted, everything is read again.
/// * Silence is not trusted: HTTP/2 keepalive detects a dead peer, and every 10 s a linearizable read on a second
///   connection proves that the configuration is what etcd holds. A lost change is found even if keys change all the
///   time: the number of keys is compared at the revision of etcd's answer, and up to 1000 keys that changed since the
///   last proof are compared by revision.
/// * Revisions are not trusted either: an etcd that was wiped and filled again by the same script has the same
///   revisions. On each new connection, and every ten minutes, every value is compared by digest (16 bytes per key are
///   kept), in pages with pauses in proportion to the time that they took. A difference means another history.
///   Staleness grows until the comparison has succeeded.
/// * While etcd is unreachable, the last configuration is served, and the source reconnects with jittered backoff, each
///   time to the next endpoint.
#[derive(Clone, Debug)]
pub struct EtcdSource {
    options: EtcdOptions,
}

impl EtcdSource {
    /// Makes a source from `options`.
    ///
    /// # Errors
    ///
    /// When the options could never work: no endpoint, an endpoint that is not a URL, half of a certificate pair, or a
    /// prefix that is probably a mistake.
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
