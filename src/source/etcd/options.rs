//! The options of the etcd source.

use std::fmt;
use std::path::PathBuf;

use super::tls::EtcdTls;

/// The endpoints of etcd, how to connect to them, and which keys to follow.
///
/// By default: the prefix `/cwm/`, no user, the certificates that the system trusts for `https://`, and no saved copy.
#[derive(Clone)]
pub struct EtcdOptions {
    pub(super) endpoints: Vec<String>,
    pub(super) prefix: String,
    pub(super) user: Option<(String, String)>,
    pub(super) tls: EtcdTls,
    pub(super) copy: Option<PathBuf>,
}

impl EtcdOptions {
    /// Follows the prefix `/cwm/` at these endpoints, each `http://host:port` or `https://host:port`. The endpoints are
    /// members of one cluster, and one at a time is used.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/cwm/".to_owned(),
            user: None,
            tls: EtcdTls::default(),
            copy: None,
        }
    }

    /// Keeps a copy of the configuration in this directory, for a start without etcd: the copy is served at once, and
    /// the watch resumes from its revision. It holds the values as they are in etcd, without secrets from the
    /// environment.
    ///
    /// The copy is `tower-webhook/etcd.saved` below `directory`: mode 0600 in a directory of mode 0700. If that directory
    /// is a link or belongs to another user, the copy is neither read nor written, and the report says so.
    #[must_use]
    pub fn saved_copy(mut self, directory: impl Into<PathBuf>) -> Self {
        self.copy = Some(directory.into());
        self
    }

    /// The prefix of every key. A `/` is added at the end if there is none. [`EtcdSource::new`](super::EtcdSource::new)
    /// refuses a prefix with a control character, with a blank at either end, or with `//` within it.
    ///
    /// A prefix usually begins with `/`. If one does not, and there are keys only below the same prefix with the `/`,
    /// nothing is loaded, and the reason says so.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = format!("{}/", prefix.trim_end_matches('/'));
        self
    }

    /// Authenticates as this user. Without this call the source connects without a user.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// The certificates for `https://` endpoints.
    #[must_use]
    pub fn tls(mut self, tls: EtcdTls) -> Self {
        self.tls = tls;
        self
    }

    pub(super) fn validate(&self) -> Result<(), InvalidOptions> {
        check_prefix(&self.prefix)?;
        if self.endpoints.is_empty() {
            return Err(InvalidOptions::new("expected at least one endpoint, found none"));
        }
        for endpoint in &self.endpoints {
            let uri: Result<http::Uri, _> = endpoint.parse();
            let sound = uri.is_ok_and(|uri| {
                // As written: later code does not recognise other spellings of the scheme.
                (endpoint.starts_with("http://") || endpoint.starts_with("https://"))
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.port_u16() != Some(0)
                    && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                    && matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/"))
            });
            if !sound {
                // The endpoint is not quoted: it may contain a password.
                return Err(InvalidOptions::new(
                    "an endpoint is not of the form http://host:port or https://host:port",
                ));
            }
        }
        let any_tls = self.tls.ca.is_some() || self.tls.cert.is_some();
        if any_tls && self.endpoints.iter().any(|endpoint| endpoint.starts_with("http://")) {
            return Err(InvalidOptions::new(
                "there are certificates for TLS, and an endpoint begins with http://; use https://, or leave the certificates out",
            ));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(InvalidOptions::new("a client certificate needs its key, and a key its certificate"));
        }
        Ok(())
    }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints.len())
            .field("prefix", &self.prefix)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("tls", &self.tls)
            .finish()
    }
}

/// Checks for a prefix that is probably a mistake.
fn check_prefix(prefix: &str) -> Result<(), InvalidOptions> {
    let inner = prefix.trim_end_matches('/');
    let found = match inner {
        _ if inner.ends_with(['\n', '\r']) => "ends in a line break",
        _ if inner.contains(char::is_control) => "contains a control character",
        _ if inner.trim() != inner => "begins or ends with a blank",
        _ if inner.contains("//") => "contains `//`",
        _ => return Ok(()),
    };
    let reason = format!("the prefix `{}` {found}; expected one such as /cwm/", inner.escape_debug());
    Err(InvalidOptions { reason, is_of_prefix: true })
}

/// Options that could never work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOptions {
    reason: String,
    is_of_prefix: bool,
}

impl InvalidOptions {
    fn new(reason: &str) -> Self {
        Self { reason: reason.to_owned(), is_of_prefix: false }
    }

    /// Whether the prefix is at fault.
    pub fn is_of_prefix(&self) -> bool {
        self.is_of_prefix
    }
}

impl fmt::Display for InvalidOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for InvalidOptions {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::EtcdSource;

    #[test]
    fn options_that_cannot_work_are_refused() {
        let check = |endpoint: &str| EtcdSource::new(EtcdOptions::new([endpoint]));
        for endpoint in ["http://localhost:2379", "https://[::1]:2379", "http://10.0.0.1:1/"] {
            assert!(check(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in [
            "",
            "localhost:2379",
            "ftp://a:1",
            "http://",
            "http://u:p@a:1",
            "http://a:1/x",
            "http://a b:1",
            "HTTPS://a:1",
            "http://a:0",
        ] {
            assert!(check(endpoint).is_err(), "{endpoint}");
        }
        assert!(EtcdSource::new(EtcdOptions::new(Vec::<String>::new())).is_err());
        let tls = EtcdTls { cert: Some("cert.pem".into()), ..EtcdTls::default() };
        assert!(EtcdSource::new(EtcdOptions::new(["https://a:1"]).tls(tls)).is_err());
        let tls = EtcdTls { ca: Some("ca.pem".into()), ..EtcdTls::default() };
        assert!(EtcdSource::new(EtcdOptions::new(["https://a:1", "http://b:1"]).tls(tls)).is_err());
    }

    #[test]
    fn a_prefix_ends_with_one_slash() {
        for (given, kept) in [("/cwm", "/cwm/"), ("/cwm/", "/cwm/"), ("cwm//", "cwm/"), ("", "/"), ("/", "/")] {
            assert_eq!(EtcdOptions::new(["http://a:1"]).prefix(given).prefix, kept);
        }
    }

    #[test]
    fn a_prefix_that_is_probably_a_mistake_is_refused() {
        let check = |prefix: &str| EtcdSource::new(EtcdOptions::new(["http://a:1"]).prefix(prefix));
        for prefix in ["", "/", "/cwm", "/cwm/", "/cwm//", "cwm/", "/a/b/", "/a b/", "/é/"] {
            assert!(check(prefix).is_ok(), "{prefix:?}");
        }
        for prefix in
            ["/cwm\n", "/cwm/\n", "/cwm\n/", "/cwm\r\n", "/c\nwm/", "/cwm\0/", " /cwm/", "/cwm/ ", "/a//b/", "//cwm/"]
        {
            let error = check(prefix).unwrap_err();
            assert!(error.is_of_prefix() && !error.to_string().contains(char::is_control), "{prefix:?}");
        }
        assert!(!EtcdSource::new(EtcdOptions::new(["x"])).unwrap_err().is_of_prefix());
    }

    #[test]
    fn debug_shows_no_password() {
        let options = EtcdOptions::new(["http://a:1"]).user("root", "hunter2");
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
