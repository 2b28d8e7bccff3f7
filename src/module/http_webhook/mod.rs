//! `http_webhook`: sends events to a URL.

mod answer;
mod bounds;
mod config;
mod connection;
mod fields;
mod hops;
mod path;
mod send;
mod signature;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Uri, header};
use http_body_util::Full;
use tokio::time::timeout;

pub use self::config::{HttpMethod, HttpWebhookConfig};
pub use self::connection::{HttpConnection, HttpConnectionConfig};
use self::fields::{Fields, OWN_FIELDS};
use self::signature::SigningKey;
#[cfg(fuzzing)]
pub(crate) use self::url::fuzz as fuzz_url;
use super::connection::Shared;
use super::forward::Forward;
use super::time_limit::time_limit;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError};
use crate::egress::{Egress, on_behalf_of};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The default `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends each event to a URL, with its body byte for byte. A 2xx answer means that the event has been delivered.
///
/// # The request
///
/// | field | |
/// |---|---|
/// | `content-type`, `content-encoding` | as received |
/// | `x-event-id` | the event's id, the same for each attempt and the same as in the answer to the sender |
/// | `x-attempt` | the number of the attempt, from 1 |
/// | `x-webhook-hops` | the number of webhooks that the event has passed, including this one: one more than was received |
/// | `x-received-at` | when the event was received: RFC 3339, UTC, milliseconds |
/// | `traceparent`, `tracestate` | as received, if the first is valid ([W3C](https://www.w3.org/TR/trace-context/)) |
/// | `webhook-id`, `webhook-timestamp`, `webhook-signature` | with `signing_secret`: the event's id, the time of the attempt, and `v1` of [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md) over both and the body |
/// | `user-agent` | as received, if `forward_headers` forwards it; else `tower-webhook/` and the version |
///
/// Next come the received fields that `forward_headers` and `allowed_headers` forward. These are never forwarded: the
/// fields of the sender's connection (RFC 9110 §7.6.1, including those that its `Connection` names), `host`,
/// `content-length` and `expect`; with `signing_secret` also `webhook-*` and `svix-*`; and `authorization`, `cookie`
/// and `proxy-authorization`, unless `allowed_headers` names them. The fields in `headers` replace all others, except
/// `x-event-id`, `x-attempt`, `x-received-at`, `x-webhook-hops` and the signature.
///
/// # Loops
///
/// Webhooks that send to each other would send an event round for ever. So an event that has passed 8 webhooks is not
/// sent on: the error is [`Loop`](DeliverErrorKind::Loop), which is never retried and which a sender sees as 508.
/// `x-webhook-hops` of the received request gives the number of webhooks; if there are several numbers, in one field or
/// in many, the largest counts. A value that is not a number counts as 8.
///
/// # The answer
///
/// | answer | kind of error |
/// |---|---|
/// | 2xx | none: delivered |
/// | 429 | [`Throttled`](DeliverErrorKind::Throttled) |
/// | 508 | [`Loop`](DeliverErrorKind::Loop) |
/// | any other 5xx, 425 | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | 408, or no answer within `timeout`; no connection within 10 s | [`Timeout`](DeliverErrorKind::Timeout) |
/// | 401, 403, 407 | [`Auth`](DeliverErrorKind::Auth) |
/// | any other, including redirects, which are not followed | [`Permanent`](DeliverErrorKind::Permanent) |
/// | none: the name or the connection failed, a certificate was wrong, the connection broke, or the peer does not speak HTTP | [`Connect`](DeliverErrorKind::Connect) |
/// | none: the event has passed 8 webhooks | [`Loop`](DeliverErrorKind::Loop) |
/// | none: the policy allows no address of the host | [`Config`](DeliverErrorKind::Config) |
///
/// `Retry-After` (seconds or a date, at most an hour) is honoured where another attempt makes sense: for 408, 425, 429,
/// and 5xx except 508. The head of the answer decides; it may have 4,096 fields and 400 KiB. Interim answers (1xx)
/// before it are skipped: 128 KiB of them, and over HTTP/2 a hundred frames for each request. A connection that
/// delivers more is closed. At most 64 KiB of the body are read, for at most a second, so that the connection can be
/// used again.
///
/// # Repetitions within an attempt
///
/// A target may close a connection, or limit its streams, while requests are on their way. The same request, with the
/// same `x-event-id` and `x-attempt`, is then sent again on another connection, within `timeout`:
///
/// * at most five times, if the target states that it has not processed the request: HTTP/2's `REFUSED_STREAM`, or a
///   GOAWAY whose last stream is an earlier one (RFC 9113 §6.8, §8.7);
/// * once, if it is unknown whether the target received the request: a reused HTTP/1.1 connection closes before any
///   byte of the answer, or an HTTP/2 connection breaks. The event **may arrive twice**; the target recognises it by
///   `x-event-id`.
///
/// A stream beyond the target's `SETTINGS_MAX_CONCURRENT_STREAMS` waits for its turn.
///
/// The [`Egress`] decides where connections may lead; a webhook cannot change that.
///
/// # Through a connection
///
/// If the webhook names a connection, it must be of type `http`: an [`HttpConnection`] sets the target and the
/// credentials.
#[derive(Clone)]
pub struct HttpWebhook {
    target: Arc<Endpoint>,
    way: Way,
}

/// The network connections that are used.
#[derive(Clone)]
enum Way {
    Egress(Egress),
    Connection(Shared<HttpConnection>),
}

struct Endpoint {
    url: Uri,
    /// The URL's host and port. The rest of the URL may hold a secret.
    host: String,
    method: Method,
    fields: Fields,
    timeout: Duration,
    key: Option<SigningKey>,
}

impl HttpWebhook {
    /// Sends through `egress`.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`HttpWebhookConfig`], or `url` names an address that the policy of
    /// `egress` refuses. The addresses of a host name are checked when a connection is made.
    pub fn new(egress: &Egress, config: HttpWebhookConfig) -> Result<Self, BuildError> {
        Self::by(Way::Egress(egress.clone()), egress, config)
    }

    /// Sends through the connection that the webhook names, or through `egress` if it names none.
    ///
    /// # Errors
    ///
    /// Like [`new`](Self::new), and when the connection is not of type `http`, or `url` is not a path below the
    /// connection's.
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
        let timeout = config.timeout.map(time_limit).transpose()?.or(timeout).unwrap_or(DEFAULT_TIMEOUT);
        let forward = Forward::new(config.forward_headers, config.allowed_headers.as_deref(), &OWN_FIELDS)?;
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
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let Endpoint { host, timeout: limit, .. } = &*self.target;
        let hops = hops::next(delivery.headers()).ok_or_else(|| hops::error(host))?;
        let clients = match &self.way {
            Way::Egress(egress) => egress.clients().await,
            Way::Connection(connection) => connection.client().await?.clients().await,
        };
        let clients = clients.map_err(|error| DeliverError::new(DeliverErrorKind::Config, format!("TLS: {error}")))?;
        let sending = send::send(&clients, || self.target.request(&delivery, hops));
        let sending = on_behalf_of(delivery.webhook().key().clone(), sending);
        match timeout(*limit, sending).await {
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("{host}: no answer within {limit:?}"))),
            Ok(Err(error)) => Err(answer::failure(host, &error)),
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                answer::drain(head.status, body, delivery.reply());
                answer::outcome(host, &head)
            }
        }
    }

    fn target(&self) -> Option<String> {
        Some(self.target.host.clone())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.fields.uses(name)
    }
}

impl ConfigModule for HttpWebhook {
    const NAME: &'static str = "http_webhook";
    type Config = HttpWebhookConfig;

    /// Connects to public addresses only, over network connections of its own; in
    /// [`Registry::builtin`](crate::Registry::builtin) all share them.
    fn build(config: HttpWebhookConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::configured(&Egress::default(), config, cx)
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
        // hyper omits it for an empty body, and some servers then answer 411.
        headers.insert(header::CONTENT_LENGTH, delivery.body().len().into());
        *request.headers_mut() = headers;
        request
    }
}

/// Shows only the host: everything else may hold a secret.
impl fmt::Debug for HttpWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpWebhook").field("host", &self.target.host).finish_non_exhaustive()
    }
}

/// Omits everything that may hold a secret.
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
