//! `redis_rq`: enqueues events as jobs of RQ.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderName;
use redis::{Pipeline, pipe};
use serde::Deserialize;

use super::connection::RedisConnection;
use super::job;
use crate::base::rfc3339;
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, Delivery};
use crate::module::broker::{Properties, REDIS_NAME, Template, envelope, forward, uses};
use crate::module::connection::Shared;
use crate::module::forward::Forward;
use crate::module::{ConfigModule, Module};

/// The default `queue_name`.
const QUEUE: &str = "default";

/// The default `timeout`. RQ has the same.
const TIMEOUT: u64 = 180;

/// The longest `timeout`, in seconds: a day.
const LONGEST: u64 = 24 * 3600;

/// The longest `function`, in bytes.
const MAX_FUNCTION: usize = 512;

/// Enqueues each event as a job of [RQ](https://python-rq.org): a worker calls `function(payload, headers)`.
///
/// An event is delivered once the server has answered the transaction (`MULTI`) that stores the job and puts it into the
/// queue. The server's persistence decides how safe the job is then, as for [`redis_stream`](super::RedisStream). The
/// module does not wait for a worker.
///
/// # The job
///
/// Its id is the event's id. `payload` is the result of Python's `json.loads` for the body of a `json` webhook, a `str` for
/// a `form`, and `bytes` for a `blob`. `headers` is a `dict` of the received header fields that are sent on, with names
/// in lower case, and `x-event-id`, `x-namespace`, `x-webhook` and `x-received-at`.
///
/// Workers read pickles unless they were started with another serializer. With `"serializer": "json"` the job is for
/// workers with RQ's `JSONSerializer`; the payload of a `blob` is then a string in Base64.
///
/// [Errors](super::RedisStream#errors) are those of `redis_stream`.
///
/// # Repetitions
///
/// If an attempt ends without an answer, the job may be in the queue, and another attempt enqueues it again under the same
/// id: the function may then be called twice, with the same `x-event-id`.
#[derive(Clone)]
pub struct RedisRq {
    connection: Shared<RedisConnection>,
    target: Arc<Target>,
}

/// The options of [`RedisRq`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisRqConfig {
    /// The queue: `default` if it is missing. A text with `{namespace}`, `{webhook}` and `{header:X}`.
    pub queue_name: Option<String>,
    /// The Python function, with its module: `shop.tasks.handle_order`.
    pub function: String,
    /// How the job is written: `pickle` by default, or `json`.
    #[serde(default)]
    pub serializer: RqSerializer,
    /// How many seconds a worker gives the function: 180 by default, at most a day.
    pub timeout: Option<u64>,
    /// Whether `headers` has the received header fields: `true` by default.
    #[serde(default = "yes")]
    pub forward_headers: bool,
    /// With `forward_headers`: only these fields. By default all except credentials.
    pub allowed_headers: Option<Vec<String>>,
}

/// The format of a job.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RqSerializer {
    /// The default of workers.
    #[default]
    Pickle,
    /// For workers with `JSONSerializer`.
    Json,
}

fn yes() -> bool {
    true
}

struct Target {
    queue: Template,
    function: String,
    serializer: RqSerializer,
    /// In seconds, as a text.
    timeout: String,
    forward: Forward,
}

impl RedisRq {
    fn new(
        connection: Shared<RedisConnection>,
        config: RedisRqConfig,
        cx: &BuildContext<'_>,
    ) -> Result<Self, BuildError> {
        Ok(Self { connection, target: Arc::new(Target::new(config, cx)?) })
    }
}

impl Target {
    fn new(config: RedisRqConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let timeout = config.timeout.unwrap_or(TIMEOUT);
        if !(1..=LONGEST).contains(&timeout) {
            return Err(format!("`timeout` must be from 1 to {LONGEST} seconds").into());
        }
        if !is_function(&config.function) {
            return Err("`function` must be a Python function with its module, such as `shop.tasks.handle`".into());
        }
        let queue = config.queue_name.as_deref().unwrap_or(QUEUE);
        Ok(Self {
            queue: Template::compile("queue_name", queue, REDIS_NAME, cx.webhook())?,
            function: config.function,
            serializer: config.serializer,
            timeout: timeout.to_string(),
            forward: forward(config.forward_headers, config.allowed_headers.as_deref())?,
        })
    }

    /// The transaction, and the length of the job.
    fn enqueue(&self, delivery: &Delivery) -> Result<(Pipeline, usize), DeliverError> {
        let queue = self.queue.fill(delivery)?;
        let properties = Properties::of(delivery, &self.forward);
        let headers = envelope::headers(&properties);
        let (data_type, body) = (delivery.webhook().data_type(), delivery.body());
        let call = match self.serializer {
            RqSerializer::Pickle => job::pickled,
            RqSerializer::Json => job::json,
        };
        let call = call(&self.function, data_type, body, &headers);
        let (id, now) = (properties.id(), microseconds(SystemTime::now()));
        let (key, list) = (format!("rq:job:{id}"), format!("rq:queue:{queue}"));
        let mut transaction = pipe();
        transaction.atomic().cmd("SADD").arg("rq:queues").arg(&list).ignore();
        transaction.cmd("HSET").arg(&key);
        for (name, value) in [
            ("created_at", now.as_bytes()),
            ("enqueued_at", now.as_bytes()),
            ("data", &call),
            ("origin", queue.as_bytes()),
            ("description", self.function.as_bytes()),
            ("timeout", self.timeout.as_bytes()),
            ("status", b"queued"),
            ("started_at", b""),
            ("ended_at", b""),
            ("last_heartbeat", b""),
            ("worker_name", b""),
        ] {
            transaction.arg(name).arg(value);
        }
        transaction.ignore();
        // A job that a worker has finished expires; this one must not.
        transaction.cmd("PERSIST").arg(&key).ignore();
        transaction.cmd("RPUSH").arg(&list).arg(id);
        Ok((transaction, call.len()))
    }
}

impl Module for RedisRq {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let (transaction, bytes) = self.target.enqueue(&delivery)?;
        let send = |mut connection| async move { transaction.query_async::<redis::Value>(&mut connection).await };
        self.connection.client().await?.session().await?.query(bytes, send).await?;
        Ok(Ack::Delivered)
    }

    fn target(&self) -> Option<String> {
        Some(self.target.queue.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.queue.uses(name) || uses(&self.target.forward, name)
    }
}

impl ConfigModule for RedisRq {
    const NAME: &'static str = "redis_rq";
    type Config = RedisRqConfig;

    fn build(config: RedisRqConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(cx.connection()?, config, cx)
    }
}

/// Whether the text is a path of Python's names: at least a module and a function.
fn is_function(text: &str) -> bool {
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    text.len() <= MAX_FUNCTION && text.contains('.') && text.split('.').all(is_name)
}

/// The time as RQ writes it: UTC with microseconds, `2026-11-27T00:30:00.500000Z`.
fn microseconds(time: SystemTime) -> String {
    let mut text = rfc3339::format(time);
    text.truncate(text.len() - 1);
    text.push_str("000Z");
    text
}

impl fmt::Debug for RedisRq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRq")
            .field("connection", &self.connection)
            .field("function", &self.target.function)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookKey;

    fn target(json: &str) -> Result<Target, String> {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        Target::new(serde_json::from_str(json).unwrap(), &BuildContext::bare(&webhook))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_function_is_named_with_its_module() {
        for function in ["tasks.handle", "a.b_c.D1", "_a._b"] {
            assert!(target(&format!(r#"{{"function": {function:?}}}"#)).is_ok(), "{function}");
        }
        for function in ["", "handle", "a.", ".a", "a..b", "a.b()", "a.1b", "os.system; x", "a.\u{e9}", "a b.c"] {
            assert!(target(&format!(r#"{{"function": {function:?}}}"#)).is_err(), "{function}");
        }
        for json in [r#"{"function": "a.b", "timeout": 0}"#, r#"{"function": "a.b", "queue_name": ""}"#] {
            assert!(target(json).is_err(), "{json}");
        }
    }

    #[test]
    fn times_are_as_rq_writes_them() {
        assert_eq!(microseconds(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }
}
