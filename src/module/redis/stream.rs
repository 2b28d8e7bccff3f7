//! `redis_stream`: appends events to a stream.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use redis::Cmd;
use serde::Deserialize;

use super::connection::RedisConnection;
use super::wait::{RedisWait, Wait};
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, Delivery};
use crate::module::broker::{Properties, REDIS_NAME, Template, forward, uses};
use crate::module::connection::Shared;
use crate::module::forward::Forward;
use crate::module::{ConfigModule, Module};

/// The arguments, and their bytes beside the body, for which a command has room at once.
const ARGUMENTS: usize = 32;
const ROOM: usize = 512;

/// Appends each event to a stream of Redis (`XADD`), with its body byte for byte.
///
/// An event is delivered once the server has answered with the id of the entry. The server's `appendonly` and `appendfsync`
/// decide how safe it is then: with `always` it is synced, with `everysec` a crash of the machine may lose
/// the last second, and without `appendonly` a restart loses all since the last snapshot. With `wait` an event is
/// delivered only once replicas have it, or it is synced.
///
/// # The entry
///
/// | field | |
/// |---|---|
/// | `id` | the event's id: a repeat has the same |
/// | `body` | the body |
/// | `namespace`, `webhook` | the webhook |
/// | `received_at` | when the event was received: RFC 3339, UTC, milliseconds |
/// | `content_type`, `content_encoding` | as received, if the request had them |
/// | `traceparent`, `tracestate` | as received, if the first is valid |
/// | `header:…` | the received fields that `forward_headers` and `allowed_headers` send on, such as `header:x-github-event`; one entry for each value |
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no connection, TLS failed, or the connection broke before the answer | [`Connect`](crate::event::DeliverErrorKind::Connect) |
/// | no answer within `timeout` of the connection; a server that accepts a connection and is silent | [`Timeout`](crate::event::DeliverErrorKind::Timeout) |
/// | the server refuses the user or the password (`WRONGPASS`, `NOAUTH`) | [`Auth`](crate::event::DeliverErrorKind::Auth) |
/// | the server loads its data (`LOADING`), is a replica (`READONLY`, `MASTERDOWN`), has no memory left (`OOM`), no disk (`MISCONF`) or too many clients; too few replicas confirmed a `wait` | [`Unavailable`](crate::event::DeliverErrorKind::Unavailable) |
/// | an ACL forbids it (`NOPERM`); the name belongs to another type (`WRONGTYPE`); the server is of a cluster and another node has the name (`MOVED`); it does not know the command, such as `WAITAOF` before 7.2; the policy allows no address | [`Config`](crate::event::DeliverErrorKind::Config) |
/// | the event is larger than the server's `proto-max-bulk-len`; a header in `stream` is missing or does not fit | [`Permanent`](crate::event::DeliverErrorKind::Permanent) |
///
/// # Repetitions
///
/// If an attempt ends without an answer, the event may be in the stream, and another attempt appends it again, with the
/// same `id`.
#[derive(Clone)]
pub struct RedisStream {
    connection: Shared<RedisConnection>,
    target: Arc<Target>,
}

/// The options of [`RedisStream`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisStreamConfig {
    /// The stream: a text with `{namespace}`, `{webhook}` and `{header:X}`. The server makes a missing one.
    pub stream: String,
    /// About how many entries the stream keeps (`MAXLEN ~`): older ones are removed, read or not. By default all.
    pub maxlen: Option<u64>,
    /// Conditions for the delivery beside the answer of the server. By default none.
    pub wait: Option<RedisWait>,
    /// Whether the entry has the received header fields: `false` by default.
    #[serde(default)]
    pub forward_headers: bool,
    /// With `forward_headers`: only these fields. By default all except credentials.
    pub allowed_headers: Option<Vec<String>>,
}

struct Target {
    stream: Template,
    maxlen: Option<u64>,
    wait: Option<Wait>,
    forward: Forward,
}

impl RedisStream {
    fn new(
        connection: Shared<RedisConnection>,
        config: &RedisStreamConfig,
        cx: &BuildContext<'_>,
    ) -> Result<Self, BuildError> {
        if config.maxlen == Some(0) {
            return Err("`maxlen` must be at least 1".into());
        }
        let target = Target {
            stream: Template::compile("stream", &config.stream, REDIS_NAME, cx.webhook())?,
            maxlen: config.maxlen,
            wait: config.wait.as_ref().map(|wait| wait.check(connection.kind().timeout())).transpose()?,
            forward: forward(config.forward_headers, config.allowed_headers.as_deref())?,
        };
        Ok(Self { connection, target: Arc::new(target) })
    }
}

impl Module for RedisStream {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let append = self.target.append(&delivery)?;
        let bytes = delivery.body().len();
        let send = |mut connection| async move { append.query_async::<redis::Value>(&mut connection).await };
        let client = self.connection.client().await?;
        match &self.target.wait {
            None => drop(client.session().await?.query(bytes, send).await?),
            Some(wait) => {
                // The server waits for what this very session has written.
                let session = client.blocking().session().await?;
                session.query(bytes, send).await?;
                wait.on(&session).await?;
            }
        }
        Ok(Ack::Delivered)
    }

    fn target(&self) -> Option<String> {
        Some(self.target.stream.to_string())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.stream.uses(name) || uses(&self.target.forward, name)
    }
}

impl ConfigModule for RedisStream {
    const NAME: &'static str = "redis_stream";
    type Config = RedisStreamConfig;

    fn build(config: RedisStreamConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(cx.connection()?, &config, cx)
    }
}

impl Target {
    fn append(&self, delivery: &Delivery) -> Result<Cmd, DeliverError> {
        let mut append = Cmd::with_capacity(ARGUMENTS, delivery.body().len() + ROOM);
        append.arg("XADD").arg(&*self.stream.fill(delivery)?);
        if let Some(maxlen) = self.maxlen {
            append.arg("MAXLEN").arg("~").arg(maxlen);
        }
        let properties = Properties::of(delivery, &self.forward);
        append.arg("*").arg("id").arg(properties.id()).arg("body").arg(&**delivery.body());
        append.arg("namespace").arg(properties.namespace).arg("webhook").arg(properties.webhook);
        append.arg("received_at").arg(&properties.received_at);
        for (name, value) in [
            ("content_type", properties.content_type),
            ("content_encoding", properties.content_encoding.as_deref()),
            ("traceparent", properties.traceparent),
            ("tracestate", properties.tracestate.as_deref()),
        ] {
            if let Some(value) = value {
                append.arg(name).arg(value);
            }
        }
        for (name, value) in &properties.forwarded {
            append.arg(format!("header:{name}")).arg(value.as_bytes());
        }
        Ok(append)
    }
}

impl fmt::Debug for RedisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStream").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataType, WebhookKey};
    use crate::module::broker::envelope::tests::delivery;

    fn arguments(target: &Target, delivery: &Delivery) -> Vec<Vec<u8>> {
        let packed = target.append(delivery).unwrap().get_packed_command();
        // "$5\r\nhello\r\n" for each argument.
        let mut rest = &packed[packed.iter().position(|&byte| byte == b'$').unwrap()..];
        let mut arguments = Vec::new();
        while let Some(after) = rest.strip_prefix(b"$") {
            let end = after.iter().position(|&byte| byte == b'\r').unwrap();
            let length: usize = std::str::from_utf8(&after[..end]).unwrap().parse().unwrap();
            arguments.push(after[end + 2..end + 2 + length].to_vec());
            rest = &after[end + 4 + length..];
        }
        arguments
    }

    fn target(stream: &str, maxlen: Option<u64>, forwards: bool) -> Target {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let stream = Template::compile("stream", stream, REDIS_NAME, &webhook).unwrap();
        Target { stream, maxlen, wait: None, forward: forward(forwards, None).unwrap() }
    }

    #[test]
    fn an_entry_has_the_event_and_its_origin() {
        let headers = [("content-type", "text/plain"), ("x-tag", "a"), ("x-tag", "b"), ("cookie", "s3cret")];
        let delivery = delivery(DataType::Blob, &headers, b"\0\r\n\xff");
        let found = arguments(&target("{namespace}:{webhook}:x", Some(1000), true), &delivery);
        let id = delivery.id().to_string();
        let at = crate::base::rfc3339::format(delivery.received_at());
        let expected: [&[u8]; 22] = [
            b"XADD",
            b"shop:orders:x",
            b"MAXLEN",
            b"~",
            b"1000",
            b"*",
            b"id",
            id.as_bytes(),
            b"body",
            b"\0\r\n\xff",
            b"namespace",
            b"shop",
            b"webhook",
            b"orders",
            b"received_at",
            at.as_bytes(),
            b"content_type",
            b"text/plain",
            b"header:x-tag",
            b"a",
            b"header:x-tag",
            b"b",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_header_in_the_name_of_the_stream_cannot_lead_elsewhere() {
        let target = target("tenant:{header:x-tenant}:events", None, false);
        let tenant = |value| delivery(DataType::Json, &[("x-tenant", value)], b"{}");
        assert_eq!(arguments(&target, &tenant("a"))[1], b"tenant:a:events");
        for value in ["a:b", "{a}", "a b", ""] {
            assert_eq!(target.append(&tenant(value)).err().unwrap().kind().label(), "permanent", "{value}");
        }
    }
}
