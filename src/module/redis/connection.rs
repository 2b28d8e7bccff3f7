//! The connection type `redis`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Dialer, Login, RedisClient};
use crate::config::BuildError;
use crate::egress::{Egress, TlsOptions, check_host};
use crate::event::DeliverError;
use crate::module::broker::{BrokerUrl, Scheme, Server};
use crate::module::connection::{ConnectionContext, ConnectionKind};

const SCHEMES: [Scheme; 2] =
    [Scheme { name: "redis", is_tls: false, port: PORT }, Scheme { name: "rediss", is_tls: true, port: PORT }];

const PORT: u16 = 6379;

/// The default and the longest `timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// The server of webhooks that name a connection of type `redis`, or by its old name `redis-rq`.
///
/// ```json
/// {"type": "redis", "url": "rediss://events.example.com", "user": "gateway", "password": "{$REDIS_PASSWORD}"}
/// ```
///
/// All webhooks share one network connection, which the first delivery opens and over which many commands are under way
/// at a time. If it is lost, it is made anew at once, and then with waits of up to 5 s; meanwhile deliveries fail with
/// [`Connect`](crate::event::DeliverErrorKind::Connect), or with the error of the last attempt. A server that is silent
/// is given up after about twice `timeout`.
///
/// Only this server is connected to: the addresses that a cluster or a Sentinel names are not.
pub struct RedisConnection {
    dialer: Dialer,
}

/// The options of [`RedisConnection`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConnectionConfig {
    /// `redis://user:password@host:port/db`, or `rediss://…` with TLS, in place of `host`, `port`, `user`, `password` and
    /// `db`. Only the host is required.
    pub url: Option<String>,
    /// The server's name or address.
    pub host: Option<String>,
    /// The server's port: 6379 by default.
    pub port: Option<u16>,
    /// The user of an ACL; without it the password is that of the user `default`. Needs `password`.
    #[serde(alias = "username")]
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database: 0 by default.
    pub db: Option<u32>,
    /// `true`, or options of TLS. By default off, unless `url` begins with `rediss://`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
    /// How many seconds the server has to accept a connection, and to answer a command: 5 by default, at most 60.
    pub timeout: Option<f64>,
}

impl RedisConnection {
    /// Connects through `egress`, which checks each address.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`RedisConnectionConfig`], or the host is an address that the policy of
    /// `egress` refuses. The addresses of a name are checked when a connection is made.
    pub fn new(egress: &Egress, config: RedisConnectionConfig) -> Result<Self, BuildError> {
        let timeout = limit(config.timeout)?;
        let Target { server, user, password, db, is_tls } = target(&config)?;
        check_host(&server.host, egress.policy()).map_err(|error| format!("the host {error}"))?;
        if user.is_some() && password.is_none() {
            return Err("`user` needs `password`: without one the user would not be used".into());
        }
        let tls = match (config.tls, is_tls) {
            (Some(options), _) => Some(options),
            (None, true) => Some(TlsOptions::default()),
            (None, false) => None,
        };
        let tls = tls.map(|options| egress.client_tls(&options)).transpose();
        let tls = tls.map_err(|error| format!("`tls`: {error}"))?.map(Arc::new);
        let login = Login { user, password, db };
        let (egress, shown) = (egress.clone(), server.to_string().into());
        Ok(Self { dialer: Dialer { egress, server: Arc::new(server), shown, tls, login, timeout } })
    }

    /// How long the server has to answer a command.
    pub(super) fn timeout(&self) -> Duration {
        self.dialer.timeout
    }

    pub(super) fn open(&self) -> RedisClient {
        RedisClient::open(self.dialer.clone())
    }
}

struct Target {
    server: Server,
    user: Option<String>,
    password: Option<String>,
    db: u32,
    is_tls: bool,
}

fn target(config: &RedisConnectionConfig) -> Result<Target, BuildError> {
    let Some(url) = &config.url else {
        let host = config.host.as_deref().ok_or("the connection needs `url` or `host`")?;
        let server = Server::new(host, config.port.unwrap_or(PORT))?;
        let (user, password) = (config.user.clone(), config.password.clone());
        return Ok(Target { server, user, password, db: config.db.unwrap_or(0), is_tls: false });
    };
    if config.host.is_some() || config.port.is_some() {
        return Err("`url` has the server's address, so `host` and `port` must be left out".into());
    }
    let BrokerUrl { scheme, user, password, servers, path } = BrokerUrl::parse("url", url, &SCHEMES)?;
    let Ok([server]) = <[Server; 1]>::try_from(servers) else {
        return Err("`url` must have one server: a cluster is not supported".into());
    };
    let db = match path.as_deref() {
        None | Some("") => None,
        Some(path) => Some(path.parse().map_err(|_| "the path of `url` must be the number of a database")?),
    };
    let one = |name: &str, of_url: Option<String>, own: &Option<String>| match (of_url, own) {
        (Some(_), Some(_)) => Err(format!("`{name}` is in `url` too; expected it once")),
        (of_url, own) => Ok(of_url.or_else(|| own.clone())),
    };
    let db = match (db, config.db) {
        (Some(_), Some(_)) => return Err("`db` is in `url` too; expected it once".into()),
        (of_url, own) => of_url.or(own).unwrap_or(0),
    };
    Ok(Target {
        server,
        user: one("user", user, &config.user)?,
        password: one("password", password, &config.password)?,
        db,
        is_tls: scheme.is_tls,
    })
}

fn limit(seconds: Option<f64>) -> Result<Duration, BuildError> {
    let Some(seconds) = seconds else { return Ok(TIMEOUT) };
    let limit = Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero() && *limit <= LONGEST);
    limit.ok_or_else(|| format!("`timeout` must be more than 0 and at most {} seconds", LONGEST.as_secs()).into())
}

impl ConnectionKind for RedisConnection {
    const TYPE: &'static str = "redis";
    type Config = RedisConnectionConfig;
    type Client = RedisClient;

    /// Connects to public addresses only.
    fn build(config: RedisConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    /// Begins to connect, and does not wait for it.
    async fn connect(&self) -> Result<RedisClient, DeliverError> {
        Ok(self.open())
    }
}

/// Shows only the server: everything else may hold a secret.
impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("server", &self.dialer.server()).finish_non_exhaustive()
    }
}

/// Shows only the host and the port.
impl fmt::Debug for RedisConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnectionConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> RedisConnectionConfig {
        serde_json::from_str(json).unwrap()
    }

    fn build(json: &str) -> Result<RedisConnection, String> {
        let egress = Egress::new("127.0.0.0/8".parse().unwrap());
        RedisConnection::new(&egress, read(json)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_and_single_keys_name_the_same_server() {
        for json in [
            r#"{"url": "redis://u:p%40ss@a.example:7000/3"}"#,
            r#"{"host": "a.example", "port": 7000, "user": "u", "password": "p@ss", "db": 3}"#,
            r#"{"url": "redis://a.example:7000", "username": "u", "password": "p@ss", "db": 3}"#,
        ] {
            let found = target(&read(json)).unwrap();
            assert_eq!(found.server.to_string(), "a.example:7000", "{json}");
            assert_eq!((found.user.as_deref(), found.password.as_deref(), found.db), (Some("u"), Some("p@ss"), 3));
            assert!(!found.is_tls);
        }
        let found = target(&read(r#"{"url": "rediss://:p@a.example/"}"#)).unwrap();
        assert_eq!((found.server.port, found.user, found.db, found.is_tls), (PORT, None, 0, true));
        // The keys of the old service.
        assert!(build(r#"{"host": "127.0.0.1", "port": 6379, "db": 0}"#).is_ok());
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused_and_nothing_is_quoted() {
        for (json, words) in [
            ("{}", "needs `url` or `host`"),
            (r#"{"host": "10.0.0.1"}"#, "the host names a private address"),
            (r#"{"host": "redis://a"}"#, "`host` must be a name"),
            (r#"{"host": "a", "port": 0}"#, "`port` must be"),
            (r#"{"url": "http://u:s3cret@a"}"#, "unknown scheme `http`"),
            (r#"{"url": "redis://u:s3cret@a,b"}"#, "one server"),
            (r#"{"url": "redis://u:s3cret@a/x"}"#, "the number of a database"),
            (r#"{"url": "redis://u:s3cret@a", "host": "b"}"#, "must be left out"),
            (r#"{"url": "redis://u:s3cret@a", "password": "s3cret"}"#, "`password` is in `url` too"),
            (r#"{"url": "redis://a/1", "db": 1}"#, "`db` is in `url` too"),
            (r#"{"host": "a", "user": "u"}"#, "`user` needs `password`"),
            (r#"{"host": "a", "timeout": 0}"#, "`timeout` must be"),
            (r#"{"host": "a", "timeout": 61}"#, "`timeout` must be"),
            (r#"{"host": "a", "tls": {"ca": "s3cret"}}"#, "`tls`: `ca`"),
        ] {
            let error = build(json).unwrap_err();
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let json = r#"{"url": "redis://u:s3cret@127.0.0.1"}"#;
        let shown = format!("{:?} {:?}", build(json).unwrap(), read(json));
        assert!(shown.contains("127.0.0.1:6379") && !shown.contains("s3cret"), "{shown}");
    }
}
