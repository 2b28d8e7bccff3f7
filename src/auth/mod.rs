//! Who sent the request.
//!
//! A [`Scheme`] is one way of proving it. [`RequireAuthLayer`] asks the scheme for what the head alone can prove,
//! before one byte of the body is read. [`CallAuthLayer`] lets those schemes that must ask another server do so, still
//! before the body is read. [`VerifyBodyLayer`] asks those schemes that need the bytes once these have been collected.
//! Only these three layers bring about a [`Permit`](crate::Permit), and [`Dispatch`](crate::layers::Dispatch) takes no request without
//! one.
//!
//! | layer | needs | establishes | refuses |
//! |---|---|---|---|
//! | [`RequireAuth`] | a fixed scheme, or [`Matched`](crate::Matched) | [`Permit`](crate::Permit), or a pending proof | 401, 403, 503 |
//! | [`CallAuth`] | [`RequireAuth`] before it | [`Permit`](crate::Permit), or a pending proof by the body | 401, 403, 503 |
//! | [`VerifyBody`] | [`Collected`](crate::request::Collected), and [`RequireAuth`] before it | [`Permit`](crate::Permit) | 401, 403, 503 |
//!
//! A fixed bearer token before any service, without any store:
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_webhook::layers::RequireAuthLayer;
//! use tower_webhook::auth::Bearer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(RequireAuthLayer::new(Bearer::new("s3cret").unwrap()))
//!     .service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
//!
//! let request = Request::post("/").header("authorization", "bearer s3cret").body(()).unwrap();
//! assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 200);
//!
//! let response = service.oneshot(Request::post("/").body(()).unwrap()).await.unwrap();
//! assert_eq!(response.status(), 401);
//! assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="webhook""#);
//! # }
//! ```
//!
//! With [`RequireAuthLayer::from_webhook`] the schemes are those of the webhook's configuration; all must agree.
//!
//! [`guide::extending`](crate::guide::extending) shows how to add a scheme, and
//! `examples/own_scheme.rs` is one that needs the body. `examples/github_signature.rs` takes events from GitHub.
//!
//! [`CallAuth`]: crate::layers::CallAuth
//! [`CallAuthLayer`]: crate::layers::CallAuthLayer
//! [`RequireAuth`]: crate::layers::RequireAuth
//! [`RequireAuthLayer`]: crate::layers::RequireAuthLayer
//! [`RequireAuthLayer::from_webhook`]: crate::layers::RequireAuthLayer::from_webhook
//! [`VerifyBody`]: crate::layers::VerifyBody
//! [`VerifyBodyLayer`]: crate::layers::VerifyBodyLayer

mod any_of;
mod calls;
mod error;
mod guards;
mod matches;
mod metrics;
mod schemes;
mod secrets;

use std::fmt;
use std::future::{Future, ready};

use http::{HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

pub use self::any_of::AnyOf;
pub(crate) use self::calls::Calls;
pub use self::error::AuthError;
pub(crate) use self::guards::{ANY_OF, Follows, Guard, Guards, Pending};
pub(crate) use self::matches::Matches;
#[cfg(feature = "admin")]
pub(crate) use self::schemes::bearer_token;
#[cfg(feature = "signature")]
pub use self::schemes::{
    Algorithm, HmacAlgorithm, HmacAuth, HmacConfig, Provider, Signature, SignatureBuilder, SignatureConfig,
};
pub use self::schemes::{Authorization, Bearer, HeaderAuth, HeaderAuthConfig, IpAllow, QueryAuth, QueryAuthConfig};
#[cfg(feature = "basic-auth")]
pub use self::schemes::{BasicAuth, BasicAuthConfig};
#[cfg(fuzzing)]
pub(crate) use self::schemes::{fuzz, fuzz_basic, fuzz_hmac, fuzz_query, fuzz_signature};
pub use self::secrets::{Position, Secrets, SecretsConfig};
pub use crate::base::secret::{InvalidSecret, SecretDigest, check_secret};
pub use crate::base::wall_clock::WallClock;
use crate::config::{BuildContext, BuildError};
use crate::request::Head;

/// One way of proving who sent a request.
///
/// Each half of a scheme returns what is still missing: [`check_head`](Self::check_head) comes first;
/// [`check_call`](Self::check_call) follows if it returned [`Proof::NeedsCall`]; [`check_body`](Self::check_body) follows if the
/// half before it returned [`Proof::NeedsBody`]. A scheme that needs a call and the body returns `NeedsCall` first, and
/// `NeedsBody` from its call.
///
/// `Debug` must not show a secret.
pub trait Scheme: fmt::Debug + Send + Sync + 'static {
    /// Checks what the head alone can prove.
    ///
    /// # Errors
    ///
    /// When the proof is missing or wrong.
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError>;

    /// Asks another server. Called only after [`Proof::NeedsCall`].
    ///
    /// An implementation may be written as `async fn check_call(&self, head: Head<'_>) -> Result<Proof, AuthError>`. The future
    /// is dropped when the sender hangs up, and when the deadline of the [`CallAuthLayer`](crate::layers::CallAuthLayer) passes.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unavailable`] when the other server gives no answer that can be relied on; another error when it says
    /// that the credential is wrong. Always an error if a scheme that asked for the call forgot this half, and the scheme lets
    /// nobody in either if this half returns [`Proof::NeedsCall`] again.
    fn check_call(&self, head: Head<'_>) -> impl Future<Output = Result<Proof, AuthError>> + Send {
        let _ = head;
        ready(Err(AuthError::Invalid))
    }

    /// Checks what needs the whole body, byte for byte as received. Called only after [`Proof::NeedsBody`].
    ///
    /// # Errors
    ///
    /// When the proof is missing or wrong; always, if a scheme that asked for the body forgot this half.
    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        let _ = (head, body);
        Err(AuthError::Invalid)
    }

    /// The `WWW-Authenticate` challenge of the 401 (RFC 9110 §11.6.1). `error` is [`Missing`](AuthError::Missing) or
    /// [`Invalid`](AuthError::Invalid): a challenge tells nothing more of what was wrong.
    fn challenge(&self, error: AuthError) -> HeaderValue;

    /// Whether the credential or the signature is read from the header field `name`. A history does not keep the values of such
    /// fields; those of `Authorization`, `Cookie` and of names that sound secret are never kept.
    fn reads_credential(&self, name: &HeaderName) -> bool {
        let _ = name;
        false
    }

    /// The kind of requests that the scheme is set up for, such as the name of a provider, for an operator. It must not hold
    /// a secret.
    fn variant(&self) -> Option<&str> {
        None
    }

    /// The name of this scheme in metrics and in lines of the log, if it is not from a configuration: there it is the key.
    fn label(&self) -> &'static str {
        "other"
    }
}

impl From<Position> for Proof {
    fn from(position: Position) -> Self {
        Self::Secret(position)
    }
}

/// A [`Scheme`] that a webhook's configuration can ask for.
pub trait ConfigScheme: Scheme + Sized {
    /// The key of the webhook's configuration that holds this scheme's part.
    const KEY: &'static str;

    /// What that part may say. A string or a struct; unknown fields of a struct are refused.
    type Config: DeserializeOwned;

    /// Makes the scheme.
    ///
    /// # Errors
    ///
    /// When the configuration could not guard anything: an empty secret, for one. The text must not hold a secret.
    fn build(config: Self::Config, cx: &BuildContext<'_>) -> Result<Self, BuildError>;
}

/// The result of one half of a scheme: the proof is complete, or the next half must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// All that the scheme asks for.
    Complete,
    /// All that the scheme asks for, made with the secret of this position: see [`Secrets`].
    Secret(Position),
    /// Nothing is wrong so far; the scheme must see the body too.
    NeedsBody,
    /// Nothing is wrong so far; the scheme must ask another server.
    NeedsCall,
}
