//! The public URL of a webhook, which some senders sign.

use std::fmt;

use http::Uri;
use serde::Deserialize;

/// The longest one, in bytes.
const LONGEST: usize = 2048;

/// The URL of a webhook as its senders know it. The query of a request is added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum PublicUrl {
    /// The complete URL of one webhook.
    Whole(Box<str>),
    /// The URL of the path `/`. The path of a request is added.
    Base(Box<str>),
}

#[cfg_attr(not(feature = "signature"), allow(dead_code))]
impl PublicUrl {
    /// The URL of one webhook.
    pub(crate) fn whole(text: &str) -> Result<Self, InvalidPublicUrl> {
        check(text).map(|()| Self::Whole(text.into()))
    }

    /// The URL of the path `/`, for all webhooks.
    pub(crate) fn base(text: &str) -> Result<Self, InvalidPublicUrl> {
        check(text).map(|()| Self::Base(text.trim_end_matches('/').into()))
    }

    /// The public URL of a request whose target reached this service as `uri`.
    pub(crate) fn of(&self, uri: &Uri) -> String {
        let (before, path) = match self {
            Self::Whole(url) => (url, ""),
            Self::Base(url) => (url, uri.path()),
        };
        match uri.query() {
            Some(query) => format!("{before}{path}?{query}"),
            None => format!("{before}{path}"),
        }
    }

    /// The path of that URL.
    pub(crate) fn path(&self, uri: &Uri) -> String {
        match self {
            Self::Whole(url) => path_of(url).to_owned(),
            Self::Base(url) => format!("{}{}", path_of(url).trim_end_matches('/'), uri.path()),
        }
    }
}

/// The path of a URL.
#[cfg_attr(not(feature = "signature"), allow(dead_code))]
fn path_of(url: &str) -> &str {
    let behind = url.split_once("://").map_or("", |(_, behind)| behind);
    behind.find('/').and_then(|at| behind.get(at..)).unwrap_or("/")
}

fn check(text: &str) -> Result<(), InvalidPublicUrl> {
    let is_plain = text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_web = ["https://", "http://"].into_iter().any(|scheme| text.starts_with(scheme));
    match text.parse::<Uri>() {
        Ok(uri) if is_plain && is_web && uri.host().is_some_and(|host| !host.is_empty()) => {}
        _ => {
            return Err(InvalidPublicUrl("expected a URL such as `https://hooks.example.com/in`, found another text"));
        }
    }
    match text.contains(['?', '#']) {
        true => Err(InvalidPublicUrl("expected a URL without a query: the query of the request is added")),
        false => Ok(()),
    }
}

/// Why a text is not a public URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPublicUrl(&'static str);

impl fmt::Display for InvalidPublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidPublicUrl {}

impl TryFrom<String> for PublicUrl {
    type Error = InvalidPublicUrl;

    fn try_from(text: String) -> Result<Self, InvalidPublicUrl> {
        Self::whole(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_has_the_query_of_the_request() {
        let whole = PublicUrl::whole("https://user:pw@hooks.example.com:8443/in").unwrap();
        let base = PublicUrl::base("https://hooks.example.com/webhook/").unwrap();
        for (uri, by_whole, by_base) in [
            ("/a/b", "https://user:pw@hooks.example.com:8443/in", "https://hooks.example.com/webhook/a/b"),
            (
                "/a?x=%2F&y",
                "https://user:pw@hooks.example.com:8443/in?x=%2F&y",
                "https://hooks.example.com/webhook/a?x=%2F&y",
            ),
            (
                "http://else.example/a?",
                "https://user:pw@hooks.example.com:8443/in?",
                "https://hooks.example.com/webhook/a?",
            ),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!((whole.of(&uri), base.of(&uri)), (by_whole.to_owned(), by_base.to_owned()));
            assert_eq!(whole.path(&uri), "/in");
            assert!(by_base.starts_with(&format!("https://hooks.example.com{}", base.path(&uri))));
        }
    }

    #[test]
    fn an_address_without_a_path_has_the_path_of_the_root() {
        let uri = "/a/b".parse().unwrap();
        assert_eq!(PublicUrl::whole("https://example.com").unwrap().path(&uri), "/");
        assert_eq!(PublicUrl::base("https://example.com").unwrap().path(&uri), "/a/b");
    }

    #[test]
    fn what_is_no_public_address_is_refused() {
        for text in
            ["", "hooks.example.com", "/in", "ftp://a/b", "https://", "https:///a", "https://a b/", "https://a/ä"]
        {
            assert!(PublicUrl::whole(text).unwrap_err().0.contains("such as"), "{text}");
        }
        for text in ["https://a/?x=1", "https://a/#x"] {
            assert!(PublicUrl::base(text).unwrap_err().0.contains("without a query"), "{text}");
        }
    }
}
