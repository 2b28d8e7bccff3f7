//! Senders that sign what they send.
//!
//! One verifier serves all of them. A table describes, for each known provider, the signed content, the algorithm and the
//! place of the signature. Other providers are described in the configuration.

mod adyen;
mod builder;
mod config;
mod content;
mod contentful;
mod fields;
mod form;
mod key;
mod msgraph;
mod plan;
mod presented;
mod presets;
mod timestamp;
mod twilio;
mod verifier;

#[cfg(test)]
mod tests;

use std::fmt;

use http::{HeaderName, HeaderValue};

pub use self::builder::SignatureBuilder;
use self::config::Environment;
pub use self::config::SignatureConfig;
pub use self::key::Algorithm;
use self::key::Key;
use self::verifier::Verifier;
use super::UNNAMED_CHALLENGE;
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme, Secrets, SecretsConfig, WallClock};
use crate::config::{BuildContext, BuildError, CompileError};
use crate::request::Head;

/// Lets in requests that their sender has signed.
///
/// In a webhook's configuration it is the key `signature`. In front of your own route it needs a
/// [`CollectBody`](crate::layers::CollectBody) and a [`VerifyBody`](crate::layers::VerifyBody) behind it:
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_webhook::auth::Signature;
/// use tower_webhook::layers::{CollectBodyLayer, RequireAuthLayer, VerifyBodyLayer};
/// use tower_webhook::request::Collected;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ServiceBuilder::new()
///     .layer(RequireAuthLayer::new(Signature::github("It's a Secret to Everybody")?).verify_body_follows())
///     .layer(CollectBodyLayer::new())
///     .layer(VerifyBodyLayer::new())
///     .service_fn(|_: Request<Collected>| async { Ok::<_, Infallible>(Response::new(())) });
///
/// let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
/// let request = Request::post("/").header("X-Hub-Signature-256", signature);
/// let response = service.clone().oneshot(request.body(Full::<Bytes>::from("Hello, World!"))?).await?;
/// assert_eq!(response.status(), 200);
///
/// let request = Request::post("/").header("X-Hub-Signature-256", signature);
/// assert_eq!(service.oneshot(request.body(Full::<Bytes>::from("Hello, Mallory!"))?).await?.status(), 401);
/// # Ok(()) }
/// ```
pub struct Signature {
    /// The name of the provider, if it is one that is known.
    preset: Option<&'static str>,
    verifier: Verifier,
    secrets: Secrets<Key>,
    clock: WallClock,
}

impl Signature {
    /// GitHub, with a secret or several.
    ///
    /// # Errors
    ///
    /// As [`preset`](Self::preset).
    pub fn github(secrets: impl Into<SecretsConfig>) -> Result<Self, CompileError> {
        Self::preset("github", secrets)
    }

    /// A provider that is known by name, with a secret or several.
    ///
    /// Mailgun does not sign the event. Accept each `/signature/token` only once: otherwise anybody who has seen a signature
    /// can send other events with it.
    ///
    /// # Errors
    ///
    /// When there is no such provider, when it needs more than secrets (then [`builder`](Self::builder) takes it), and when
    /// a secret is none: empty, a placeholder that nothing has filled in, or not written as the provider writes them.
    pub fn preset(name: &str, secrets: impl Into<SecretsConfig>) -> Result<Self, CompileError> {
        Self::builder().preset(name).secrets(secrets).build()
    }

    /// The providers that are known by name.
    pub fn providers() -> impl ExactSizeIterator<Item = Provider> {
        presets::ROWS.iter().map(|row| Provider { name: row.name, title: row.title, proof: row.proof })
    }
}

/// A provider that is known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provider {
    /// The value of `preset`.
    pub name: &'static str,
    /// The provider's own name.
    pub title: &'static str,
    /// The evidence for the preset: the libraries whose results were compared, a vector that the provider has published, or
    /// none yet.
    pub proof: &'static str,
}

impl ConfigScheme for Signature {
    const KEY: &'static str = "signature";

    type Config = SignatureConfig;

    fn build(config: SignatureConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let preset = config.known_preset();
        let (verifier, secrets) = config.build(Environment { url: cx.public_url, cx: Some(cx) })?;
        Ok(Self { preset, verifier, secrets, clock: cx.clock().clone() })
    }
}

impl Scheme for Signature {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        self.verifier.check_head(head, &self.secrets, &self.clock)
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        self.verifier.check_body(head, body, &self.secrets, &self.clock)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        UNNAMED_CHALLENGE
    }

    fn reads_credential(&self, name: &HeaderName) -> bool {
        self.verifier.reads_credential(name)
    }

    fn variant(&self) -> Option<&str> {
        self.preset
    }

    fn label(&self) -> &'static str {
        Self::KEY
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").field("secrets", &self.secrets).finish_non_exhaustive()
    }
}

/// Whatever a stranger sends: no verifier panics, and none lets in. The first byte chooses the provider, lines are the
/// values of the fields that it reads, and the rest is the body.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    static ALL: std::sync::LazyLock<Vec<Signature>> = std::sync::LazyLock::new(|| {
        let secret = |row: &presets::Row| match row.algorithm {
            Algorithm::Ed25519 if row.name == "discord" => {
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
            }
            Algorithm::Ed25519 => "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            Algorithm::EcdsaP256 => {
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q=="
            }
            _ => "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        };
        let built = presets::ROWS.iter().map(|row| {
            let builder =
                Signature::builder().preset(row.name).secrets(secret(row)).public_url("https://example.com/in");
            let clock = WallClock::from_fn(|| std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
            let builder = row.params.iter().fold(builder.clock(clock), |builder, name| builder.param(name, "fuzzed"));
            builder.build()
        });
        built.filter_map(Result::ok).collect()
    });
    let Some((which, rest)) = data.split_first() else { return };
    let at = usize::from(*which) % ALL.len().max(1);
    let Some((signature, row)) = ALL.get(at).zip(presets::ROWS.get(at)) else { return };
    let mut lines = rest.splitn(8, |byte| *byte == b'\n');
    let mut req = http::Request::new(());
    for name in row.fields() {
        let value = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok());
        if let Some((name, value)) = name.parse::<http::HeaderName>().ok().zip(value) {
            req.headers_mut().append(name, value);
        }
    }
    let body = lines.last().unwrap_or_default();
    let judged = match signature.check_head(Head::of(&req)) {
        Ok(Proof::NeedsBody) => signature.check_body(Head::of(&req), body),
        judged => judged,
    };
    assert!(judged.is_err(), "{} lets in", row.name);
}
