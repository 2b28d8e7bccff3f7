//! The guards of a webhook, and those of a request that are still to be settled.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderValue;

use super::matches::Matches;
use super::metrics::Series;
use super::{AuthError, Proof, Scheme};
use crate::request::{Head, Rejection, RejectionKind};

/// The object-safe twin of [`Scheme`].
pub(crate) trait ErasedScheme: fmt::Debug + Send + Sync {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError>;
    fn check_call<'a>(&'a self, head: Head<'a>) -> BoxFuture<'a, Result<Proof, AuthError>>;
    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError>;
    fn challenge(&self, error: AuthError) -> HeaderValue;
}

impl<S: Scheme> ErasedScheme for S {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        Scheme::check_head(self, head)
    }

    fn check_call<'a>(&'a self, head: Head<'a>) -> BoxFuture<'a, Result<Proof, AuthError>> {
        Box::pin(Scheme::check_call(self, head))
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        Scheme::check_body(self, head, body)
    }

    fn challenge(&self, error: AuthError) -> HeaderValue {
        Scheme::challenge(self, error)
    }
}

/// A scheme, and the name it is counted under.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    scheme: Arc<dyn ErasedScheme>,
    series: &'static Series,
}

impl Guard {
    /// A guard that is counted under `name`, which is one of few fixed ones.
    pub(crate) fn new(name: &'static str, scheme: Arc<dyn ErasedScheme>) -> Self {
        Self { scheme, series: Series::of(name) }
    }

    fn refuse(&self, error: AuthError) -> Rejection {
        self.series.refused(error);
        let rejection = match error {
            AuthError::Forbidden => RejectionKind::Forbidden.into(),
            AuthError::Unavailable => RejectionKind::AuthUnavailable.into(),
            // What was wrong is told to nobody; whether there was a credential is plain to its sender.
            AuthError::Missing => Rejection::unauthenticated(self.scheme.challenge(AuthError::Missing)),
            _ => Rejection::unauthenticated(self.scheme.challenge(AuthError::Invalid)),
        };
        rejection.because(self.series.guard(), error.reason())
    }
}

/// The schemes that guard something: all of them must agree. None at all means open to everybody.
#[derive(Clone, Debug)]
pub(crate) struct Guards(Arc<[Guard]>);

impl Guards {
    pub(crate) fn new(guards: Vec<Guard>) -> Self {
        Self(guards.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the schemes that are not settled by the head. `follows` says which layers can settle them.
    pub(crate) fn check_head(&self, head: Head<'_>, follows: Follows) -> Result<Pending, Rejection> {
        let mut pending = Pending::default();
        for guard in self.0.iter() {
            let next = match guard.scheme.check_head(head).map_err(|error| guard.refuse(error))? {
                Proof::Complete => continue,
                Proof::Secret(position) => {
                    pending.matches.add(guard.series, position);
                    continue;
                }
                Proof::NeedsCall => Next::Call { verify_body: follows.verify_body },
                Proof::NeedsBody => Next::Body,
            };
            pending.open.push(Open { guard: guard.clone(), next });
        }
        // After every scheme has been asked: a wrong credential is refused as such.
        for Open { next, .. } in &pending.open {
            match next {
                Next::Call { .. } if !follows.call => return Err(Rejection::misassembled("CallAuth")),
                Next::Body if !follows.verify_body => return Err(Rejection::misassembled("VerifyBody")),
                _ => {}
            }
        }
        Ok(pending)
    }
}

/// Which layers follow the one that judges the head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Follows {
    pub(crate) call: bool,
    pub(crate) verify_body: bool,
}

/// The schemes of a request that wait for a call or for the body, and the secrets that fit so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    open: Vec<Open>,
    matches: Matches,
}

#[derive(Clone, Debug)]
struct Open {
    guard: Guard,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// `verify_body`: whether a layer follows that settles what needs the body after the call.
    Call {
        verify_body: bool,
    },
    Body,
}

impl Pending {
    /// Whether nothing is waited for.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The secrets that fit.
    pub(crate) fn into_matches(self) -> Matches {
        self.matches
    }

    pub(crate) fn needs_call(&self) -> bool {
        self.open.iter().any(|open| matches!(open.next, Next::Call { .. }))
    }

    /// These and `more`, of another [`RequireAuth`](crate::layers::RequireAuth) layer of the stack.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.open.extend(more.open);
        self.matches.extend(more.matches);
        self
    }

    /// Makes the calls, one after the other. Returns the schemes that wait for the body.
    pub(crate) async fn check_calls(&self, head: Head<'_>) -> Result<Self, Rejection> {
        let mut pending = Self { open: Vec::new(), matches: self.matches.clone() };
        for Open { guard, next } in &self.open {
            if let Next::Call { verify_body } = *next {
                match guard.scheme.check_call(head).await.map_err(|error| guard.refuse(error))? {
                    Proof::Complete => continue,
                    Proof::Secret(position) => {
                        pending.matches.add(guard.series, position);
                        continue;
                    }
                    Proof::NeedsBody if verify_body => {}
                    Proof::NeedsBody => return Err(Rejection::misassembled("VerifyBody")),
                    // A scheme that never comes to an end lets nobody in.
                    Proof::NeedsCall => return Err(guard.refuse(AuthError::Invalid)),
                }
            }
            pending.open.push(Open { guard: guard.clone(), next: Next::Body });
        }
        Ok(pending)
    }

    /// Returns the secrets that fit.
    pub(crate) fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Matches, Rejection> {
        if self.needs_call() {
            return Err(Rejection::misassembled("CallAuth"));
        }
        let mut matches = self.matches.clone();
        for Open { guard, .. } in &self.open {
            match guard.scheme.check_body(head, body).map_err(|error| guard.refuse(error))? {
                Proof::Complete => {}
                Proof::Secret(position) => matches.add(guard.series, position),
                // Here is the end: a scheme that has not come to its own lets nobody in.
                Proof::NeedsBody | Proof::NeedsCall => return Err(guard.refuse(AuthError::Invalid)),
            }
        }
        Ok(matches)
    }
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;
    use http::{Request, Response};

    use super::*;
    use crate::auth::{SecretDigest, Secrets, WallClock};

    /// `x-key` is one of two keys; `x-body` asks for the body, which must be one of them; `x-error` is an error.
    #[derive(Debug)]
    struct Keys(Secrets<SecretDigest>);

    const ERRORS: [AuthError; AuthError::COUNT] = [
        AuthError::Missing,
        AuthError::Malformed,
        AuthError::Invalid,
        AuthError::BadSignature,
        AuthError::TooOld,
        AuthError::FromTheFuture,
        AuthError::ExpiredSecret,
        AuthError::Forbidden,
        AuthError::Unavailable,
    ];

    impl Keys {
        fn guard() -> Guards {
            let secrets = Secrets::new(["a new key", "an old key"], |text| Ok(SecretDigest::new(text)?)).unwrap();
            Guards::new(vec![Guard::new("keys", Arc::new(Self(secrets)))])
        }

        fn find(&self, sent: &[u8]) -> Result<Proof, AuthError> {
            self.0.find(&WallClock::system(), |key| key.matches(sent)).map(Proof::from)
        }
    }

    impl Scheme for Keys {
        fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
            if let Some(error) = head.headers.get("x-error") {
                let reason = error.to_str().unwrap();
                return Err(ERRORS.into_iter().find(|error| error.reason() == reason).unwrap());
            }
            match head.headers.get("x-key") {
                Some(key) => self.find(key.as_bytes()),
                None => Ok(Proof::NeedsBody),
            }
        }

        fn check_body(&self, _: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
            match body {
                b"more" => Ok(Proof::NeedsBody),
                b"call" => Ok(Proof::NeedsCall),
                body => self.find(body),
            }
        }

        fn challenge(&self, error: AuthError) -> HeaderValue {
            error.reason().parse().unwrap()
        }
    }

    const FOLLOWS: Follows = Follows { call: false, verify_body: true };

    fn check_head(name: &'static str, value: &str) -> Result<Pending, Rejection> {
        let req = Request::builder().header(name, value).body(()).unwrap();
        Keys::guard().check_head(Head::of(&req), FOLLOWS)
    }

    fn check_body(body: &[u8]) -> Result<Matches, Rejection> {
        let req = Request::new(());
        Keys::guard().check_head(Head::of(&req), FOLLOWS).unwrap().check_body(Head::of(&req), body)
    }

    fn told(matches: &Matches) -> Vec<(&'static str, usize)> {
        matches.iter().map(|(guard, position)| (guard, position.index())).collect()
    }

    #[test]
    fn the_position_of_the_secret_is_known_whichever_half_finds_it() {
        for (key, position) in [("a new key", 0), ("an old key", 1)] {
            let pending = check_head("x-key", key).unwrap();
            assert!(pending.is_empty());
            assert_eq!(told(&pending.into_matches()), [("keys", position)]);
            assert_eq!(told(&check_body(key.as_bytes()).unwrap()), [("keys", position)]);
        }
        assert_eq!(check_head("x-key", "no key").unwrap_err().reason(), "invalid");
        assert_eq!(check_body(b"no key").unwrap_err().reason(), "invalid");
    }

    #[test]
    fn the_positions_of_all_guards_are_known() {
        let pending = check_head("x-key", "a new key").unwrap().and(check_head("x-key", "an old key").unwrap());
        assert_eq!(told(&pending.into_matches()), [("keys", 0), ("keys", 1)]);
    }

    #[test]
    fn a_scheme_that_does_not_come_to_an_end_lets_nobody_in() {
        for body in ["more", "call"] {
            assert_eq!(check_body(body.as_bytes()).unwrap_err().kind(), RejectionKind::Unauthenticated);
        }
    }

    #[test]
    fn a_stranger_learns_no_more_than_whether_there_was_a_credential() {
        for error in ERRORS {
            let rejection = check_head("x-error", error.reason()).unwrap_err();
            assert_eq!((rejection.guard(), rejection.reason()), (Some("keys"), error.reason()));
            let response: Response<()> = rejection.into_response();
            let challenge = response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
            let expected = match error {
                AuthError::Forbidden => (403, None),
                AuthError::Unavailable => (503, None),
                AuthError::Missing => (401, Some("missing")),
                _ => (401, Some("invalid")),
            };
            assert_eq!((response.status().as_u16(), challenge), expected, "{error:?}");
            assert!(error == AuthError::Unavailable || response.headers().len() <= 1);
        }
    }
}
