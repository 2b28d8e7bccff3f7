//! A compiled dialect: the place of the signatures, the signed content and the time.

use http::HeaderName;

use super::content::Content;
use super::key::{Algorithm, Encoding, Key};
use super::presented::{Finder, Form, Presented, Source};
use super::timestamp::{Rule, Timestamp};
use crate::auth::{AuthError, Position, Proof, Secrets, WallClock};
use crate::config::{CompileError, PublicUrl};
use crate::request::Head;

/// How a provider signs: everything but the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect<'a> {
    pub(super) source: Source<'a>,
    pub(super) form: Form<'a>,
    pub(super) encoding: Encoding,
    /// The template of the signed content; empty if the sender sends the secret itself.
    pub(super) content: &'a str,
    pub(super) timestamp: Option<Rule<'a>>,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    finder: Finder,
    /// `None` if the sender sends the secret itself.
    content: Option<Content>,
    timestamp: Option<Timestamp>,
}

impl Plan {
    pub(super) fn new(
        dialect: &Dialect<'_>,
        algorithm: Algorithm,
        url: Option<&PublicUrl>,
        param: &dyn Fn(&str) -> Result<String, CompileError>,
    ) -> Result<Self, CompileError> {
        let finder = Finder::new(dialect.source, dialect.form, dialect.encoding, algorithm, param)?;
        if algorithm == Algorithm::Token {
            return Ok(Self { finder, content: None, timestamp: None });
        }
        let content = Content::parse(dialect.content, url, param).map_err(|error| error.inside("content"))?;
        let timestamp = dialect.timestamp.map(|rule| Timestamp::new(rule, &content));
        let timestamp = timestamp.transpose().map_err(|error| error.inside("timestamp"))?;
        let pair = content.pairs().chain(timestamp.as_ref().and_then(Timestamp::pair)).next();
        if let Some(key) = pair.filter(|_| !finder.has_pairs()) {
            return Err(CompileError::new(format!(
                "expected pairs with the key `{key}` in the header of the signature, found no `kv`"
            )));
        }
        Ok(Self { finder, content: Some(content), timestamp })
    }

    /// Whether the signature is read from this header field.
    pub(super) fn reads_credential(&self, name: &HeaderName) -> bool {
        self.finder.reads(name)
    }

    /// Whether the signature covers the whole body.
    pub(super) fn covers_body(&self) -> bool {
        self.content.as_ref().is_some_and(Content::covers_body)
    }

    /// Refuses requests whose head is wrong, and completes the proof if the body is not needed.
    pub(super) fn check_head(
        &self,
        head: Head<'_>,
        secrets: &Secrets<Key>,
        clock: &WallClock,
    ) -> Result<Proof, AuthError> {
        let Some(content) = &self.content else {
            let token = self.finder.token(head)?;
            return secrets.find(clock, |key| key.is_token(token)).map(Proof::from);
        };
        let presented = match self.finder.needs_body() {
            true => Presented::default(),
            false => self.finder.find(head, b"")?,
        };
        content.check_head(head, &presented)?;
        if let Some(timestamp) = self.timestamp.as_ref().filter(|timestamp| !timestamp.needs_body()) {
            timestamp.check(clock.now(), head, &presented, b"")?;
        }
        match self.needs_body() {
            true => Ok(Proof::NeedsBody),
            false => self.verify(content, head, &presented, b"", secrets, clock).map(Proof::from),
        }
    }

    pub(super) fn check_body(
        &self,
        head: Head<'_>,
        body: &[u8],
        secrets: &Secrets<Key>,
        clock: &WallClock,
    ) -> Result<Proof, AuthError> {
        let content = self.content.as_ref().ok_or(AuthError::Invalid)?;
        let presented = self.finder.find(head, body)?;
        let position = self.verify(content, head, &presented, body, secrets, clock)?;
        // A time in the head was checked when the head arrived.
        if let Some(timestamp) = self.timestamp.as_ref().filter(|timestamp| timestamp.needs_body()) {
            timestamp.check(clock.now(), head, &presented, body)?;
        }
        Ok(position.into())
    }

    fn verify(
        &self,
        content: &Content,
        head: Head<'_>,
        presented: &Presented<'_>,
        body: &[u8],
        secrets: &Secrets<Key>,
        clock: &WallClock,
    ) -> Result<Position, AuthError> {
        let message = content.render(head, presented, body)?;
        secrets.find(clock, |key| key.fits(&message, &presented.signatures)).map_err(bad_signature)
    }

    fn needs_body(&self) -> bool {
        let of_content = self.content.as_ref().is_some_and(Content::needs_body);
        of_content || self.finder.needs_body() || self.timestamp.as_ref().is_some_and(Timestamp::needs_body)
    }
}

/// The error for a signature that no secret verifies.
pub(super) fn bad_signature(error: AuthError) -> AuthError {
    if error == AuthError::Invalid { AuthError::BadSignature } else { error }
}
