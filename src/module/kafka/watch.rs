//! Watches a producer: whether it reaches a broker, and the last error that it told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::error::{bounded, kind};
use crate::base::lock::lock;
use crate::event::DeliverError;

/// What a producer has told about its brokers. librdkafka calls it from a thread of its own.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Whether a broker is connected, as of the last statistics.
    is_up: AtomicBool,
    /// Whether the producer has failed for good, and a new one is needed.
    is_dead: AtomicBool,
    /// The last error since a broker was connected.
    error: Mutex<Option<DeliverError>>,
    /// Whether a broker has refused the client, or the client its certificate, since then.
    is_refused: AtomicBool,
    /// Notified of every change.
    changed: Notify,
}

/// The part of librdkafka's statistics that tells whether a broker is connected.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    state: String,
}

impl Watch {
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    /// Resolves when a broker is connected. Returns an error that makes waiting useless: the broker refuses the client.
    pub(super) async fn up(&self) -> Result<(), DeliverError> {
        loop {
            let changed = self.changed.notified();
            if self.is_up() {
                return Ok(());
            }
            if self.is_refused.load(Ordering::Acquire)
                && let Some(error) = self.error()
            {
                return Err(error);
            }
            changed.await;
        }
    }

    /// Resolves when no broker has been connected for as long as `patience`.
    pub(super) async fn lost(&self, patience: Duration) {
        loop {
            let changed = self.changed.notified();
            match self.is_up() {
                true => changed.await,
                false if timeout(patience, self.up()).await.is_ok_and(|up| up.is_ok()) => {}
                false => return,
            }
        }
    }

    /// The last error since a broker was connected.
    pub(super) fn error(&self) -> Option<DeliverError> {
        lock(&self.error).clone()
    }

    fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Release);
        if is_up {
            self.is_refused.store(false, Ordering::Release);
            *lock(&self.error) = None;
        }
        self.changed.notify_waiters();
    }

    fn measured(&self, statistics: &[u8]) {
        let Ok(Statistics { brokers }) = serde_json::from_slice(statistics) else { return };
        self.set_up(brokers.values().any(|broker| broker.state == "UP"));
    }

    fn failed(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        if code == Code::Fatal {
            self.is_dead.store(true, Ordering::Release);
        }
        if code == Code::AllBrokersDown {
            // The next statistics may come too late for a message that is sent meanwhile.
            self.is_up.store(false, Ordering::Release);
        }
        let new = DeliverError::new(kind(code), bounded(reason));
        {
            let mut last = lock(&self.error);
            // "All brokers are down" follows each error, and says less.
            if code != Code::AllBrokersDown || last.is_none() {
                *last = Some(new);
            }
        }
        if matches!(code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) {
            self.is_refused.store(true, Ordering::Release);
        }
        self.changed.notify_waiters();
    }
}

/// Tells a [`Watch`] what librdkafka calls back.
pub(super) struct Callbacks(pub(super) Arc<Watch>);

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "tower_webhook::kafka", ?level, facility, message = bounded(message), "librdkafka");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.0.measured(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.failed(&error, reason);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::event::DeliverErrorKind;

    #[test]
    fn a_connected_broker_forgets_the_error_and_a_refusal_ends_the_wait() {
        let watch = Watch::default();
        assert!(watch.up().now_or_never().is_none());
        watch.failed(&KafkaError::Global(Code::BrokerTransportFailure), "no route");
        watch.failed(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(watch.error().unwrap().to_string(), "no route");
        assert!(watch.up().now_or_never().is_none(), "librdkafka connects again");
        watch.failed(&KafkaError::Global(Code::Authentication), "no such user");
        assert_eq!(watch.up().now_or_never().unwrap().unwrap_err().kind(), DeliverErrorKind::Auth);
        watch.measured(br#"{"name": "x", "brokers": {"a:1/bootstrap": {"state": "DOWN"}, "a:1/1": {"state": "UP"}}}"#);
        assert!(watch.is_up() && watch.error().is_none() && watch.up().now_or_never().unwrap().is_ok());
        watch.measured(br#"{"brokers": {"a:1/1": {"state": "CONNECT"}}}"#);
        watch.measured(b"no JSON");
        assert!(!watch.is_up() && !watch.is_dead());
        watch.failed(&KafkaError::Global(Code::Fatal), "sequence");
        assert!(watch.is_dead());
    }
}
