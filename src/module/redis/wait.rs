//! The option `wait`: an event is delivered only once replicas have it, or it is synced.

use std::sync::Mutex;
use std::time::Duration;

use redis::{Value, cmd};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::client::Session;
use crate::base::lock::lock;
use crate::config::BuildError;
use crate::event::{DeliverError, DeliverErrorKind};

/// The default `timeout`.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The most `replicas`.
const MOST: u64 = 100;

/// Conditions for the delivery of an event. At least one of `replicas` and `aof` is required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisWait {
    /// How many replicas must have the event (`WAIT`); with `aof` how many must have synced it.
    pub replicas: Option<u64>,
    /// Whether the server must have synced the event (`WAITAOF`): `false` by default. Needs Redis 7.2 or Valkey, and
    /// `appendonly yes`.
    #[serde(default)]
    pub aof: bool,
    /// How many seconds to wait: 1 by default, less than the `timeout` of the connection.
    pub timeout: Option<f64>,
}

/// The checked option.
pub(super) struct Wait {
    replicas: u64,
    aof: bool,
    timeout: Duration,
    /// One permit, held by the delivery that asks the server for all that wait.
    asking: Semaphore,
    last: Mutex<Option<Round>>,
}

/// One command, for all deliveries whose events were there when it began.
struct Round {
    session: Session,
    began: Instant,
    outcome: Result<(), DeliverError>,
}

impl RedisWait {
    /// Checks the option for a connection with this `timeout`.
    pub(super) fn check(&self, longest: Duration) -> Result<Wait, BuildError> {
        let replicas = self.replicas.unwrap_or(0);
        if replicas > MOST || self.replicas == Some(0) {
            return Err(format!("`replicas` in `wait` must be from 1 to {MOST}").into());
        }
        if replicas == 0 && !self.aof {
            return Err("`wait` needs `replicas`, or `aof` with the value `true`".into());
        }
        let timeout = match self.timeout {
            None => TIMEOUT.min(longest / 2),
            Some(seconds) => {
                let timeout = Duration::try_from_secs_f64(seconds).ok();
                // The server counts milliseconds, and 0 would be for ever.
                let timeout = timeout.filter(|timeout| timeout.as_millis() > 0 && *timeout < longest);
                timeout
                    .ok_or("`timeout` in `wait` must be more than 0 and less than the `timeout` of the connection")?
            }
        };
        Ok(Wait { replicas, aof: self.aof, timeout, asking: Semaphore::new(1), last: Mutex::new(None) })
    }
}

impl Wait {
    /// Waits until what the session has written so far is as safe as the option says.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](DeliverErrorKind::Unavailable), when the conditions are not met in time; else like
    /// [`Session::query`].
    pub(super) async fn on(&self, session: &Session) -> Result<(), DeliverError> {
        let written = Instant::now();
        let _asking = self.asking.acquire().await;
        if let Some(round) = lock(&self.last).as_ref()
            && round.began >= written
            && round.session.is(session)
        {
            return round.outcome.clone();
        }
        let began = Instant::now();
        let outcome = self.ask(session).await;
        *lock(&self.last) = Some(Round { session: session.clone(), began, outcome: outcome.clone() });
        outcome
    }

    async fn ask(&self, session: &Session) -> Result<(), DeliverError> {
        let mut wait = cmd(if self.aof { "WAITAOF" } else { "WAIT" });
        if self.aof {
            wait.arg(1);
        }
        wait.arg(self.replicas).arg(self.timeout.as_millis() as u64);
        let send = |mut connection| async move { wait.query_async::<Value>(&mut connection).await };
        let (synced, replicas) = match session.query(0, send).await? {
            Value::Int(replicas) => (1, replicas),
            Value::Array(counts) => match counts[..] {
                [Value::Int(synced), Value::Int(replicas)] => (synced, replicas),
                _ => (0, 0),
            },
            _ => (0, 0),
        };
        let missing = match (synced < 1, u64::try_from(replicas).is_ok_and(|found| found >= self.replicas)) {
            (false, true) => return Ok(()),
            (true, _) => "the server has not synced it".to_owned(),
            (false, false) => format!("{replicas} of {} replicas have confirmed it", self.replicas),
        };
        let reason = format!("{}: the event was written, but within {:?} {missing}", session.server(), self.timeout);
        Err(DeliverError::new(DeliverErrorKind::Unavailable, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_waits_for_nothing_is_refused() {
        let check = |json: &str| {
            let wait: RedisWait = serde_json::from_str(json).unwrap();
            wait.check(Duration::from_secs(5)).map(|wait| wait.timeout).map_err(|error| error.to_string())
        };
        assert_eq!(check(r#"{"replicas": 1}"#), Ok(TIMEOUT));
        assert_eq!(check(r#"{"aof": true, "timeout": 0.25}"#), Ok(Duration::from_millis(250)));
        for json in [
            "{}",
            r#"{"aof": false}"#,
            r#"{"replicas": 0}"#,
            r#"{"replicas": 101}"#,
            r#"{"aof": true, "timeout": 5}"#,
            r#"{"aof": true, "timeout": 0.0001}"#,
            r#"{"aof": true, "timeout": -1}"#,
        ] {
            assert!(check(json).is_err(), "{json}");
        }
    }
}
