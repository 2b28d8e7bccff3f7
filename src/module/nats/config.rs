//! The options of `nats`, and of a connection of type `nats`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::BuildError;
use crate::egress::TlsOptions;
use crate::module::broker::{BrokerUrl, Scheme, Server, forward, limit};
use crate::module::forward::Forward;

const PORT: u16 = 4222;

const SCHEMES: [Scheme; 2] =
    [Scheme { name: "nats", is_tls: false, port: PORT }, Scheme { name: "tls", is_tls: true, port: PORT }];

/// The most `servers`.
const MOST_SERVERS: usize = 32;

/// The longest credential, in bytes.
const MAX_CREDENTIAL: usize = 16 << 10;

/// The options of [`Nats`](super::Nats).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// The subject to publish to, at most 255 bytes, without wildcards. It may contain `{namespace}`, `{webhook}` and
    /// `{header:NAME}`. Required.
    pub subject: String,
    /// Whether a stream must store the event before it counts as delivered. On by default. `false` means core NATS,
    /// which has no acknowledgement.
    #[serde(default = "yes")]
    pub jetstream: bool,
    /// The name of the stream that must store the event. By default any stream with this subject.
    pub expected_stream: Option<String>,
    /// Whether received header fields are sent on. Off by default.
    #[serde(default)]
    pub forward_headers: bool,
    /// The only received header fields that `forward_headers` sends on, at most 100; with an empty list none is.
    /// Credentials are sent on only if they are named here. Fields that begin with `nats-` never are.
    pub allowed_headers: Option<Vec<String>>,
    /// The time limit for an attempt, in seconds: more than 0, at most 300. The default is 10.
    pub timeout: Option<f64>,
}

fn yes() -> bool {
    true
}

impl NatsConfig {
    /// Checks all but `subject`.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let Some(stream) = &self.expected_stream else { return Ok(()) };
        if !self.jetstream {
            return Err("`expected_stream` has no effect with `\"jetstream\": false`: core NATS has no streams".into());
        }
        let is_name = (1..=255).contains(&stream.len())
            && stream.chars().all(|char| char.is_ascii_graphic() && !matches!(char, '.' | '*' | '>' | '/' | '\\'));
        match is_name {
            true => Ok(()),
            false => {
                Err("`expected_stream` is not the name of a stream: it may have letters, digits, `_` and `-`".into())
            }
        }
    }

    pub(super) fn forward(&self) -> Result<Forward, BuildError> {
        if self.allowed_headers.iter().flatten().any(|name| is_of_the_server(name)) {
            return Err(
                "`allowed_headers` names a field that begins with `nats-`, which would give orders to the server"
                    .into(),
            );
        }
        forward(self.forward_headers, self.allowed_headers.as_deref())
    }

    pub(super) fn limit(&self) -> Result<Duration, BuildError> {
        limit(self.timeout)
    }
}

/// Whether the server obeys the field: `Nats-Rollup: all` would delete the messages of a stream.
pub(super) fn is_of_the_server(name: &str) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"))
}

/// The options of [`NatsConnection`](super::NatsConnection).
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConnectionConfig {
    /// `nats://` or, with TLS, `tls://`, one server or several that are separated by commas, port 4222 by default:
    /// `nats://user:password@a.example,b.example:4223`. A user without password is a token. Required, unless there are
    /// `servers`.
    pub url: Option<String>,
    /// At most 32 servers of one cluster, each as `host`, `host:port` or a URL without user and password.
    pub servers: Option<Vec<String>>,
    /// The user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token in place of user and password.
    pub token: Option<String>,
    /// The path of a file with a user's JWT and seed, as `nsc` makes it. It is read at each attempt to connect.
    pub creds_file: Option<String>,
    /// The content of such a file, for a secret file: `{$file:nats.creds}`.
    pub creds: Option<String>,
    /// TLS: `true`, or an object with `ca`, `client_cert` and `client_key` (all PEM). The certificate must be valid for
    /// the server's host, which is also sent (SNI). Off by default, except for `tls://`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
    /// Whether TLS begins before the server's greeting (`handshake_first` of the server). Off by default.
    #[serde(default)]
    pub tls_first: bool,
    /// The first words of the subjects on which answers arrive, for a user who may not subscribe to `_INBOX.>`. The
    /// default is `_INBOX`.
    pub inbox_prefix: Option<String>,
}

/// How a client logs in.
#[derive(Clone, PartialEq)]
pub(super) enum Login {
    None,
    User(String, String),
    Token(String),
    CredsFile(String),
    Creds(String),
}

impl NatsConnectionConfig {
    /// The servers, and whether the URL asks for TLS; and the login.
    pub(super) fn read(&self) -> Result<(Vec<Server>, bool, Login), BuildError> {
        let mut of_url = None;
        let (servers, is_tls) = match (&self.url, &self.servers) {
            (Some(url), None) => {
                let url = BrokerUrl::parse("url", url, &SCHEMES)?;
                if url.path.as_deref().is_some_and(|path| !path.is_empty()) {
                    return Err("`url` must not have a path".into());
                }
                of_url = url.user.map(|user| (user, url.password));
                (url.servers, url.scheme.is_tls)
            }
            (None, Some(texts)) => servers(texts)?,
            (Some(_), Some(_)) => return Err("`url` and `servers` exclude each other".into()),
            (None, None) => return Err("the key `url` is missing, or `servers` in its place".into()),
        };
        Ok((servers, is_tls, self.login(of_url)?))
    }

    fn login(&self, of_url: Option<(String, Option<String>)>) -> Result<Login, BuildError> {
        let own = match (self.user.clone(), self.password.clone()) {
            (Some(user), Some(password)) => Some(Login::User(user, password)),
            (None, None) => None,
            (Some(_), None) => return Err("`user` needs `password`".into()),
            (None, Some(_)) => return Err("`password` needs `user`".into()),
        };
        let of_url = of_url.map(|(user, password)| match password {
            Some(password) => Login::User(user, password),
            None => Login::Token(user),
        });
        let others = [
            self.token.clone().map(Login::Token),
            self.creds_file.clone().map(Login::CredsFile),
            self.creds.clone().map(Login::Creds),
        ];
        let mut all = [own, of_url].into_iter().chain(others).flatten();
        match (all.next(), all.next()) {
            (None, _) => Ok(Login::None),
            (Some(login), None) => login.checked(),
            _ => Err(
                "expected one login of `user` with `password`, `token`, `creds_file`, `creds` and the one in `url`, \
                      found several"
                    .into(),
            ),
        }
    }
}

impl Login {
    fn checked(self) -> Result<Self, BuildError> {
        let texts: &[&String] = match &self {
            Self::None => &[],
            Self::User(user, password) => &[user, password],
            Self::Token(text) | Self::CredsFile(text) | Self::Creds(text) => &[text],
        };
        if texts.iter().any(|text| text.is_empty() || text.len() > MAX_CREDENTIAL) {
            return Err(format!("each credential must have 1 to {MAX_CREDENTIAL} bytes").into());
        }
        Ok(self)
    }
}

fn servers(texts: &[String]) -> Result<(Vec<Server>, bool), BuildError> {
    if !(1..=MOST_SERVERS).contains(&texts.len()) {
        return Err(format!("expected 1 to {MOST_SERVERS} `servers`, found {}", texts.len()).into());
    }
    let (mut servers, mut with_tls) = (Vec::new(), 0);
    for (at, text) in texts.iter().enumerate() {
        let option = format!("servers.{at}");
        if !text.contains("://") {
            servers.push(Server::parse(&option, text, PORT)?);
            continue;
        }
        let url = BrokerUrl::parse(&option, text, &SCHEMES)?;
        if url.user.is_some() || url.password.is_some() || url.path.is_some_and(|path| !path.is_empty()) {
            return Err(
                format!("`{option}` must not have a user, password or path; use the connection's own keys").into()
            );
        }
        with_tls += usize::from(url.scheme.is_tls);
        servers.extend(url.servers);
    }
    match with_tls == 0 || with_tls == texts.len() {
        true => Ok((servers, with_tls > 0)),
        false => Err("either all `servers` begin with `tls://`, or none".into()),
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for NatsConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConnectionConfig").field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(json: &str) -> Result<(Vec<String>, bool, Login), String> {
        let config: NatsConnectionConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert!(!format!("{config:?}").contains("s3cret"));
        let (servers, is_tls, login) = config.read().map_err(|error| error.to_string())?;
        Ok((servers.iter().map(Server::to_string).collect(), is_tls, login))
    }

    #[test]
    fn servers_and_login_are_read() {
        let user = || Login::User("u".into(), "p".into());
        for (json, servers, is_tls, login) in [
            (r#"{"url": "nats://a,b:1"}"#, &["a:4222", "b:1"][..], false, Login::None),
            (r#"{"url": "tls://u:p@a"}"#, &["a:4222"], true, user()),
            (r#"{"url": "nats://t@a/"}"#, &["a:4222"], false, Login::Token("t".into())),
            (
                r#"{"servers": ["a", "nats://[::1]:5"], "user": "u", "password": "p"}"#,
                &["a:4222", "[::1]:5"],
                false,
                user(),
            ),
            (r#"{"servers": ["tls://a"], "token": "t"}"#, &["a:4222"], true, Login::Token("t".into())),
            (r#"{"url": "nats://a", "creds_file": "/f"}"#, &["a:4222"], false, Login::CredsFile("/f".into())),
            (r#"{"url": "nats://a", "creds": "x"}"#, &["a:4222"], false, Login::Creds("x".into())),
        ] {
            let (found, found_tls, found_login) = connection(json).unwrap();
            assert_eq!(
                (&found[..], found_tls),
                (&servers.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..], is_tls)
            );
            assert!(found_login == login, "{json}");
        }
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused() {
        for (json, expected) in [
            ("{}", "the key `url` is missing, or `servers` in its place"),
            (r#"{"url": "nats://a", "servers": ["b"]}"#, "exclude each other"),
            (r#"{"url": "ws://s3cret"}"#, "unknown scheme `ws`"),
            (r#"{"url": "nats://a/s3cret"}"#, "`url` must not have a path"),
            (r#"{"servers": []}"#, "expected 1 to 32 `servers`, found 0"),
            (r#"{"servers": ["a", "tls://b"]}"#, "either all `servers` begin with `tls://`, or none"),
            (r#"{"servers": ["a", "nats://u:s3cret@b"]}"#, "`servers.1` must not have a user"),
            (r#"{"servers": ["a:s3cret"]}"#, "`servers.0`: expected a port"),
            (r#"{"url": "nats://a", "user": "u"}"#, "`user` needs `password`"),
            (r#"{"url": "nats://a", "password": "s3cret"}"#, "`password` needs `user`"),
            (r#"{"url": "nats://u:s3cret@a", "token": "s3cret"}"#, "expected one login of"),
            (r#"{"url": "nats://a", "token": ""}"#, "1 to 16384 bytes"),
            (r#"{"url": "nats://a", "pasword": "s3cret"}"#, "unknown field `pasword`"),
        ] {
            let error = connection(json).map(|_| ()).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{json}: {error}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (json, expected) in [
            (r#"{"subject": "a", "jetstream": false, "expected_stream": "S"}"#, "`expected_stream` has no effect"),
            (r#"{"subject": "a", "expected_stream": "S.x"}"#, "is not the name of a stream"),
            (r#"{"subject": "a", "timeout": 0}"#, "`timeout` must be more than 0"),
            (r#"{"subject": "a", "timeout": 301}"#, "at most 300 seconds"),
            (r#"{"subject": "a", "allowed_headers": ["x"]}"#, "`allowed_headers` requires `forward_headers`"),
            (
                r#"{"subject": "a", "forward_headers": true, "allowed_headers": ["NATS-Rollup"]}"#,
                "orders to the server",
            ),
        ] {
            let config: NatsConfig = serde_json::from_str(json).unwrap();
            let checked = config.check().and_then(|()| config.limit()).and_then(|_| config.forward());
            let error = checked.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        assert!(serde_json::from_str::<NatsConfig>("{}").is_err());
    }
}
