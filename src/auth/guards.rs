//! The guards of a webhook, and those of a request that are still to be settled.
//!
//! Guards form a tree: all guards of a list must let the request in, and a guard may be a list of alternatives, one of
//! which must. An alternative that has failed must not be tried again later, for example with the body after its call.
//! Therefore the alternatives that are still open travel with the request.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};

use super::matches::Matches;
use super::metrics::Series;
use super::schemes::UNNAMED_CHALLENGE;
use super::{AuthError, Proof, Scheme};
use crate::request::{Head, Missing, Rejection, RejectionKind};

/// The object-safe twin of [`Scheme`].
pub(crate) trait ErasedScheme: fmt::Debug + Send + Sync {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError>;
    fn check_call<'a>(&'a self, head: Head<'a>) -> BoxFuture<'a, Result<Proof, AuthError>>;
    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError>;
    fn challenge(&self, error: AuthError) -> HeaderValue;
    fn reads_credential(&self, name: &HeaderName) -> bool;
    #[cfg(feature = "admin")]
    fn variant(&self) -> Option<&str>;
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

    fn reads_credential(&self, name: &HeaderName) -> bool {
        Scheme::reads_credential(self, name)
    }

    #[cfg(feature = "admin")]
    fn variant(&self) -> Option<&str> {
        Scheme::variant(self)
    }
}

/// One condition for a request: a scheme, or a list of alternatives.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Scheme(Named),
    AnyOf(Arc<[Guards]>),
}

/// A scheme, and the name it is counted under.
#[derive(Clone, Debug)]
struct Named {
    scheme: Arc<dyn ErasedScheme>,
    series: &'static Series,
}

/// The key of alternatives, and their name in metrics.
pub(crate) const ANY_OF: &str = "any_of";

impl Guard {
    /// A guard that is counted under `name`, which is one of few fixed ones.
    pub(crate) fn new(name: &'static str, scheme: Arc<dyn ErasedScheme>) -> Self {
        Self(Kind::Scheme(Named { scheme, series: Series::of(name) }))
    }

    /// A guard that lets a request in if one of the alternatives does. An alternative without guards lets everybody in, so the
    /// caller must not pass one.
    pub(crate) fn any_of(alternatives: Vec<Guards>) -> Self {
        Self(Kind::AnyOf(alternatives.into()))
    }
}

/// All of these must agree. None at all means open to everybody.
#[derive(Clone, Debug)]
pub(crate) struct Guards(Arc<[Guard]>);

impl Guards {
    pub(crate) fn new(guards: Vec<Guard>) -> Self {
        Self(guards.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The description of each guard: its key in the configuration, and what it is set up for, such as
    /// `signature: github`.
    #[cfg(feature = "admin")]
    pub(crate) fn described(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|Guard(kind)| match kind {
            Kind::Scheme(Named { scheme, series }) => match scheme.variant() {
                Some(variant) => format!("{}: {variant}", series.guard()),
                None => series.guard().to_owned(),
            },
            Kind::AnyOf(alternatives) => {
                let all = |guards: &Guards| guards.described().collect::<Vec<_>>().join(" and ");
                format!("{ANY_OF}: {}", alternatives.iter().map(all).collect::<Vec<_>>().join(", or "))
            }
        })
    }

    /// Whether any of the guards reads a credential or a signature from this header field.
    pub(crate) fn read_credential(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|Guard(kind)| match kind {
            Kind::Scheme(scheme) => scheme.scheme.reads_credential(name),
            Kind::AnyOf(alternatives) => alternatives.iter().any(|guards| guards.read_credential(name)),
        })
    }

    /// Returns the guards that are not settled by the head. `follows` says which layers can settle them.
    pub(crate) fn check_head(&self, head: Head<'_>, follows: Follows) -> Result<Pending, Rejection> {
        let pending = self.judge_head(head, follows).map_err(Refusal::into_rejection)?;
        // After every guard has been asked: a wrong credential is refused as such.
        if pending.needs_call() && !follows.call {
            return Err(Rejection::misassembled(Missing::CallAuth));
        }
        if pending.needs_body() && !follows.verify_body {
            return Err(Rejection::misassembled(Missing::VerifyBody));
        }
        Ok(pending)
    }

    fn judge_head(&self, head: Head<'_>, follows: Follows) -> Result<Pending, Refusal<'_>> {
        let mut pending = Pending::default();
        for Guard(kind) in self.0.iter() {
            match kind {
                Kind::Scheme(scheme) => {
                    let proof = scheme.scheme.check_head(head).map_err(|error| Refusal::Scheme(scheme, error))?;
                    let open = match proof {
                        Proof::Complete => continue,
                        Proof::Secret(position) => {
                            pending.matches.add(scheme.series, position);
                            continue;
                        }
                        Proof::NeedsCall => Open::Call { scheme: scheme.clone(), verify_body: follows.verify_body },
                        Proof::NeedsBody => Open::Body(scheme.clone()),
                    };
                    pending.open.push(open);
                }
                Kind::AnyOf(alternatives) => {
                    let mut left = Alternatives::default();
                    for guards in alternatives.iter() {
                        if left.take(guards.judge_head(head, follows))? {
                            break;
                        }
                    }
                    pending.take(left)?;
                }
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

/// The guards of a request that wait for a call or for the body, and the secrets that fit so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    open: Vec<Open>,
    matches: Matches,
}

#[derive(Clone, Debug)]
enum Open {
    /// `verify_body`: whether a layer follows that settles what needs the body after the call.
    Call {
        scheme: Named,
        verify_body: bool,
    },
    Body(Named),
    AnyOf(Alternatives),
}

/// The state of a list of alternatives.
#[derive(Clone, Debug, Default)]
struct Alternatives {
    /// The secrets of the alternative that let the request in.
    settled: Option<Matches>,
    /// The alternatives that may still let it in.
    open: Vec<Pending>,
    /// Why other alternatives have failed: the reason with the greatest weight.
    failed: Option<AuthError>,
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
        self.open.iter().any(|open| match open {
            Open::Call { .. } => true,
            Open::Body(_) => false,
            Open::AnyOf(left) => left.open.iter().any(Self::needs_call),
        })
    }

    fn needs_body(&self) -> bool {
        self.open.iter().any(|open| match open {
            Open::Call { .. } => false,
            Open::Body(_) => true,
            Open::AnyOf(left) => left.open.iter().any(Self::needs_body),
        })
    }

    /// These and `more`, of another [`RequireAuth`](crate::layers::RequireAuth) layer of the stack.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.open.extend(more.open);
        self.matches.extend(more.matches);
        self
    }

    /// Makes the calls, one after the other. Returns the guards that wait for the body.
    pub(crate) async fn check_calls(&self, head: Head<'_>) -> Result<Self, Rejection> {
        self.judge_calls(Some(head)).await.map_err(Refusal::into_rejection)
    }

    /// Counts each call as failed. Alternatives that need none remain.
    pub(crate) async fn without_calls(&self) -> Result<Self, Rejection> {
        self.judge_calls(None).await.map_err(Refusal::into_rejection)
    }

    /// Without a head each call counts as failed.
    fn judge_calls<'a>(&'a self, head: Option<Head<'a>>) -> BoxFuture<'a, Result<Self, Refusal<'a>>> {
        Box::pin(async move {
            let mut pending = Self { open: Vec::new(), matches: self.matches.clone() };
            for open in &self.open {
                match open {
                    Open::Call { scheme, verify_body } => {
                        let refused = |error| Refusal::Scheme(scheme, error);
                        let head = head.ok_or(refused(AuthError::Unavailable))?;
                        match scheme.scheme.check_call(head).await.map_err(refused)? {
                            Proof::Complete => {}
                            Proof::Secret(position) => pending.matches.add(scheme.series, position),
                            Proof::NeedsBody if *verify_body => pending.open.push(Open::Body(scheme.clone())),
                            Proof::NeedsBody => return Err(Refusal::Misassembled(Missing::VerifyBody)),
                            // A scheme that never comes to an end lets nobody in.
                            Proof::NeedsCall => return Err(refused(AuthError::Invalid)),
                        }
                    }
                    Open::Body(scheme) => pending.open.push(Open::Body(scheme.clone())),
                    Open::AnyOf(before) => {
                        let mut left = Alternatives { failed: before.failed, ..Alternatives::default() };
                        for alternative in &before.open {
                            if left.take(alternative.judge_calls(head).await)? {
                                break;
                            }
                        }
                        pending.take(left)?;
                    }
                }
            }
            Ok(pending)
        })
    }

    /// Returns the secrets that fit.
    pub(crate) fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Matches, Rejection> {
        if self.needs_call() {
            return Err(Rejection::misassembled(Missing::CallAuth));
        }
        self.judge_body(head, body).map(Self::into_matches).map_err(Refusal::into_rejection)
    }

    /// The result has no open guards.
    fn judge_body(&self, head: Head<'_>, body: &[u8]) -> Result<Self, Refusal<'_>> {
        let mut pending = Self { open: Vec::new(), matches: self.matches.clone() };
        for open in &self.open {
            match open {
                Open::Call { .. } => return Err(Refusal::Misassembled(Missing::CallAuth)),
                Open::Body(scheme) => {
                    let refused = |error| Refusal::Scheme(scheme, error);
                    match scheme.scheme.check_body(head, body).map_err(refused)? {
                        Proof::Complete => {}
                        Proof::Secret(position) => pending.matches.add(scheme.series, position),
                        // Here is the end: a scheme that has not come to its own lets nobody in.
                        Proof::NeedsBody | Proof::NeedsCall => return Err(refused(AuthError::Invalid)),
                    }
                }
                Open::AnyOf(before) => {
                    let mut left = Alternatives { failed: before.failed, ..Alternatives::default() };
                    for alternative in &before.open {
                        if left.take(alternative.judge_body(head, body))? {
                            break;
                        }
                    }
                    pending.take(left)?;
                }
            }
        }
        Ok(pending)
    }

    /// Adds the state of a list of alternatives.
    fn take(&mut self, alternatives: Alternatives) -> Result<(), Refusal<'static>> {
        match alternatives {
            Alternatives { settled: Some(matches), .. } => self.matches.extend(matches),
            Alternatives { open, failed, .. } if open.is_empty() => {
                return Err(Refusal::AnyOf(failed.unwrap_or(AuthError::Invalid)));
            }
            open => self.open.push(Open::AnyOf(open)),
        }
        Ok(())
    }
}

impl Alternatives {
    /// Adds the outcome of one alternative. Returns whether it let the request in: then the others are not needed.
    fn take<'a>(&mut self, outcome: Result<Pending, Refusal<'a>>) -> Result<bool, Refusal<'a>> {
        match outcome {
            Ok(pending) if pending.is_empty() => self.settled = Some(pending.matches),
            Ok(pending) => self.open.push(pending),
            Err(Refusal::Scheme(_, error) | Refusal::AnyOf(error)) => {
                if self.failed.is_none_or(|failed| weight(failed) < weight(error)) {
                    self.failed = Some(error);
                }
            }
            Err(misassembled @ Refusal::Misassembled(_)) => return Err(misassembled),
        }
        Ok(self.settled.is_some())
    }
}

/// Why a list of guards does not let a request in.
enum Refusal<'a> {
    Scheme(&'a Named, AuthError),
    AnyOf(AuthError),
    /// This layer is missing.
    Misassembled(Missing),
}

impl Refusal<'_> {
    fn into_rejection(self) -> Rejection {
        let (series, error, challenge): (_, _, &dyn Fn(AuthError) -> HeaderValue) = match &self {
            Refusal::Scheme(named, error) => (named.series, *error, &|error| named.scheme.challenge(error)),
            // A stranger must not learn which alternatives exist.
            Refusal::AnyOf(error) => (Series::of(ANY_OF), *error, &|_| UNNAMED_CHALLENGE),
            Refusal::Misassembled(missing) => return Rejection::misassembled(*missing),
        };
        series.refused(error);
        let rejection = match error {
            AuthError::Forbidden => RejectionKind::Forbidden.into(),
            AuthError::Unavailable => RejectionKind::AuthUnavailable.into(),
            // The sender knows whether it sent a credential, and learns nothing more.
            AuthError::Missing => Rejection::unauthenticated(challenge(AuthError::Missing)),
            _ => Rejection::unauthenticated(challenge(AuthError::Invalid)),
        };
        rejection.because(series.guard(), error.reason())
    }
}

/// The weight of a reason among those of several alternatives. An alternative that cannot be checked now weighs most, since
/// it may let the request in later. A refused address weighs least: another credential might help.
fn weight(error: AuthError) -> u8 {
    match error {
        AuthError::Forbidden => 0,
        AuthError::Missing => 1,
        AuthError::Unavailable => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    /// Returns fixed results.
    #[derive(Clone, Copy, Debug)]
    struct Scripted {
        head: Result<Proof, AuthError>,
        call: Result<Proof, AuthError>,
        body: Result<Proof, AuthError>,
    }

    impl Scheme for Scripted {
        fn check_head(&self, _: Head<'_>) -> Result<Proof, AuthError> {
            self.head
        }

        async fn check_call(&self, _: Head<'_>) -> Result<Proof, AuthError> {
            self.call
        }

        fn check_body(&self, _: Head<'_>, _: &[u8]) -> Result<Proof, AuthError> {
            self.body
        }

        fn challenge(&self, _: AuthError) -> HeaderValue {
            HeaderValue::from_static("Scripted")
        }
    }

    impl Scripted {
        /// Whether it lets in, if `calls` says that calls can be made.
        fn lets_in(&self, calls: bool) -> bool {
            let by_body = self.body == Ok(Proof::Complete);
            match self.head {
                Ok(Proof::Complete) => true,
                Ok(Proof::NeedsBody) => by_body,
                Ok(Proof::NeedsCall) => match self.call {
                    Ok(Proof::Complete) => calls,
                    Ok(Proof::NeedsBody) => calls && by_body,
                    _ => false,
                },
                _ => false,
            }
        }
    }

    /// A tree of guards, for the model and for what is tested.
    #[derive(Clone, Debug)]
    enum Tree {
        Scheme(Scripted),
        AnyOf(Vec<Vec<Tree>>),
    }

    impl Tree {
        fn lets_in(&self, calls: bool) -> bool {
            match self {
                Self::Scheme(scheme) => scheme.lets_in(calls),
                Self::AnyOf(alternatives) => {
                    alternatives.iter().any(|guards| guards.iter().all(|guard| guard.lets_in(calls)))
                }
            }
        }

        fn guard(&self) -> Guard {
            match self {
                Self::Scheme(scheme) => Guard::new("other", Arc::new(*scheme)),
                Self::AnyOf(alternatives) => Guard::any_of(alternatives.iter().map(|list| guards(list)).collect()),
            }
        }
    }

    fn guards(list: &[Tree]) -> Guards {
        Guards::new(list.iter().map(Tree::guard).collect())
    }

    const ALL: Follows = Follows { call: true, verify_body: true };

    /// As the three layers do it.
    fn run(guards: &Guards, calls: bool) -> Result<(), Rejection> {
        let request = Request::new(());
        let head = Head::of(&request);
        let pending = guards.check_head(head, ALL)?;
        let settle = async |pending: &Pending| match calls {
            true => pending.check_calls(head).await,
            false => pending.without_calls().await,
        };
        let pending = match pending.needs_call() {
            true => settle(&pending).now_or_never().unwrap()?,
            false => pending,
        };
        assert!(!pending.needs_call());
        match pending.is_empty() {
            true => Ok(()),
            false => pending.check_body(head, b"").map(drop),
        }
    }

    fn proof() -> impl Strategy<Value = Result<Proof, AuthError>> {
        use AuthError::{BadSignature, Forbidden, Invalid, Missing, Unavailable};
        prop_oneof![
            3 => Just(Ok(Proof::Complete)),
            2 => Just(Ok(Proof::NeedsBody)),
            2 => Just(Ok(Proof::NeedsCall)),
            2 => prop::sample::select(vec![Missing, Invalid, BadSignature, Forbidden, Unavailable]).prop_map(Err),
        ]
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let scheme = (proof(), proof(), proof()).prop_map(|(head, call, body)| Scripted { head, call, body });
        scheme.prop_map(Tree::Scheme).prop_recursive(3, 24, 3, |tree| {
            prop::collection::vec(prop::collection::vec(tree, 1..3), 1..4).prop_map(Tree::AnyOf)
        })
    }

    proptest! {
        #[test]
        fn exactly_the_configured_alternatives_let_in(list in prop::collection::vec(tree(), 0..4), calls in any::<bool>()) {
            let expected = list.iter().all(|tree| tree.lets_in(calls));
            let outcome = run(&guards(&list), calls);
            prop_assert_eq!(outcome.is_ok(), expected, "{:?}", outcome);
            let kinds = [RejectionKind::Unauthenticated, RejectionKind::Forbidden, RejectionKind::AuthUnavailable];
            prop_assert!(outcome.is_ok() || kinds.contains(&outcome.unwrap_err().kind()));
        }

        #[test]
        fn a_layer_that_is_missing_lets_nobody_in(list in prop::collection::vec(tree(), 0..4)) {
            let request = Request::new(());
            let pending = guards(&list).check_head(Head::of(&request), Follows::default());
            prop_assert!(pending.is_err() || pending.unwrap().is_empty());
            // The body does not replace the call.
            if let Ok(pending) = guards(&list).check_head(Head::of(&request), ALL) && pending.needs_call() {
                let outcome = pending.check_body(Head::of(&request), b"").map(drop);
                prop_assert_eq!(outcome.unwrap_err().kind(), RejectionKind::Misassembled);
            }
        }
    }

    fn scheme(head: Result<Proof, AuthError>) -> Tree {
        let missing = Err(AuthError::Missing);
        Tree::Scheme(Scripted { head, call: missing, body: missing })
    }

    fn kind(alternatives: &[Result<Proof, AuthError>]) -> RejectionKind {
        let any_of = Tree::AnyOf(alternatives.iter().map(|head| vec![scheme(*head)]).collect());
        run(&guards(&[any_of]), true).unwrap_err().kind()
    }

    #[test]
    fn what_cannot_be_checked_now_is_told_before_what_is_wrong() {
        use AuthError::{Forbidden, Invalid, Missing, Unavailable};
        use RejectionKind as K;
        assert_eq!(kind(&[Err(Invalid), Err(Unavailable), Err(Missing)]), K::AuthUnavailable);
        assert_eq!(kind(&[Err(Forbidden), Err(Missing)]), K::Unauthenticated);
        assert_eq!(kind(&[Err(Forbidden), Err(Forbidden)]), K::Forbidden);
        assert_eq!(kind(&[Ok(Proof::NeedsBody), Err(Unavailable)]), K::AuthUnavailable, "also after the body");
    }

    #[test]
    fn a_call_that_failed_does_not_come_back_with_the_body() {
        let failed = Scripted { head: Ok(Proof::NeedsCall), call: Err(AuthError::Invalid), body: Ok(Proof::Complete) };
        let other = Scripted { head: Ok(Proof::NeedsBody), call: failed.call, body: Err(AuthError::BadSignature) };
        let any_of = Tree::AnyOf(vec![vec![Tree::Scheme(failed)], vec![Tree::Scheme(other)]]);
        assert_eq!(run(&guards(&[any_of]), true).unwrap_err().kind(), RejectionKind::Unauthenticated);
    }
}
