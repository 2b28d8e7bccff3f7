//! The addresses of a broker: hosts with ports, or a URL.

use std::fmt;
use std::net::IpAddr;

use crate::base::host::is_name;
use crate::config::{BuildError, did_you_mean, shown};

/// The most servers of a broker.
const MOST: usize = 32;

/// The longest URL, in bytes.
const MAX_URL: usize = 8 << 10;

/// One server of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// A name in lower case, or an address in its usual form without brackets.
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
}

/// A scheme of URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) is_tls: bool,
    /// The port of a server that names none.
    pub(crate) port: u16,
}

/// A broker's URL: `amqps://user:password@a.example,b.example:5672/path`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    pub(crate) scheme: Scheme,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// At least one.
    pub(crate) servers: Vec<Server>,
    /// The decoded text behind the slash; `None` without a slash.
    pub(crate) path: Option<String>,
}

impl Server {
    /// Parses `host`, `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
    ///
    /// # Errors
    ///
    /// When the text of this `option` is something else. It is not quoted, because it may hold a password.
    pub(crate) fn parse(option: &str, text: &str, default_port: u16) -> Result<Self, BuildError> {
        server(text, default_port).map_err(|error| format!("`{option}`: {error}").into())
    }

    /// A server whose host and port are two options.
    ///
    /// # Errors
    ///
    /// When `host` is neither a name nor an address in its usual form, or `port` is 0.
    pub(crate) fn new(host: &str, port: u16) -> Result<Self, BuildError> {
        if port == 0 {
            return Err("`port` must be from 1 to 65535".into());
        }
        // IPv6 needs no brackets here.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>().is_ok() || is_name(host) {
            true => Ok(Self { host: bare.to_ascii_lowercase().into(), port }),
            false => Err("`host` must be a name, or an address in its usual form, without scheme and port".into()),
        }
    }

    /// The address, if the host is not a name.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// `host:port`.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Parses servers that are separated by commas.
///
/// # Errors
///
/// When there is none, more than 32, or one that [`Server::parse`] refuses.
pub(crate) fn servers(option: &str, text: &str, default_port: u16) -> Result<Vec<Server>, BuildError> {
    list(text, default_port).map_err(|error| format!("`{option}`: {error}").into())
}

impl BrokerUrl {
    /// Parses the URL in this `option`.
    ///
    /// # Errors
    ///
    /// When its scheme is none of `schemes`, a part is invalid, or it has a query or a fragment. The URL is not quoted,
    /// because it may hold a password; an unknown scheme is.
    pub(crate) fn parse(option: &str, text: &str, schemes: &[Scheme]) -> Result<Self, BuildError> {
        url(text, schemes).map_err(|error| format!("`{option}`: {error}").into())
    }
}

/// Omits the password.
impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerUrl")
            .field("scheme", &self.scheme.name)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

fn url(text: &str, schemes: &[Scheme]) -> Result<BrokerUrl, String> {
    if text.len() > MAX_URL {
        return Err(format!("expected at most {MAX_URL} bytes"));
    }
    let (name, rest) = text.split_once("://").ok_or_else(|| expected(schemes))?;
    let scheme = schemes.iter().find(|scheme| scheme.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        // The text before `://` is a scheme only if it looks like one; else it may be anything.
        let is_scheme =
            name.len() < 16 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let hint = did_you_mean(name, schemes.iter().map(|scheme| scheme.name));
        match is_scheme {
            true => format!("unknown scheme `{}`{hint}; {}", shown(name), expected(schemes)),
            false => expected(schemes),
        }
    })?;
    if rest.contains(['?', '#']) {
        return Err("a query and a fragment are not supported; use the connection's own keys".to_owned());
    }
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let decoded = |part: &str, of: &str| decode(part).ok_or_else(|| format!("the {of} has an invalid escape"));
    let (user, password) = match login.map(|login| login.split_once(':').map_or((login, None), |(a, b)| (a, Some(b)))) {
        Some((user, password)) => {
            let password = password.map(|password| decoded(password, "password")).transpose()?;
            (Some(decoded(user, "user")?).filter(|user| !user.is_empty()), password)
        }
        None => (None, None),
    };
    let path = path.map(|path| decoded(path, "path")).transpose()?;
    Ok(BrokerUrl { scheme: *scheme, user, password, servers: list(hosts, scheme.port)?, path })
}

fn expected(schemes: &[Scheme]) -> String {
    let names: Vec<_> = schemes.iter().map(|scheme| format!("`{}://`", scheme.name)).collect();
    format!("expected a URL that begins with {}", names.join(" or "))
}

fn list(text: &str, default_port: u16) -> Result<Vec<Server>, String> {
    let servers: Vec<_> = text.split(',').take(MOST + 1).map(|text| server(text.trim(), default_port)).collect();
    match servers.len() > MOST {
        true => Err(format!("expected at most {MOST} servers, found more")),
        false => servers.into_iter().collect(),
    }
}

fn server(text: &str, default_port: u16) -> Result<Server, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None => default_port,
        // `+5` would be a number too.
        Some(port) => match port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten() {
            None | Some(0) => return Err("expected a port from 1 to 65535, found another text".to_owned()),
            Some(port) => port,
        },
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(|address| IpAddr::V6(address).to_string()),
        None => match host.parse().ok().map(IpAddr::V4) {
            Some(address) => Some(address.to_string()),
            None => is_name(host).then(|| host.to_ascii_lowercase()),
        },
    };
    let rule = "expected the name of a host, or an address in its usual form such as `192.0.2.1` or `[2001:db8::1]`, \
                found another text";
    Ok(Server { host: host.ok_or(rule)?.into(), port })
}

/// The text with its percent escapes replaced; `None` if one is invalid, or the text is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, behind) = piece.as_bytes().split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
        bytes.extend_from_slice(behind);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMES: [Scheme; 2] =
        [Scheme { name: "nats", is_tls: false, port: 4222 }, Scheme { name: "tls", is_tls: true, port: 4223 }];

    fn parse(text: &str) -> Result<BrokerUrl, String> {
        BrokerUrl::parse("url", text, &SCHEMES).map_err(|error| error.to_string())
    }

    fn shown_servers(servers: &[Server]) -> Vec<String> {
        servers.iter().map(Server::to_string).collect()
    }

    #[test]
    fn the_parts_of_a_url_are_found() {
        let url = parse("TLS://us%40er:p%3A%25w:d@A.example,10.0.0.1:1,[2001:DB8::1],[::1]:2/a%2Fb/c").unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("us@er"), Some("p:%w:d")));
        let expected = ["a.example:4223", "10.0.0.1:1", "[2001:db8::1]:4223", "[::1]:2"];
        assert_eq!(shown_servers(&url.servers), expected);
        assert_eq!((url.scheme.is_tls, url.path.as_deref()), (true, Some("a/b/c")));

        let url = parse("nats://localhost").unwrap();
        assert_eq!((url.user, url.password, url.path), (None, None, None));
        assert_eq!(url.servers, [Server { host: "localhost".into(), port: 4222 }]);
        assert_eq!(parse("nats://a/").unwrap().path.as_deref(), Some(""));
        let url = parse("nats://:s3cret@a").unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (None, Some("s3cret")));
        assert!(!format!("{url:?}").contains("s3cret"));
    }

    #[test]
    fn other_urls_are_refused_and_not_quoted() {
        for (text, expected) in [
            ("s3cret", "`url`: expected a URL that begins with `nats://` or `tls://`"),
            ("u:s3cret@a://b", "expected a URL"),
            ("nat://s3cret", "unknown scheme `nat`, did you mean `nats`?; expected a URL that begins with"),
            ("nats://u:s3cret@", "expected the name of a host"),
            ("nats://u:s3cret@a:0", "expected a port from 1 to 65535"),
            ("nats://u:s3cret@a:", "expected a port"),
            ("nats://u:s3cret@a:+5", "expected a port"),
            ("nats://u:s3cret@a:65536", "expected a port"),
            ("nats://u:s3cret@a b", "expected the name of a host"),
            ("nats://u:s3cret@127.1", "expected the name of a host"),
            ("nats://u:s3cret@::1", "expected the name of a host"),
            ("nats://u:s3cret@[a]", "expected the name of a host"),
            ("nats://u:s3cret@[1.2.3.4]", "expected the name of a host"),
            ("nats://u:s3cret@a,,b", "expected the name of a host"),
            ("nats://u:s3cret@a?x=1", "a query and a fragment are not supported"),
            ("nats://u:s3cret@a#x", "a query and a fragment are not supported"),
            ("nats://u:s3cret%4@a", "the password has an invalid escape"),
            ("nats://s3cret%zz@a", "the user has an invalid escape"),
            ("nats://a/%ff", "the path has an invalid escape"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{text}: {error}");
        }
        assert!(parse(&format!("nats://{}", vec!["a"; 33].join(","))).unwrap_err().contains("at most 32 servers"));
        assert!(parse(&format!("nats://{}", "a".repeat(8192))).unwrap_err().contains("at most 8192 bytes"));
    }

    #[test]
    fn servers_are_read_without_a_url() {
        assert_eq!(shown_servers(&servers("servers", "a, b:1 ,[::1]", 9).unwrap()), ["a:9", "b:1", "[::1]:9"]);
        assert_eq!(Server::parse("servers", "a:1", 9).unwrap().to_string(), "a:1");
        assert!(
            Server::parse("servers", "a/b", 9).unwrap_err().to_string().starts_with("`servers`: expected the name")
        );
        assert_eq!(Server::new("::1", 5).unwrap(), Server::new("[::1]", 5).unwrap());
        assert_eq!(Server::new("::1", 5).unwrap().literal(), Some("::1".parse().unwrap()));
        assert_eq!(Server::new("A.b", 5).unwrap().literal(), None);
        for host in ["", "a:1", "nats://a", "127.1", "0x7f.1", "a b", "[a]"] {
            assert!(Server::new(host, 5).is_err(), "{host}");
        }
        assert!(Server::new("a", 0).is_err());
    }

    proptest! {
        #[test]
        fn a_server_is_read_as_it_is_shown(text in "[a-z0-9.:\\[\\]]{1,12}") {
            if let Ok(server) = Server::parse("servers", &text, 7) {
                prop_assert_eq!(Server::parse("servers", &server.to_string(), 1).unwrap(), server);
            }
        }

        #[test]
        fn no_url_makes_the_parser_panic(text in "nats://.{0,30}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
