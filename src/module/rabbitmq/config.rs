//! The options of `rabbitmq`, and of a connection of type `rabbitmq`.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use crate::config::{BuildError, WebhookKey};
use crate::egress::TlsOptions;
use crate::module::broker::{AMQP_ROUTING_KEY, BrokerUrl, Scheme, Server, Template, forward, limit};
use crate::module::forward::Forward;

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

const SCHEMES: [Scheme; 2] =
    [Scheme { name: "amqp", is_tls: false, port: PORT }, Scheme { name: "amqps", is_tls: true, port: TLS_PORT }];

/// The longest name of an exchange or a virtual host, in bytes: the protocol has one byte for the length.
const MAX_NAME: usize = 255;

/// The longest user or password, in bytes.
const MAX_CREDENTIAL: usize = 1024;

/// The user and password of a server that was just installed. It accepts them from its own machine only.
const GUEST: &str = "guest";

/// The options of [`RabbitMq`](super::RabbitMq).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqConfig {
    /// The queue to send to, at most 255 bytes. It may contain `{namespace}`, `{webhook}` and, without `declare`,
    /// `{header:NAME}`. Either this or `exchange` is required.
    pub queue_name: Option<String>,
    /// Whether the queue is made as a durable one if it is missing. On by default, except for a `queue_name` with
    /// `{header:NAME}`, where a sender could make any number of queues.
    pub declare: Option<bool>,
    /// The exchange to publish to, at most 255 bytes. It must exist: the module never makes one.
    pub exchange: Option<String>,
    /// The routing key for `exchange`, at most 255 bytes. It may contain `{namespace}`, `{webhook}` and `{header:NAME}`.
    /// Empty by default.
    pub routing_key: Option<String>,
    /// Whether received header fields are sent on. On by default.
    pub forward_headers: Option<bool>,
    /// The only received header fields that are sent on, at most 100; with an empty list none is. Credentials are sent on
    /// only if they are named here.
    pub allowed_headers: Option<Vec<String>>,
    /// The time limit for an attempt, in seconds: more than 0, at most 300. The default is 10.
    pub timeout: Option<f64>,
}

/// Where the events of a webhook go.
#[derive(Debug)]
pub(super) enum Route {
    /// To one queue, by the default exchange.
    Queue {
        name: Template,
        declare: bool,
    },
    Exchange {
        name: Box<str>,
        routing_key: Option<Template>,
    },
}

impl Route {
    /// Whether the header field `name` decides where an event goes.
    pub(super) fn uses(&self, name: &HeaderName) -> bool {
        match self {
            Self::Queue { name: queue, .. } => queue.uses(name),
            Self::Exchange { routing_key, .. } => routing_key.as_ref().is_some_and(|key| key.uses(name)),
        }
    }
}

/// The queue; or the exchange and, behind a slash, the routing key.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { name, .. } => name.fmt(f),
            Self::Exchange { name, routing_key: None } => f.write_str(name),
            Self::Exchange { name, routing_key: Some(key) } => write!(f, "{name}/{key}"),
        }
    }
}

impl RabbitMqConfig {
    pub(super) fn route(&self, webhook: &WebhookKey) -> Result<Route, BuildError> {
        let template = |option, text: &str| Template::compile(option, text, AMQP_ROUTING_KEY, webhook);
        match (&self.queue_name, &self.exchange) {
            (Some(_), Some(_)) => Err("expected `queue_name` or `exchange`, found both".into()),
            (None, None) => Err("`queue_name` or `exchange` is required".into()),
            (Some(_), None) if self.routing_key.is_some() => {
                Err("`routing_key` needs `exchange`: with `queue_name` the event goes to that queue".into())
            }
            (Some(name), None) => {
                let name = template("queue_name", name)?;
                let is_fixed = name.constant().is_some();
                if !is_fixed && self.declare == Some(true) {
                    return Err(
                        "`declare` with `{header:NAME}` in `queue_name` would let a sender make any number of \
                                queues: remove one of them"
                            .into(),
                    );
                }
                if name.constant().is_some_and(|name| name.starts_with("amq.")) && self.declare != Some(false) {
                    return Err(
                        "a queue whose name begins with `amq.` belongs to the server and cannot be made: choose \
                                another name, or set `declare` to false"
                            .into(),
                    );
                }
                Ok(Route::Queue { name, declare: self.declare.unwrap_or(is_fixed) })
            }
            (None, Some(_)) if self.declare.is_some() => {
                Err("`declare` needs `queue_name`: an exchange is never made".into())
            }
            (None, Some(name)) => {
                check_name("exchange", name)?;
                if name.is_empty() {
                    return Err("`exchange` is empty: `queue_name` sends to one queue".into());
                }
                let routing_key = self.routing_key.as_deref().filter(|key| !key.is_empty());
                let routing_key = routing_key.map(|key| template("routing_key", key)).transpose()?;
                Ok(Route::Exchange { name: name.as_str().into(), routing_key })
            }
        }
    }

    pub(super) fn forward(&self) -> Result<Forward, BuildError> {
        if self.allowed_headers.iter().flatten().any(|name| is_of_the_server(name)) {
            return Err("`allowed_headers` names a field that would give orders to the server: remove it".into());
        }
        forward(self.forward_headers.unwrap_or(true), self.allowed_headers.as_deref())
    }

    pub(super) fn limit(&self) -> Result<Duration, BuildError> {
        limit(self.timeout)
    }
}

/// Whether the server, or a widespread plugin, obeys a header of this name: copies to other queues, delays, and the
/// record of dead letters.
pub(super) fn is_of_the_server(name: &str) -> bool {
    ["cc", "bcc", "x-death", "x-delay", "x-deduplication-header"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// The options of [`RabbitMqConnection`](super::RabbitMqConnection).
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqConnectionConfig {
    /// `amqp://` or, with TLS, `amqps://`: `amqps://user:password@host:5671/vhost`. The virtual host is `/` without a
    /// path. Either this or `host` is required.
    pub url: Option<String>,
    /// The host, without scheme and port.
    pub host: Option<String>,
    /// The port. The default is 5672, or 5671 with `tls`.
    pub port: Option<u16>,
    /// The user. The default is `guest`, whom a server accepts from its own machine only.
    pub user: Option<String>,
    /// The user's password. The default is `guest` for the user `guest`; every other user needs one.
    #[serde(alias = "password")]
    pub pass: Option<String>,
    /// The virtual host. The default is `/`.
    pub vhost: Option<String>,
    /// TLS: `true`, or an object with `ca`, `client_cert`, `client_key` (all PEM) and `server_name`. Off by default,
    /// except for `amqps://`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
}

/// The options of a connection, checked.
pub(super) struct Access {
    pub(super) server: Server,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    pub(super) tls: Option<TlsOptions>,
}

impl RabbitMqConnectionConfig {
    pub(super) fn read(self) -> Result<Access, BuildError> {
        let Self { url, host, port, user, pass, vhost, tls } = self;
        let (server, user, pass, vhost, is_tls) = match (url, host) {
            (Some(_), Some(_)) => return Err("expected `url` or `host`, found both".into()),
            (None, None) => return Err("`host` or `url` is required".into()),
            (Some(_), None) if port.is_some() => return Err("`port` needs `host`: with `url` the port is in it".into()),
            (Some(url), None) => {
                let url = BrokerUrl::parse("url", &url, &SCHEMES)?;
                let server = match <[Server; 1]>::try_from(url.servers) {
                    Ok([server]) => server,
                    Err(_) => return Err("`url` must name one server: put a load balancer in front of several".into()),
                };
                let user = either("user", url.user, user)?;
                let pass = either("pass", url.password, pass)?;
                (server, user, pass, either("vhost", url.path, vhost)?, url.scheme.is_tls)
            }
            (None, Some(host)) => {
                let default = if tls.is_some() { TLS_PORT } else { PORT };
                (Server::new(&host, port.unwrap_or(default))?, user, pass, vhost, false)
            }
        };
        let user = user.unwrap_or_else(|| GUEST.to_owned());
        let password = match pass {
            Some(pass) => pass,
            None if user == GUEST => GUEST.to_owned(),
            None => return Err("`user` needs `pass`".into()),
        };
        if user.is_empty() || password.is_empty() {
            return Err("`user` and `pass` must not be empty".into());
        }
        if user.len() > MAX_CREDENTIAL || password.len() > MAX_CREDENTIAL {
            return Err(format!("expected at most {MAX_CREDENTIAL} bytes in each of `user` and `pass`").into());
        }
        if user.contains('\0') || password.contains('\0') {
            return Err("`user` and `pass` cannot have a NUL character, which the login uses to separate them".into());
        }
        let vhost = vhost.unwrap_or_else(|| "/".to_owned());
        check_name("vhost", &vhost)?;
        let tls = tls.or_else(|| is_tls.then(TlsOptions::default));
        Ok(Access { server, user, password, vhost, tls })
    }
}

/// The value of an option that may also be in the URL.
fn either(option: &str, of_url: Option<String>, own: Option<String>) -> Result<Option<String>, BuildError> {
    match (of_url, own) {
        (Some(_), Some(_)) => Err(format!("`{option}` is set, and `url` has one too: remove one of them").into()),
        (of_url, own) => Ok(of_url.or(own)),
    }
}

fn check_name(option: &str, name: &str) -> Result<(), BuildError> {
    match name.len() <= MAX_NAME && !name.contains(char::is_control) {
        true => Ok(()),
        false => Err(format!("`{option}` must have at most {MAX_NAME} bytes and no control character").into()),
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for RabbitMqConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConnectionConfig").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(json: &str) -> Result<Route, String> {
        let config: RabbitMqConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.limit().and_then(|_| config.forward()).map_err(|error| error.to_string())?;
        config.route(&WebhookKey::new("shop", "orders").unwrap()).map_err(|error| error.to_string())
    }

    fn access(json: &str) -> Result<Access, String> {
        let config: RabbitMqConnectionConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert!(!format!("{config:?}").contains("s3cret"));
        config.read().map_err(|error| error.to_string())
    }

    #[test]
    fn events_go_to_a_queue_or_an_exchange() {
        for (json, expected) in [
            (r#"{"queue_name": "q"}"#, true),
            (r#"{"queue_name": "q", "declare": false}"#, false),
            (r#"{"queue_name": "{namespace}.{webhook}"}"#, true),
            (r#"{"queue_name": "q.{header:X-Kind}"}"#, false),
            (r#"{"queue_name": "q.{header:X-Kind}", "declare": false}"#, false),
        ] {
            assert!(matches!(route(json), Ok(Route::Queue { declare, .. }) if declare == expected), "{json}");
        }
        for json in [r#"{"exchange": "e"}"#, r#"{"exchange": "e", "routing_key": ""}"#] {
            assert!(matches!(route(json), Ok(Route::Exchange { routing_key: None, .. })), "{json}");
        }
        let json = r#"{"exchange": "e", "routing_key": "{webhook}.{header:X-Kind}", "timeout": 300}"#;
        assert!(matches!(route(json), Ok(Route::Exchange { routing_key: Some(_), .. })));
    }

    #[test]
    fn options_that_cannot_work_together_are_refused() {
        for (json, words) in [
            ("{}", "`queue_name` or `exchange` is required"),
            (r#"{"queue_name": "q", "exchange": "e"}"#, "found both"),
            (r#"{"queue_name": "q", "routing_key": "k"}"#, "`routing_key` needs `exchange`"),
            (r#"{"queue_name": ""}"#, "`queue_name`"),
            (r#"{"queue_name": "amq.q"}"#, "belongs to the server"),
            (r#"{"queue_name": "{header:X-A}", "declare": true}"#, "any number of"),
            (r#"{"exchange": "e", "declare": true}"#, "never made"),
            (r#"{"exchange": ""}"#, "is empty"),
            (r#"{"exchange": "e", "timeout": 0}"#, "`timeout`"),
            (r#"{"exchange": "e", "timeout": 301}"#, "`timeout`"),
            (r#"{"exchange": "e", "allowed_headers": ["X-Death"]}"#, "orders to the server"),
            (r#"{"exchange": "e", "forward_headers": false, "allowed_headers": []}"#, "requires `forward_headers`"),
            (r#"{"exchange": "e", "mandatory": false}"#, "unknown field"),
        ] {
            let error = route(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn a_connection_has_the_keys_of_the_service_before_or_a_url() {
        let old = access(r#"{"host": "rabbit", "port": 5673, "user": "u", "pass": "s3cret"}"#).unwrap();
        assert_eq!((old.server.to_string(), &*old.vhost, old.tls.is_none()), ("rabbit:5673".into(), "/", true));
        assert_eq!((&*old.user, &*old.password), ("u", "s3cret"));
        let url = access(r#"{"url": "amqps://u:s%2Fcret@rabbit/shop"}"#).unwrap();
        assert_eq!((url.server.to_string(), &*url.vhost, url.tls.is_some()), ("rabbit:5671".into(), "shop", true));
        assert_eq!((&*url.user, &*url.password), ("u", "s/cret"));
        let least = access(r#"{"host": "127.0.0.1", "tls": true}"#).unwrap();
        assert_eq!((least.server.port, &*least.user, &*least.password), (5671, "guest", "guest"));
        assert_eq!(
            access(r#"{"url": "amqp://rabbit", "vhost": "v", "user": "u", "password": "p"}"#).unwrap().vhost,
            "v"
        );
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused_and_not_quoted() {
        for (json, words) in [
            ("{}", "`host` or `url` is required"),
            (r#"{"url": "amqp://a", "host": "a"}"#, "found both"),
            (r#"{"url": "amqp://a", "port": 1}"#, "`port` needs `host`"),
            (r#"{"url": "amqp://a,b"}"#, "one server"),
            (r#"{"url": "http://u:s3cret@a"}"#, "`amqp://` or `amqps://`"),
            (r#"{"url": "amqp://u:s3cret@a", "pass": "s3cret"}"#, "`pass` is set"),
            (r#"{"host": "a", "user": "u"}"#, "`user` needs `pass`"),
            (r#"{"host": "a", "user": "u", "pass": ""}"#, "must not be empty"),
            (r#"{"host": "a", "user": "u", "pass": "s3cret\u0000"}"#, "NUL"),
            (r#"{"host": "a:1"}"#, "`host`"),
            (r#"{"host": "a", "vhost": "\u0007"}"#, "`vhost`"),
        ] {
            let error = access(json).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
    }
}
