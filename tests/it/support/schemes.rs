//! Schemes of an application.

use http::HeaderValue;
use tower_webhook::auth::{AuthError, ConfigScheme, Proof, Scheme};
use tower_webhook::config::{BuildContext, BuildError};
use tower_webhook::request::Head;

/// The header `x-key` holds the key.
#[derive(Debug)]
pub(crate) struct HeaderKey(String);

impl HeaderKey {
    pub(crate) fn new(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl ConfigScheme for HeaderKey {
    const KEY: &'static str = "header_key";

    type Config = String;

    fn build(config: String, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self(config))
    }
}

impl Scheme for HeaderKey {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        match head.headers.get("x-key") {
            None => Err(AuthError::Missing),
            Some(key) if key.as_bytes() == self.0.as_bytes() => Ok(Proof::Complete),
            Some(_) => Err(AuthError::Invalid),
        }
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("Key")
    }
}

/// The header `x-checksum` holds the sum of the body's bytes plus the secret: a signature for tests only.
#[derive(Debug)]
pub(crate) struct Checksum(u64);

impl Checksum {
    pub(crate) fn new(secret: u64) -> Self {
        Self(secret)
    }

    pub(crate) fn sign(secret: u64, body: &[u8]) -> String {
        (secret + body.iter().map(|byte| u64::from(*byte)).sum::<u64>()).to_string()
    }
}

impl ConfigScheme for Checksum {
    const KEY: &'static str = "checksum";

    type Config = u64;

    fn build(config: u64, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self(config))
    }
}

impl Scheme for Checksum {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        match head.headers.get("x-checksum") {
            Some(_) => Ok(Proof::NeedsBody),
            None => Err(AuthError::Missing),
        }
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        match head.headers["x-checksum"] == Self::sign(self.0, body) {
            true => Ok(Proof::Complete),
            false => Err(AuthError::BadSignature),
        }
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("Checksum")
    }
}

/// Needs the body, but lacks `check_body`.
#[derive(Debug)]
pub(crate) struct Forgetful;

impl ConfigScheme for Forgetful {
    const KEY: &'static str = "forgetful";

    type Config = bool;

    fn build(_: bool, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

impl Scheme for Forgetful {
    fn check_head(&self, _: Head<'_>) -> Result<Proof, AuthError> {
        Ok(Proof::NeedsBody)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("Forgetful")
    }
}

/// Needs a call, which ends as the header `x-call` says; then, if the header asks for it, the body, like a [`Checksum`]
/// with the secret 7.
#[derive(Debug)]
pub(crate) struct Call;

impl ConfigScheme for Call {
    const KEY: &'static str = "call";

    type Config = bool;

    fn build(_: bool, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self)
    }
}

impl Scheme for Call {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        match head.headers.get("x-call") {
            Some(_) => Ok(Proof::NeedsCall),
            None => Err(AuthError::Missing),
        }
    }

    async fn check_call(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        tokio::task::yield_now().await;
        match head.headers["x-call"].to_str().unwrap() {
            "right" => Ok(Proof::Complete),
            "body" => Ok(Proof::NeedsBody),
            "again" => Ok(Proof::NeedsCall),
            "forbidden" => Err(AuthError::Forbidden),
            "away" => Err(AuthError::Unavailable),
            "never" => std::future::pending().await,
            _ => Err(AuthError::Invalid),
        }
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        Checksum(7).check_body(head, body)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("Call")
    }
}

/// Needs a call, but lacks `check_call`.
#[derive(Debug)]
pub(crate) struct ForgetfulCall;

impl Scheme for ForgetfulCall {
    fn check_head(&self, _: Head<'_>) -> Result<Proof, AuthError> {
        Ok(Proof::NeedsCall)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("ForgetfulCall")
    }
}
