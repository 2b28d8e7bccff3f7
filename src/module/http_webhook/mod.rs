//! `http_webhook`: sends events on by HTTP.

mod answer;
mod bounds;
mod config;
mod connection;
mod egress;
mod fields;
mod hops;
mod path;
mod send;
mod signature;
mod trace;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::Full;
use tokio::time::timeout;

use self::config::limit;
pub use self::config::{HttpMethod, HttpWebhookConfig};
pub use self::connection::{HttpConnection, HttpConnectionConfig};
use self::egress::ON_BEHALF_OF;
pub use self::egress::{Egress, EgressPolicy, InvalidEgress};
use self::fields::{Fields, Forward};
use self::signature::SigningKey;
#[cfg(fuzzing)]
pub(crate) use self::trace::fuzz as fuzz_trace;
#[cfg(fuzzing)]
pub(crate) use self::url::fuzz as fuzz_url;
use super::Module;
use super::connection::Shared;
use crate::config::{BuildContext, BuildError};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The `timeout` if nothing says another.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends each event to a URL, its body byte for byte, and takes 2xx for an answer.
///
/// # The request
///
/// | field | |
/// |---|---|
/// | `content-type`, `content-encoding` | as received |
/// | `x-event-id` | the event's id, the same at each attempt and as in the answer to the sender |
/// | `x-attempt` | which attempt this is, from 1 |
/// | `x-webhook-hops` | how many webhooks the event has passed, this one among them: one more than was received |
/// | `x-received-at` | when the event was received: RFC 3339, UTC, milliseconds |
/// | `traceparent`, `tracestate` | as received, if the first is valid ([W3C](https://www.w3.org/TR/trace-context/)) |
/// | `webhook-id`, `webhook-timestamp`, `webhook-signature` | with `signing_secret`: the event's id, the time of the attempt, and `v1` of [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md) over both and the body |
/// | `user-agent` | as received, if `forward_headers` lets it through; else `tower-webhook/` and the version |
///
/// Then come the received fields that `forward_headers` and `allowed_headers` let through. Never sent on is what
/// belongs to the sender's connection (RFC 9110 §7.6.1, also what its `Connection` names), `host`, `content-length` and
/// `expect`; with `signing_secret` the fields `webhook-*` and `svix-*`; and `authorization`, `cookie` and `proxy-authorization` only if `allowed_headers` names them. `headers`
/// win over all of these but `x-event-id`, `x-attempt`, `x-received-at`, `x-webhook-hops` and the signature.
///
/// # Loops
///
/// Webhooks that send to each other would send an event round for ever. So an event that has passed 8 webhooks is not
/// sent on: [`Loop`](DeliverErrorKind::Loop), for which a sender gets 508, and which is
/// never tried again. `x-webhook-hops` of the received request says how many it has passed: of several numbers,
/// in one field or in many, the largest. What is no number counts as 8.
///
/// # The answer
///
/// | answer | kind of error |
/// |---|---|
/// | 2xx | none: delivered |
/// | 429 | [`Throttled`](DeliverErrorKind::Throttled) |
/// | 508 | [`Loop`](DeliverErrorKind::Loop) |
/// | any other 5xx, 425 | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | 408, or none within `timeout`; no connection within 10 s | [`Timeout`](DeliverErrorKind::Timeout) |
/// | 401, 403, 407 | [`Auth`](DeliverErrorKind::Auth) |
/// | any other, redirects too: they are not followed | [`Permanent`](DeliverErrorKind::Permanent) |
/// | none: no name, no connection, a wrong certificate, a connection that breaks, no HTTP | [`Connect`](DeliverErrorKind::Connect) |
/// | none: the event has passed 8 webhooks | [`Loop`](DeliverErrorKind::Loop) |
/// | none: no address of the host may be connected to | [`Config`](DeliverErrorKind::Config) |
///
/// `Retry-After` (seconds or a date, at most an hour) is heeded where trying again makes sense: 408, 425, 429 and 5xx but 508.
/// The head of the answer decides; it may have 4,096 fields and 400 KiB. Interim answers (1xx) before it are passed over,
/// 128 KiB of them; over HTTP/2 a hundred frames for each request. A connection that brings more is closed. Of its body at most 64 KiB are read, and for at
/// most a second, so that the connection can be used again.
///
/// # What is sent again within an attempt
///
/// A target may close a connection, or limit its streams, while requests are on their way. Within `timeout`, the same
/// request with the same `x-event-id` and `x-attempt` is then sent again on another connection:
///
/// * at most five times, if the target says that it has not processed it: HTTP/2's `REFUSED_STREAM`, or a GOAWAY whose last
///   stream is an earlier one (RFC 9113 §6.8, §8.7);
/// * once, if nobody knows: a connection of HTTP/1.1 that has answered before closes and nothing of an answer has come, or
///   one of HTTP/2 breaks. The event **may arrive twice**; the target knows it by `x-event-id`.
///
/// A stream beyond the target's `SETTINGS_MAX_CONCURRENT_STREAMS` waits for its turn.
///
/// Where connections may lead, the [`Egress`] decides, and no webhook.
///
/// # By way of a connection
///
/// If the webhook names a connection, that must be of the type `http`: an [`HttpConnection`] says where to send to, and
/// which credentials go along.
#[derive(Clone)]
pub struct HttpWebhook {
    target: Arc<Endpoint>,
    way: Way,
}

/// Which network connections are used.
#[derive(Clone)]
enum Way {
    Egress(Egress),
    Connection(Shared<HttpConnection>),
}

struct Endpoint {
    url: Uri,
    /// The URL's host and port. The rest of it may hold a secret.
    host: String,
    method: Method,
    fields: Fields,
    timeout: Duration,
    key: Option<SigningKey>,
}

impl HttpWebhook {
    /// Sends by way of `egress`.
    ///
    /// # Errors
    ///
    /// When an option is not as [`HttpWebhookConfig`] says, or `url` names an address that the policy of `egress`
    /// refuses. What a name stands for is looked at when a connection is made.
    pub fn new(egress: &Egress, config: HttpWebhookConfig) -> Result<Self, BuildError> {
        Self::by(Way::Egress(egress.clone()), egress, config)
    }

    /// Sends by way of the connection that the webhook names, or of `egress` if it names none.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when the connection is not of the type `http`, or `url` not a path below its.
    pub fn configured(egress: &Egress, config: HttpWebhookConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        match cx.optional_connection()? {
            Some(connection) => Self::by(Way::Connection(connection), egress, config),
            None => Self::new(egress, config),
        }
    }

    fn by(way: Way, egress: &Egress, mut config: HttpWebhookConfig) -> Result<Self, BuildError> {
        config.check()?;
        let (url, timeout) = match &way {
            Way::Connection(connection) => {
                let connection = connection.kind();
                config.headers = connection.headers(config.headers)?;
                (Some(connection.url(config.url.as_deref())?), connection.timeout())
            }
            Way::Egress(_) => (config.url, None),
        };
        let url = url.ok_or("the key `url` is missing")?;
        let url = url::parse(&url, egress.policy())?;
        if let Some(hosts) = &config.allowed_hosts {
            url::check_host(&url, hosts)?;
        }
        let timeout = config.timeout.map(limit).transpose()?.or(timeout).unwrap_or(DEFAULT_TIMEOUT);
        let forward = Forward::new(config.forward_headers, config.allowed_headers.as_deref())?;
        let key = config.signing_secret.as_deref().map(SigningKey::parse).transpose()?;
        let target = Endpoint {
            host: url::shown(&url),
            url,
            method: config.method.into(),
            fields: Fields::new(&config.headers, forward, key.is_some())?,
            timeout,
            key,
        };
        Ok(Self { target: Arc::new(target), way })
    }
}

impl Module for HttpWebhook {
    const NAME: &'static str = "http_webhook";

    type Config = HttpWebhookConfig;

    /// Connects to public addresses only, over connections of its own; [`Registry::builtin`](crate::webhook::Registry::builtin)
    /// shares them instead.
    fn build(config: HttpWebhookConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::configured(&Egress::default(), config, cx)
    }

    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let Endpoint { host, timeout: limit, .. } = &*self.target;
        let hops = hops::next(delivery.headers()).ok_or_else(|| hops::error(host))?;
        let clients = match &self.way {
            Way::Egress(egress) => egress.clients().await,
            Way::Connection(connection) => connection.client().await?.clients().await,
        };
        let clients = clients.map_err(|error| DeliverError::new(DeliverErrorKind::Config, format!("TLS: {error}")))?;
        let sending = send::send(&clients, || self.target.request(&delivery, hops));
        let sending = ON_BEHALF_OF.scope(delivery.webhook().key().clone(), sending);
        match timeout(*limit, sending).await {
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("{host}: no answer within {limit:?}"))),
            Ok(Err(error)) => Err(answer::failure(host, &error)),
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                answer::drain(body);
                answer::outcome(host, &head)
            }
        }
    }
}

impl Endpoint {
    fn request(&self, delivery: &Delivery, hops: u8) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(delivery.body().clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.clone();
        let mut headers = self.fields.of(delivery, hops);
        if let (Some(key), Some(id)) = (&self.key, delivery.id().to_header()) {
            key.sign(&mut headers, id, SystemTime::now(), delivery.body());
        }
        // Else none is sent with an empty body, and some servers answer 411.
        headers.insert(header::CONTENT_LENGTH, delivery.body().len().into());
        *request.headers_mut() = headers;
        request
    }
}

/// Only the host: all else may hold a secret.
impl fmt::Debug for HttpWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpWebhook").field("host", &self.target.host).finish_non_exhaustive()
    }
}

/// Nothing that may hold a secret.
impl fmt::Debug for HttpWebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpWebhookConfig")
            .field("method", &self.method)
            .field("forward_headers", &self.forward_headers)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl From<HttpMethod> for Method {
    fn from(method: HttpMethod) -> Self {
        match method {
            HttpMethod::Post => Self::POST,
            HttpMethod::Put => Self::PUT,
            HttpMethod::Patch => Self::PATCH,
        }
    }
}
