//! The options of `activemq`, and of a connection of type `activemq`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{BuildError, WebhookKey};
use crate::egress::TlsOptions;
use crate::module::broker::{BrokerUrl, STOMP_DESTINATION, Scheme, Server, Template, forward, limit};
use crate::module::forward::Forward;

const PORT: u16 = 61613;
const TLS_PORT: u16 = 61614;

const SCHEMES: [Scheme; 2] =
    [Scheme { name: "stomp", is_tls: false, port: PORT }, Scheme { name: "stomp+ssl", is_tls: true, port: TLS_PORT }];

/// The longest user, password or virtual host, in bytes.
const MAX_CREDENTIAL: usize = 1024;

/// The options of [`ActiveMq`](super::ActiveMq).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveMqConfig {
    /// The name of the queue or topic, or a whole destination that begins with `/queue/`, `/topic/` or, for RabbitMQ,
    /// `/amq/queue/` or `/exchange/`: at most 255 bytes, without wildcards, commas and blanks. It may contain
    /// `{namespace}`, `{webhook}` and `{header:NAME}`. Required.
    pub destination: String,
    /// Whether `destination` is the name of a `queue` or of a `topic`. The default is `queue`. Not beside a whole
    /// destination of another type.
    pub destination_type: Option<ActiveMqDestinationType>,
    /// Whether the server shall keep the message on disk. On by default.
    #[serde(default = "yes")]
    pub persistent: bool,
    /// Whether received header fields are sent on, with `http-` before their names. Off by default.
    #[serde(default)]
    pub forward_headers: bool,
    /// The only received header fields that `forward_headers` sends on, at most 100; with an empty list none is.
    /// Credentials are sent on only if they are named here.
    pub allowed_headers: Option<Vec<String>>,
    /// The time limit for an attempt, in seconds: more than 0, at most 300. The default is 10.
    pub timeout: Option<f64>,
}

/// The type of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ActiveMqDestinationType {
    /// One consumer gets each message, which waits for it.
    Queue,
    /// Each subscriber of this moment gets each message.
    Topic,
}

fn yes() -> bool {
    true
}

/// Where the events of a webhook go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) destination: Template,
    /// Whether the server confirms a message that nobody gets.
    pub(super) may_lose: bool,
}

impl ActiveMqConfig {
    pub(super) fn route(&self, webhook: &WebhookKey) -> Result<Route, BuildError> {
        use ActiveMqDestinationType::{Queue, Topic};
        let prefix = |of| match of {
            Queue => "/queue/",
            Topic => "/topic/",
        };
        let name = &*self.destination;
        let text = match (name.starts_with('/'), self.destination_type) {
            (false, of) => format!("{}{name}", prefix(of.unwrap_or(Queue))),
            (true, Some(of)) if !name.starts_with(prefix(of)) => {
                return Err(
                    "`destination` is a whole destination of another type than `destination_type`: remove one \
                            of them"
                        .into(),
                );
            }
            (true, _) => name.to_owned(),
        };
        let destination = Template::compile("destination", &text, STOMP_DESTINATION, webhook)?;
        Ok(Route { destination, may_lose: !text.starts_with(prefix(Queue)) })
    }

    pub(super) fn forward(&self) -> Result<Forward, BuildError> {
        forward(self.forward_headers, self.allowed_headers.as_deref())
    }

    pub(super) fn limit(&self) -> Result<Duration, BuildError> {
        limit(self.timeout)
    }
}

/// The options of [`ActiveMqConnection`](super::ActiveMqConnection).
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveMqConnectionConfig {
    /// `stomp://` or, with TLS, `stomp+ssl://`: `stomp+ssl://user:password@host:61614`, also with several servers between
    /// commas, of which one is used. Behind the slash is the virtual host. Either this or `host` is required.
    pub url: Option<String>,
    /// The host, without scheme and port.
    pub host: Option<String>,
    /// The port. The default is 61613, or 61614 with `tls`.
    pub port: Option<u16>,
    /// The user. Needs `password`. By default the server is not given any.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The virtual host. The default is `/`, which ActiveMQ ignores.
    pub vhost: Option<String>,
    /// TLS: `true`, or an object with `ca`, `client_cert`, `client_key` (all PEM) and `server_name`. Off by default,
    /// except for `stomp+ssl://`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
}

/// The options of a connection, checked.
pub(super) struct Access {
    pub(super) servers: Vec<Server>,
    pub(super) login: Option<(String, String)>,
    pub(super) vhost: String,
    pub(super) tls: Option<TlsOptions>,
}

impl ActiveMqConnectionConfig {
    pub(super) fn read(self) -> Result<Access, BuildError> {
        let Self { url, host, port, user, password, vhost, tls } = self;
        let (servers, user, password, vhost, is_tls) = match (url, host) {
            (Some(_), Some(_)) => return Err("expected `url` or `host`, found both".into()),
            (None, None) => return Err("`host` or `url` is required".into()),
            (Some(_), None) if port.is_some() => return Err("`port` needs `host`: with `url` the port is in it".into()),
            (Some(url), None) => {
                let url = BrokerUrl::parse("url", &url, &SCHEMES)?;
                let user = either("user", url.user, user)?;
                let password = either("password", url.password, password)?;
                let path = url.path.filter(|path| !path.is_empty());
                (url.servers, user, password, either("vhost", path, vhost)?, url.scheme.is_tls)
            }
            (None, Some(host)) => {
                let default = if tls.is_some() { TLS_PORT } else { PORT };
                (vec![Server::new(&host, port.unwrap_or(default))?], user, password, vhost, false)
            }
        };
        let login = match (user, password) {
            (None, None) => None,
            (Some(user), Some(password)) if user.is_empty() || password.is_empty() => {
                return Err("`user` and `password` must not be empty".into());
            }
            (Some(user), Some(password)) => Some((user, password)),
            (Some(_), None) => return Err("`user` needs `password`".into()),
            (None, Some(_)) => return Err("`password` needs `user`".into()),
        };
        let vhost = vhost.unwrap_or_else(|| "/".to_owned());
        let is_wrong = |text: &String| text.len() > MAX_CREDENTIAL || text.contains(['\0', '\r', '\n']);
        if is_wrong(&vhost) || login.iter().any(|(user, password)| is_wrong(user) || is_wrong(password)) {
            let rule =
                "`user`, `password` and `vhost` must each have at most 1024 bytes, and no NUL and no end of a line";
            return Err(rule.into());
        }
        let tls = tls.or_else(|| is_tls.then(TlsOptions::default));
        Ok(Access { servers, login, vhost, tls })
    }
}

/// The value of an option that may also be in the URL.
fn either(option: &str, of_url: Option<String>, own: Option<String>) -> Result<Option<String>, BuildError> {
    match (of_url, own) {
        (Some(_), Some(_)) => Err(format!("`{option}` is set, and `url` has one too: remove one of them").into()),
        (of_url, own) => Ok(of_url.or(own)),
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for ActiveMqConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveMqConnectionConfig").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(json: &str) -> Result<(String, bool), String> {
        let config: ActiveMqConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.limit().and_then(|_| config.forward()).map_err(|error| error.to_string())?;
        let route = config.route(&WebhookKey::new("shop", "orders").unwrap()).map_err(|error| error.to_string())?;
        Ok((route.destination.constant().unwrap_or("?").to_owned(), route.may_lose))
    }

    fn access(json: &str) -> Result<Access, String> {
        let config: ActiveMqConnectionConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert!(!format!("{config:?}").contains("s3cret"));
        config.read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_destination_has_the_keys_of_the_service_before_or_is_whole() {
        for (json, destination, may_lose) in [
            (r#"{"destination": "orders"}"#, "/queue/orders", false),
            (r#"{"destination": "orders", "destination_type": "queue"}"#, "/queue/orders", false),
            (r#"{"destination": "orders", "destination_type": "topic"}"#, "/topic/orders", true),
            (r#"{"destination": "/queue/a.b", "destination_type": "queue"}"#, "/queue/a.b", false),
            (r#"{"destination": "/topic/a"}"#, "/topic/a", true),
            (r#"{"destination": "/amq/queue/a"}"#, "/amq/queue/a", true),
            (r#"{"destination": "/exchange/e/{webhook}"}"#, "/exchange/e/orders", true),
            (r#"{"destination": "{namespace}.{webhook}"}"#, "/queue/shop.orders", false),
            (r#"{"destination": "a.{header:X-Kind}", "timeout": 300}"#, "?", false),
        ] {
            assert_eq!(route(json).unwrap(), (destination.to_owned(), may_lose), "{json}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (json, words) in [
            ("{}", "missing field `destination`"),
            (r#"{"destination": ""}"#, "`destination`"),
            (r#"{"destination": "/topic/a", "destination_type": "queue"}"#, "of another type"),
            (r#"{"destination": "/temp-queue/a"}"#, "`/queue/`"),
            (r#"{"destination": "a", "destination_type": "exchange"}"#, "unknown variant `exchange`"),
            (r#"{"destination": "a,b"}"#, "several destinations"),
            (r#"{"destination": "a.>"}"#, "wildcards"),
            (r#"{"destination": "a", "timeout": 0}"#, "`timeout`"),
            (r#"{"destination": "a", "allowed_headers": []}"#, "requires `forward_headers`"),
            (r#"{"destination": "a", "receipt": false}"#, "unknown field"),
        ] {
            let error = route(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn a_connection_has_the_keys_of_the_service_before_or_a_url() {
        let shown = |access: &Access| access.servers.iter().map(Server::to_string).collect::<Vec<_>>().join(",");
        let old = access(r#"{"host": "mq", "port": 61699, "user": "u", "password": "s3cret"}"#).unwrap();
        assert_eq!((&*shown(&old), &*old.vhost, old.tls.is_none()), ("mq:61699", "/", true));
        assert_eq!(old.login, Some(("u".to_owned(), "s3cret".to_owned())));
        let url = access(r#"{"url": "stomp+ssl://u:s3c%3Aret@a,b:1/shop"}"#).unwrap();
        assert_eq!((&*shown(&url), &*url.vhost, url.tls.is_some()), ("a:61614,b:1", "shop", true));
        assert_eq!(url.login.unwrap().1, "s3c:ret");
        let least = access(r#"{"host": "127.0.0.1"}"#).unwrap();
        assert_eq!((&*shown(&least), least.login.is_none()), ("127.0.0.1:61613", true));
        assert_eq!(shown(&access(r#"{"host": "a", "tls": true}"#).unwrap()), "a:61614");
        assert_eq!(access(r#"{"url": "stomp://a/", "vhost": "v"}"#).unwrap().vhost, "v");
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused_and_not_quoted() {
        for (json, words) in [
            ("{}", "`host` or `url` is required"),
            (r#"{"url": "stomp://a", "host": "a"}"#, "found both"),
            (r#"{"url": "stomp://a", "port": 1}"#, "`port` needs `host`"),
            (r#"{"url": "tcp://u:s3cret@a"}"#, "`stomp://` or `stomp+ssl://`"),
            (r#"{"url": "stomp://u:s3cret@a", "password": "s3cret"}"#, "`password` is set"),
            (r#"{"host": "a", "user": "u"}"#, "`user` needs `password`"),
            (r#"{"host": "a", "password": "s3cret"}"#, "`password` needs `user`"),
            (r#"{"host": "a", "user": "u", "password": ""}"#, "must not be empty"),
            (r#"{"host": "a", "user": "u", "password": "s3cret\nx"}"#, "no end of a line"),
            (r#"{"host": "a", "vhost": "a\u0000"}"#, "no NUL"),
            (r#"{"host": "a", "passcode": "s3cret"}"#, "unknown field"),
        ] {
            let error = access(json).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
    }
}
