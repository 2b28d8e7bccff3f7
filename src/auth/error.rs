//! Why a scheme does not let a request in.

use std::fmt;

/// Why a scheme does not let a request in. It says no more, so that it cannot leak.
///
/// A sender learns nothing of it: every answer is the same 401, but for [`Forbidden`](Self::Forbidden) and
/// [`Unavailable`](Self::Unavailable). The [reason](Self::reason) is for operators: a label of
/// `tower_webhook_auth_refusals_total`, and a field of the line about a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthError {
    /// The request carries no proof of this scheme.
    Missing,
    /// The proof does not have the form that this scheme asks for.
    Malformed,
    /// The credential is wrong.
    Invalid,
    /// No secret makes this signature of this request.
    BadSignature,
    /// The request was signed too long ago: it may be a replay.
    TooOld,
    /// The request was signed at a time that is still to come.
    FromTheFuture,
    /// The proof was made with a secret that is no longer valid.
    ExpiredSecret,
    /// The sender is known and may not send here. The answer is a 403.
    Forbidden,
    /// The proof cannot be checked now, for example because another server is away. The answer is a 503 with `Retry-After`.
    // The last one: see `COUNT`.
    Unavailable,
}

impl AuthError {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::Unavailable as usize + 1;

    /// A short, stable word for logs and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::BadSignature => "bad_signature",
            Self::TooOld => "too_old",
            Self::FromTheFuture => "from_the_future",
            Self::ExpiredSecret => "expired_secret",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no credential",
            Self::Malformed => "malformed credential",
            Self::Invalid => "invalid credential",
            Self::BadSignature => "wrong signature",
            Self::TooOld => "signed too long ago",
            Self::FromTheFuture => "signed in the future",
            Self::ExpiredSecret => "the secret is no longer valid",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "the credential cannot be verified now",
        })
    }
}

impl std::error::Error for AuthError {}
