//! Tokens of operators: who may see and do what.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::auth::bearer_token;
use crate::base::secret::{InvalidSecret, SecretDigest};
use crate::config::WebhookKey;
use crate::request::Head;

/// The longest name of an operator, in bytes.
const MAX_NAME: usize = 64;

/// A person or program that uses the admin routes, and what it may see and do: by default everything.
///
/// An [`AdminToken`] has one. An application with a guard of its own puts one into the extensions of the request: see
/// [`Admin::without_tokens`](super::Admin::without_tokens).
///
/// ```
/// use tower_webhook::admin::Operator;
///
/// let reader = Operator::new("dashboard")?.read_only().namespaces(["shop", "billing"])?;
/// # Ok::<(), tower_webhook::admin::InvalidTokens>(())
/// ```
#[derive(Clone, Debug)]
pub struct Operator {
    name: Arc<str>,
    /// `None` means every namespace.
    namespaces: Option<Arc<[Box<str>]>>,
    may_read: bool,
    may_write: bool,
}

impl Operator {
    /// An operator that may see and do everything. Log lines and the history show the name.
    ///
    /// # Errors
    ///
    /// When the name is not 1 to 64 letters, digits and `. _ @ -`.
    pub fn new(name: &str) -> Result<Self, InvalidTokens> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            return Err(InvalidTokens::new(format!(
                "a name is wrong, expected 1 to {MAX_NAME} letters, digits and `. _ @ -`"
            )));
        }
        Ok(Self::named(name))
    }

    fn named(name: &str) -> Self {
        Self { name: name.into(), namespaces: None, may_read: true, may_write: true }
    }

    /// The operator that a guard of the application has let in without naming it.
    pub(super) fn unnamed() -> Self {
        Self::named("operator")
    }

    /// Takes the right to change anything: only GET is allowed.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { may_write: false, ..self }
    }

    /// Shows these namespaces only. In the others, the operator sees and does nothing.
    ///
    /// # Errors
    ///
    /// When there is no namespace, or one that is not valid.
    pub fn namespaces<'a>(self, namespaces: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidTokens> {
        let mut all: Vec<Box<str>> = namespaces.into_iter().map(Box::from).collect();
        all.sort();
        all.dedup();
        if all.is_empty() {
            let expected = "expected at least one; leave the namespaces out to show every namespace";
            return Err(InvalidTokens::new(format!("`{}` has an empty list of namespaces, {expected}", self.name)));
        }
        for namespace in &all {
            WebhookKey::new(namespace, "a")
                .map_err(|error| InvalidTokens::new(format!("`{}` has a wrong namespace: {error}", self.name)))?;
        }
        Ok(Self { namespaces: Some(all.into()), ..self })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_namespaces(&self) -> Option<Arc<[Box<str>]>> {
        self.namespaces.clone()
    }

    /// The same as a list of texts.
    pub(super) fn namespace_list(&self) -> Option<Vec<String>> {
        self.namespaces.as_ref().map(|all| all.iter().map(|namespace| namespace.to_string()).collect())
    }

    /// Whether the operator sees every namespace, and so the facts that belong to none.
    pub(super) fn sees_all(&self) -> bool {
        self.namespaces.is_none()
    }

    pub(super) fn sees(&self, namespace: &str) -> bool {
        let is = |known: &[Box<str>]| known.iter().any(|known| **known == *namespace);
        self.namespaces.as_deref().is_none_or(is)
    }

    pub(super) fn may_read(&self) -> bool {
        self.may_read
    }

    pub(super) fn may_write(&self) -> bool {
        self.may_write
    }

    /// The names of the rights.
    pub(super) fn rights(&self) -> Vec<&'static str> {
        [(self.may_read, "read"), (self.may_write, "write")]
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| name)
            .collect()
    }
}

/// A token, kept as its SHA-256 digest, and the operator that it lets in.
#[derive(Clone, Debug)]
pub struct AdminToken {
    digest: SecretDigest,
    operator: Operator,
}

impl AdminToken {
    /// Lets `operator` in with `token`. Blanks around the token are not part of it.
    ///
    /// # Errors
    ///
    /// When [`check_secret`](crate::auth::check_secret) says that the token would guard nothing.
    pub fn new(operator: Operator, token: &str) -> Result<Self, InvalidSecret> {
        Ok(Self { digest: SecretDigest::new(token.trim())?, operator })
    }

    /// Lets `operator` in with the token of this digest.
    pub fn of_digest(operator: Operator, digest: SecretDigest) -> Self {
        Self { digest, operator }
    }

    /// Reads a list of tokens: `{"tokens": [{"name", "sha256", "namespaces", "rights"}]}`.
    ///
    /// `sha256` is the SHA-256 digest of the token in hexadecimal: `printf %s "$TOKEN" | sha256sum`. Without `namespaces`
    /// the token is for every namespace. `rights` is a list of `read` and `write`; without it, the token may read only.
    ///
    /// ```
    /// use tower_webhook::admin::{AdminToken, AdminTokens};
    ///
    /// let file = r#"{"tokens": [{
    ///     "name": "shop-team",
    ///     "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
    ///     "namespaces": ["shop"],
    ///     "rights": ["read", "write"]
    /// }]}"#;
    /// let tokens = AdminTokens::new(AdminToken::parse(file.as_bytes())?)?;
    /// # Ok::<(), tower_webhook::admin::InvalidTokens>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When anything of the list is wrong. The error names the token, and quotes no digest.
    pub fn parse(json: &[u8]) -> Result<Vec<Self>, InvalidTokens> {
        let file: File = serde_json::from_slice(json).map_err(|error| {
            let expected = r#"expected {"tokens": [{"name", "sha256", "namespaces", "rights"}]}"#;
            InvalidTokens::new(format!("found no list of tokens: {}; {expected}", unquoted(&error)))
        })?;
        // serde takes an array for an object.
        let is_plain = |json: &Value| {
            json.is_object() && json["tokens"].as_array().is_some_and(|lines| lines.iter().all(Value::is_object))
        };
        if !serde_json::from_slice(json).is_ok_and(|json| is_plain(&json)) {
            return Err(InvalidTokens::new("found an array where a token is expected, as an object".to_owned()));
        }
        file.tokens.into_iter().map(Self::of_line).collect()
    }

    fn of_line(line: Line) -> Result<Self, InvalidTokens> {
        let mut operator = Operator::new(&line.name)?;
        let name = &operator.name;
        let wrong = |found: &str| Err(InvalidTokens::new(format!("the token `{name}`: {found}")));
        let Some(digest) = SecretDigest::from_hex(&line.sha256) else {
            return wrong("its `sha256` is not a digest, expected 64 hexadecimal digits");
        };
        if digest.matches(b"") {
            return wrong("its `sha256` is the digest of an empty text, which would let in anybody; choose a token");
        }
        if line.rights.is_empty() {
            return wrong("its `rights` are an empty list, expected `read`, `write` or both");
        }
        operator.may_read = line.rights.contains(&Right::Read);
        operator.may_write = line.rights.contains(&Right::Write);
        if let Some(namespaces) = line.namespaces {
            operator = operator.namespaces(namespaces.iter().map(String::as_str))?;
        }
        Ok(Self { digest, operator })
    }
}

/// The error, but no text of the list: a token may stand where none is expected.
fn unquoted(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match ["unknown field", "missing field", "duplicate field", "EOF"].iter().any(|start| text.starts_with(start)) {
        true => text,
        false => format!("a value is wrong at line {} column {}", error.line(), error.column()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    sha256: String,
    #[serde(default, deserialize_with = "present")]
    namespaces: Option<Vec<String>>,
    #[serde(default = "only_read")]
    rights: Vec<Right>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Right {
    Read,
    Write,
}

fn only_read() -> Vec<Right> {
    vec![Right::Read]
}

/// A null would mean every namespace: it is refused.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

/// The tokens that let in. Clones share them, so that they may be replaced while the service runs.
///
/// The tokens are compared by digest, in constant time.
#[derive(Clone)]
pub struct AdminTokens(Arc<watch::Sender<Arc<[AdminToken]>>>);

impl AdminTokens {
    /// Lets in with each of these tokens. Without any token, nobody is let in.
    ///
    /// # Errors
    ///
    /// When two tokens have the same name, or two names the same token.
    pub fn new(tokens: Vec<AdminToken>) -> Result<Self, InvalidTokens> {
        Ok(Self(Arc::new(watch::Sender::new(distinct(tokens)?))))
    }

    /// Replaces all tokens at once. Streams of events that are being read end: their readers must come again.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new). The tokens are then as before.
    pub fn replace(&self, tokens: Vec<AdminToken>) -> Result<(), InvalidTokens> {
        self.0.send_replace(distinct(tokens)?);
        Ok(())
    }

    /// The operator of the token in a request's `Authorization`.
    pub(super) fn find(&self, head: &Parts) -> Option<Operator> {
        let candidate = SecretDigest::of(bearer_token(Head::of_parts(head)).ok()?);
        let tokens = Arc::clone(&self.0.borrow());
        // Each of them is compared, so that the time tells nothing.
        tokens.iter().fold(None, |found, token| match token.digest.is_equal(&candidate) {
            true => Some(token.operator.clone()),
            false => found,
        })
    }

    /// Learns when the tokens are replaced.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<[AdminToken]>> {
        self.0.subscribe()
    }
}

fn distinct(tokens: Vec<AdminToken>) -> Result<Arc<[AdminToken]>, InvalidTokens> {
    for (at, token) in tokens.iter().enumerate() {
        let (name, before) = (&token.operator.name, tokens.get(..at).unwrap_or_default());
        if before.iter().any(|other| other.operator.name == *name) {
            return Err(InvalidTokens::new(format!("two tokens have the name `{name}`; give each its own")));
        }
        if let Some(other) = before.iter().find(|other| other.digest.is_equal(&token.digest)) {
            let other = &other.operator.name;
            return Err(InvalidTokens::new(format!("`{other}` and `{name}` are the same token; give each its own")));
        }
    }
    Ok(tokens.into())
}

/// No token: nobody is let in.
impl Default for AdminTokens {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new().into())))
    }
}

/// Shows the names only.
impl fmt::Debug for AdminTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.0.borrow();
        f.debug_list().entries(tokens.iter().map(|token| token.operator.name())).finish()
    }
}

/// Why tokens are not accepted. It quotes no token and no digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTokens(String);

impl InvalidTokens {
    fn new(reason: String) -> Self {
        Self(reason)
    }
}

impl fmt::Display for InvalidTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidTokens {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of `a` and of `b`.
    const A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    const B: &str = "3E23E8160039594A33894F6564E1B1348BBD7A0088D42C4ACB73EEAED59C009D";

    fn file(tokens: &str) -> Result<AdminTokens, InvalidTokens> {
        AdminTokens::new(AdminToken::parse(format!(r#"{{"tokens": [{tokens}]}}"#).as_bytes())?)
    }

    fn find(tokens: &AdminTokens, authorization: &[&str]) -> Option<Operator> {
        let mut request = http::Request::new(());
        for value in authorization {
            request.headers_mut().append("authorization", value.parse().unwrap());
        }
        tokens.find(&request.into_parts().0)
    }

    #[test]
    fn a_token_lets_in_its_own_operator() {
        let tokens = file(&format!(
            r#"{{"name": "a", "sha256": "{A}", "namespaces": ["shop"]}}, {{"name": "b", "sha256": "{B}", "rights": ["write"]}}"#
        ));
        let tokens = tokens.unwrap();
        let a = find(&tokens, &["Bearer a"]).unwrap();
        assert_eq!(
            (a.name(), a.may_read(), a.may_write(), a.sees("shop"), a.sees("b")),
            ("a", true, false, true, false)
        );
        let b = find(&tokens, &["bearer  b "]).unwrap();
        assert_eq!((b.name(), b.may_read(), b.may_write(), b.sees_all()), ("b", false, true, true));
        for wrong in [&[][..], &["Bearer c"], &["Bearer "], &["a"], &["Basic a"], &["Bearer a", "Bearer a"], &[A]] {
            assert!(find(&tokens, wrong).is_none(), "{wrong:?}");
        }
        assert!(find(&tokens, &[&format!("Bearer {A}")]).is_none(), "a digest is no token");
        tokens.replace(Vec::new()).unwrap();
        assert!(find(&tokens, &["Bearer a"]).is_none());
    }

    #[test]
    fn a_broken_list_is_refused_and_quotes_no_digest() {
        let line = |rest: &str| format!(r#"{{"name": "a", "sha256": "{A}"{rest}}}"#);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (tokens, hint) in [
            (line(r#", "right": ["read"]"#), "unknown field `right`"),
            (line(r#", "rights": []"#), "`rights` are an empty list"),
            (line(r#", "rights": ["all"]"#), "a value is wrong at line 1"),
            (line(r#", "namespaces": []"#), "empty list of namespaces"),
            (line(r#", "namespaces": null"#), "a value is wrong at line 1"),
            (line(r#", "namespaces": ["a/b"]"#), "wrong namespace"),
            (line(r#", "rights": "s3cret""#), "a value is wrong at line 1"),
            (r#"{"name": "a"}"#.to_owned(), "missing field `sha256`"),
            (r#"{"name": "a", "sha256": "s3cret"}"#.to_owned(), "expected 64 hexadecimal digits"),
            (format!(r#"{{"name": "a", "sha256": "{empty}"}}"#), "empty text"),
            (format!(r#"{{"name": "a\nb", "sha256": "{A}"}}"#), "a name is wrong"),
            (format!("{}, {}", line(""), line("")), "two tokens have the name `a`"),
            (format!(r#"{}, {{"name": "b", "sha256": "{A}"}}"#, line("")), "`a` and `b` are the same token"),
        ] {
            let error = file(&tokens).unwrap_err().to_string();
            assert!(error.contains(hint), "{tokens}: {error}");
            assert!(!error.contains(A) && !error.contains("s3cret"), "{error}");
        }
        let array = format!(r#"{{"tokens": [["a", "{A}"]]}}"#);
        for json in ["", "[]", "[[]]", "{}", "null", r#"{"tokens": {}}"#, &array] {
            assert!(AdminToken::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn debug_shows_no_digest() {
        let shown = format!(
            "{:?} {:?}",
            file(&format!(r#"{{"name": "a", "sha256": "{A}"}}"#)),
            AdminToken::new(Operator::new("x").unwrap(), "s3cret")
        );
        assert!(!shown.contains(A) && !shown.contains("s3cret"), "{shown}");
        assert!(shown.contains(r#"["a"]"#), "{shown}");
    }
}
