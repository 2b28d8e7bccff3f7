//! The webhook's key `basic_auth`.

mod checks;
mod credentials;
mod fits;
mod known;
mod password;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::checks::{Check, Checks, Owner};
use self::credentials::Credentials;
#[cfg(fuzzing)]
pub(crate) use self::credentials::fuzz;
use self::fits::Fits;
use self::known::Known;
use self::password::{Memory, Password};
use super::only_value;
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme, Secrets, SecretsConfig, WallClock};
use crate::config::{BuildContext, BuildError, CompileError, missing_key};
use crate::request::Head;

/// How many users a guard may have, and how many hashes a user: each attempt checks all of them.
const MAX_USERS: usize = 1000;
const MAX_HASHES: usize = 4;

/// `Authorization: Basic …` (RFC 7617): names, and their passwords or the hashes of these.
///
/// A password that begins with `$argon2id$`, `$2a$`, `$2b$` or `$2y$` is a hash by argon2id or bcrypt. To check a hash can take
/// a core for a tenth of a second, so separate threads do it. If too many checks are waiting, the request is refused with a
/// 503. A password that was right is remembered until it has not been used for a minute; only a keyed digest of it is kept, in
/// memory. A scheme with a hash needs a [`CallAuthLayer`](crate::layers::CallAuthLayer) behind the
/// [`RequireAuthLayer`](crate::layers::RequireAuthLayer).
///
/// An unknown name takes the same work as a known one.
///
/// ```
/// use tower_webhook::layers::RequireAuthLayer;
/// use tower_webhook::auth::BasicAuth;
///
/// let guard = RequireAuthLayer::new(BasicAuth::new("ci", "a password of 128 bits")?);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone)]
pub struct BasicAuth {
    users: Arc<Users>,
    clock: WallClock,
    checks: Arc<Checks<PasswordCheck>>,
    owner: Owner,
}

struct Users {
    by_name: HashMap<Box<[u8]>, usize>,
    list: Vec<User>,
    /// The random key of the digests.
    seed: [u8; 32],
}

struct User {
    passwords: Secrets<Password>,
    /// Whether one of them is a hash.
    has_hash: bool,
    known: Known,
}

/// A name and a password that were sent.
struct Attempt {
    password: Vec<u8>,
    /// The index of the user. For an unknown name it is that of a user whose passwords are checked for nothing.
    at: usize,
    is_user: bool,
    digest: [u8; 32],
}

impl BasicAuth {
    /// Lets requests in that have this name and one of its `passwords`, which may be hashes.
    ///
    /// # Errors
    ///
    /// When the name is empty or holds a colon or a control character, when a password would guard nothing, and when a hash
    /// is not well-formed or would cost too much to check: more than 64 MiB, 4 rounds or 4 lanes of argon2id, a cost of more
    /// than 12 of bcrypt, more than 4 hashes.
    pub fn new(name: &str, passwords: impl Into<SecretsConfig>) -> Result<Self, BuildError> {
        Self::of_users([(name, passwords)])
    }

    /// Lets several users in; each has a name and passwords.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). Also when there is no user, when a name occurs twice, and when there are more than 1,000 users.
    pub fn of_users<N: Into<String>, P: Into<SecretsConfig>>(
        users: impl IntoIterator<Item = (N, P)>,
    ) -> Result<Self, BuildError> {
        let users = users.into_iter().map(|(name, passwords)| {
            let name = name.into();
            let user = check_name(&name).and_then(|()| User::new(Secrets::new(passwords, Password::read)?));
            user.map_err(|error| error.inside(&name)).map(|user| (name, user))
        });
        Ok(Self::of(Users::new(users)?, WallClock::system()))
    }

    fn of(users: Users, clock: WallClock) -> Self {
        static CHECKS: LazyLock<Arc<Checks<PasswordCheck>>> = LazyLock::new(Checks::new);
        let checks = Arc::clone(&CHECKS);
        Self { users: Arc::new(users), clock, owner: checks.owner(), checks }
    }

    fn judge(&self, attempt: &Attempt, fits: Fits) -> Result<Proof, AuthError> {
        let user = self.users.list.get(attempt.at).ok_or(AuthError::Invalid)?;
        let position = user.passwords.judge(&self.clock, fits.each())?;
        match attempt.is_user {
            true => Ok(position.into()),
            false => Err(AuthError::Invalid),
        }
    }
}

/// The configuration of `basic_auth`: `username` and `password`, or `users`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuthConfig {
    username: Option<String>,
    password: Option<SecretsConfig>,
    users: Option<BTreeMap<String, SecretsConfig>>,
}

impl ConfigScheme for BasicAuth {
    const KEY: &'static str = "basic_auth";

    type Config = BasicAuthConfig;

    fn build(config: BasicAuthConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let user = |passwords| User::new(Secrets::build(passwords, cx, Password::read)?);
        let users = match config {
            BasicAuthConfig { username: Some(name), password: Some(password), users: None } => {
                check_name(&name).map_err(|error| error.inside("username"))?;
                let user = user(password).map_err(|error| error.inside("password"))?;
                Users::new([Ok((name, user))])?
            }
            BasicAuthConfig { username: None, password: None, users: Some(users) } => {
                let users = users.into_iter().map(|(name, passwords)| {
                    let user = check_name(&name).and_then(|()| user(passwords));
                    user.map_err(|error| error.inside(&name)).map(|user| (name, user))
                });
                Users::new(users).map_err(|error| error.inside("users"))?
            }
            BasicAuthConfig { users: Some(_), .. } => {
                return Err("expected `username` and `password`, or `users`, found both".into());
            }
            BasicAuthConfig { username: None, .. } => return Err(missing_key("username").into()),
            BasicAuthConfig { password: None, .. } => return Err(missing_key("password").into()),
        };
        Ok(Self::of(users, cx.clock().clone()))
    }
}

fn check_name(name: &str) -> Result<(), CompileError> {
    let refuse = |found: &str| Err(CompileError::new(format!("expected the name of a user, found {found}")));
    match name {
        "" => refuse("an empty one"),
        _ if name.contains(':') => refuse("one with a colon, which ends a name"),
        _ if name.contains(char::is_control) => refuse("one with a control character"),
        _ => Ok(()),
    }
}

impl Users {
    fn new(users: impl IntoIterator<Item = Result<(String, User), CompileError>>) -> Result<Self, CompileError> {
        let mut all = Self { by_name: HashMap::new(), list: Vec::new(), seed: [0; 32] };
        getrandom::fill(&mut all.seed)
            .map_err(|error| CompileError::new(format!("the system gives no random bytes: {error}")))?;
        for user in users {
            let (name, user) = user?;
            all.list.push(user);
            if all.by_name.insert(name.as_bytes().into(), all.list.len() - 1).is_some() {
                return Err(CompileError::new("expected one user of this name, found two").inside(&name));
            }
        }
        match all.list.len() {
            0 => Err(CompileError::new("expected at least one user, found none")),
            1..=MAX_USERS => Ok(all),
            found => Err(CompileError::new(format!("expected at most {MAX_USERS} users, found {found}"))),
        }
    }

    fn attempt(&self, head: Head<'_>) -> Result<Attempt, AuthError> {
        let credentials = Credentials::read(only_value(head, &AUTHORIZATION)?.trim_ascii())?;
        // Always the same user for the same name: else varying work would give an unknown name away.
        let decoy = self.digest(&[b"name", credentials.name()]);
        let decoy = decoy.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) as usize % self.list.len().max(1);
        let user = self.by_name.get(credentials.name());
        let (at, is_user) = user.map_or((decoy, false), |at| (*at, true));
        let digest = self.digest(&[b"password", &at.to_le_bytes(), &[is_user.into()], credentials.password()]);
        Ok(Attempt { password: credentials.password().to_vec(), at, is_user, digest })
    }

    /// Each part but the last one has a fixed length.
    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        parts
            .iter()
            .fold(Sha256::new_with_prefix(self.seed), |digest, part| digest.chain_update(part))
            .finalize()
            .into()
    }

    fn check(&self, attempt: &Attempt, memory: &mut Memory) -> Fits {
        let Some(user) = self.list.get(attempt.at) else { return Fits::default() };
        Fits::of(user.passwords.keys().map(|password| password.matches(&attempt.password, memory)))
    }
}

impl User {
    fn new(passwords: Secrets<Password>) -> Result<Self, CompileError> {
        let hashes = passwords.keys().filter(|password| password.is_hash()).count();
        if hashes > MAX_HASHES {
            let text = format!("expected at most {MAX_HASHES} hashes for a user, found {hashes}: each is checked");
            return Err(CompileError::new(text));
        }
        let known = Known::new(passwords.keys().len());
        Ok(Self { passwords, has_hash: hashes > 0, known })
    }
}

impl Scheme for BasicAuth {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let attempt = self.users.attempt(head)?;
        let user = self.users.list.get(attempt.at).ok_or(AuthError::Invalid)?;
        if !user.has_hash {
            return self.judge(&attempt, self.users.check(&attempt, &mut Memory::default()));
        }
        match user.known.find(&attempt.digest) {
            Some(fits) => self.judge(&attempt, fits),
            None => Ok(Proof::NeedsCall),
        }
    }

    /// Waits until another thread has checked the hash.
    async fn check_call(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        let attempt = Arc::new(self.users.attempt(head)?);
        let check = PasswordCheck { users: Arc::clone(&self.users), attempt: Arc::clone(&attempt) };
        let found = self.checks.begin(self.owner, check).map_err(|_| AuthError::Unavailable)?;
        self.judge(&attempt, found.await.map_err(|_| AuthError::Unavailable)?)
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static(r#"Basic realm="webhook", charset="UTF-8""#)
    }

    fn label(&self) -> &'static str {
        Self::KEY
    }
}

struct PasswordCheck {
    users: Arc<Users>,
    attempt: Arc<Attempt>,
}

impl Check for PasswordCheck {
    type Found = Fits;

    fn is_same(&self, other: &Self) -> bool {
        self.attempt.digest.ct_eq(&other.attempt.digest).into()
    }

    fn run(&self, memory: &mut Memory) -> Fits {
        let fits = self.users.check(&self.attempt, memory);
        if self.attempt.is_user
            && !fits.is_none()
            && let Some(user) = self.users.list.get(self.attempt.at)
        {
            user.known.remember(self.attempt.digest, fits);
        }
        fits
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BasicAuth({} users)", self.users.list.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use futures_util::FutureExt;
    use http::Request;

    use super::*;
    use crate::auth::schemes::tests::{build, error};

    /// Made with argon2-cffi and bcrypt of Python, of `hunter2`.
    const ARGON2: &str =
        "$argon2id$v=19$m=64,t=1,p=1$DjA2W7z6q1McXH6VNTyifw$GBAmlrc3lOCQhvsKvhlRzACM7SDDVv33vqcSD3o5Fj4";
    const BCRYPT: &str = "$2b$04$HTjZAQWvQus73sumvr2P5e6XMFHn1RmKQFLTxwUBAm3KNnidZ0kXW";

    fn request(values: &[&str]) -> Request<()> {
        let mut request = Request::new(());
        for value in values {
            request.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
        }
        request
    }

    fn basic(name: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
    }

    fn head(guard: &BasicAuth, name: &str, password: &str) -> Result<Proof, AuthError> {
        guard.check_head(Head::of(&request(&[&basic(name, password)])))
    }

    /// The position of the password that let in.
    async fn sent(guard: &BasicAuth, name: &str, password: &str) -> Result<usize, AuthError> {
        let request = request(&[&basic(name, password)]);
        let proof = match guard.check_head(Head::of(&request))? {
            Proof::NeedsCall => guard.check_call(Head::of(&request)).await?,
            settled => settled,
        };
        match proof {
            Proof::Secret(position) => Ok(position.index()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_head_settles_what_is_no_hash() {
        let guard: BasicAuth = build(r#"{"username": "ci", "password": "p:w £"}"#).unwrap();
        assert!(matches!(head(&guard, "ci", "p:w £"), Ok(Proof::Secret(_))));
        for (name, password) in [
            ("ci", ""),
            ("", "p:w £"),
            ("ci", "p:w"),
            ("CI", "p:w £"),
            ("ci", "P:w £"),
            ("ci", "p:w £ "),
            ("cj", "p:w £"),
        ] {
            assert_eq!(head(&guard, name, password), Err(AuthError::Invalid), "{name}:{password}");
        }
        let latin = format!("basic {}", STANDARD.encode(b"ci:p:w \xa3"));
        assert!(guard.check_head(Head::of(&request(&[&latin]))).is_ok());
        let right = basic("ci", "p:w £");
        for (values, error) in [
            (&[][..], AuthError::Missing),
            (&["Bearer abc"], AuthError::Missing),
            (&[&*right, &*right], AuthError::Malformed),
            (&[&*format!("{right}=")], AuthError::Malformed),
            (&["Basic Y2k="], AuthError::Malformed),
        ] {
            assert_eq!(guard.check_head(Head::of(&request(values))), Err(error), "{values:?}");
        }
    }

    #[test]
    fn a_flipped_bit_lets_nobody_in() {
        let guard = BasicAuth::new("ci", "password").unwrap();
        let right = b"ci:password";
        for at in 0..right.len() * 8 {
            let mut flipped = *right;
            flipped[at / 8] ^= 1 << (at % 8);
            let value = format!("Basic {}", STANDARD.encode(flipped));
            assert!(guard.check_head(Head::of(&request(&[&value]))).is_err(), "{at}");
        }
    }

    #[tokio::test]
    async fn a_hash_is_checked_once_and_its_password_known_then() {
        for hash in [ARGON2, BCRYPT] {
            let guard = BasicAuth::new("ci", hash).unwrap();
            assert_eq!(head(&guard, "ci", "hunter2"), Ok(Proof::NeedsCall), "{hash}");
            assert_eq!(sent(&guard, "ci", "hunter3").await, Err(AuthError::Invalid));
            assert_eq!(sent(&guard, "ci", hash).await, Err(AuthError::Invalid));
            assert_eq!(sent(&guard, "ci", "hunter2").await, Ok(0));
            assert!(matches!(head(&guard, "ci", "hunter2"), Ok(Proof::Secret(_))), "it is known");
            for (name, password) in [("ci", "hunter3"), ("ci", "hunter22"), ("cj", "hunter2"), ("ci", "")] {
                assert_eq!(head(&guard, name, password), Ok(Proof::NeedsCall), "{name}:{password} is not known");
                assert_eq!(sent(&guard, name, password).await, Err(AuthError::Invalid));
            }
            assert_eq!(head(&guard, "ci", "hunter3"), Ok(Proof::NeedsCall), "nor is what was wrong");
            assert!(
                matches!(head(&guard, "ci", "hunter2"), Ok(Proof::Secret(_))),
                "it does not displace what was right"
            );
        }
    }

    #[tokio::test]
    async fn what_one_guard_knows_another_does_not() {
        let (one, other) = (BasicAuth::new("ci", ARGON2).unwrap(), BasicAuth::new("ci", ARGON2).unwrap());
        assert_eq!(sent(&one, "ci", "hunter2").await, Ok(0));
        assert_eq!(head(&other, "ci", "hunter2"), Ok(Proof::NeedsCall));
        let two = BasicAuth::of_users([("a", ARGON2), ("b", BCRYPT)]).unwrap();
        assert_eq!(sent(&two, "a", "hunter2").await, Ok(0));
        assert_eq!(head(&two, "b", "hunter2"), Ok(Proof::NeedsCall));
        assert_eq!(sent(&two, "b", "hunter2").await, Ok(0));
    }

    #[tokio::test]
    async fn an_unknown_name_costs_the_work_of_a_user() {
        let guard = BasicAuth::new("ci", BCRYPT).unwrap();
        assert_eq!(head(&guard, "nobody", "hunter2"), Ok(Proof::NeedsCall));
        assert_eq!(sent(&guard, "nobody", "hunter2").await, Err(AuthError::Invalid));
        assert_eq!(head(&guard, "nobody", "hunter2"), Ok(Proof::NeedsCall), "it is not known then");
        // Of users whose passwords are checked in different ways, each name has always the same one.
        let guard = BasicAuth::of_users([("a", BCRYPT), ("b", "plain")]).unwrap();
        let outcomes: Vec<_> = (0..64).map(|n| head(&guard, &format!("nobody{n}"), "x")).collect();
        let again: Vec<_> = (0..64).map(|n| head(&guard, &format!("nobody{n}"), "y")).collect();
        assert_eq!(outcomes, again);
        assert!(outcomes.contains(&Ok(Proof::NeedsCall)) && outcomes.contains(&Err(AuthError::Invalid)));
    }

    #[tokio::test]
    async fn a_request_that_finds_no_room_for_its_check_is_refused_for_now() {
        let guard = BasicAuth { checks: Checks::with_threads(0), ..BasicAuth::new("ci", BCRYPT).unwrap() };
        let requests: Vec<_> = (0..17).map(|n| request(&[&basic("ci", &format!("guess{n}"))])).collect();
        let mut waiting: Vec<_> =
            requests.iter().map(|request| Box::pin(guard.check_call(Head::of(request)))).collect();
        let outcomes: Vec<_> = waiting.iter_mut().map(|call| call.now_or_never()).collect();
        assert_eq!(outcomes[..16], [None; 16]);
        assert_eq!(outcomes[16], Some(Err(AuthError::Unavailable)));
        drop(waiting);
        let request = request(&[&basic("ci", "hunter2")]);
        let call = std::pin::pin!(guard.check_call(Head::of(&request)));
        assert_eq!(call.now_or_never(), None, "there is room again");
    }

    #[tokio::test]
    async fn several_passwords_may_be_valid_and_each_for_its_time() {
        let seconds = Arc::new(AtomicU64::new(0));
        let clock = {
            let seconds = Arc::clone(&seconds);
            WallClock::from_fn(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)))
        };
        let json = format!(
            r#"{{"users": {{"a": ["new", {{"value": "{BCRYPT}", "not_after": "1970-01-01T00:10:00Z"}}], "b": "other"}}}}"#
        );
        let guard = BasicAuth { clock, ..build(&json).unwrap() };
        assert_eq!(sent(&guard, "a", "new").await, Ok(0));
        assert_eq!(sent(&guard, "a", "hunter2").await, Ok(1));
        assert_eq!(sent(&guard, "b", "other").await, Ok(0));
        assert_eq!(sent(&guard, "b", "new").await, Err(AuthError::Invalid));
        assert!(matches!(head(&guard, "a", "hunter2"), Ok(Proof::Secret(_))));
        seconds.store(600, Ordering::Relaxed);
        assert_eq!(head(&guard, "a", "hunter2"), Err(AuthError::ExpiredSecret), "also while it is known");
        assert_eq!(sent(&guard, "a", "new").await, Ok(0));
    }

    #[test]
    fn what_could_not_guard_does_not_build() {
        let many: Vec<_> = (0..1001).map(|n| format!(r#""u{n}": "p""#)).collect();
        let hashes = [format!("\"{ARGON2}\""), format!("\"{BCRYPT}\"")].join(",");
        for (json, text) in [
            ("{}", "the key `username` is missing"),
            (r#"{"username": "a"}"#, "the key `password` is missing"),
            (r#"{"password": "a"}"#, "the key `username` is missing"),
            (r#"{"username": "", "password": "a"}"#, "username: expected the name of a user, found an empty one"),
            (
                r#"{"username": "a:b", "password": "a"}"#,
                "username: expected the name of a user, found one with a colon",
            ),
            (r#"{"username": "a", "password": ""}"#, "password: the secret is empty"),
            (r#"{"username": "a", "password": "$PASSWORD"}"#, "password: the secret is a placeholder"),
            (r#"{"username": "a", "password": "$1$x$y"}"#, "password: expected a password, or its hash by argon2id"),
            (r#"{"users": {}}"#, "users: expected at least one user, found none"),
            (r#"{"users": {"a": " "}}"#, "users.a: the secret is empty"),
            (r#"{"users": {"a": []}}"#, "users.a: expected at least one secret, found none"),
            (r#"{"users": {"a": "b"}, "username": "a"}"#, "expected `username` and `password`, or `users`, found both"),
            (r#"{"users": []}"#, "users: expected an object, found an array"),
            (&*format!(r#"{{"users": {{{}}}}}"#, many.join(",")), "users: expected at most 1000 users, found 1001"),
            (
                &*format!(r#"{{"users": {{"a": [{hashes}, {hashes}, {hashes}]}}}}"#),
                "users.a: expected at most 4 hashes for a user, found 6: each is checked",
            ),
        ] {
            let error = error::<BasicAuth>(json);
            assert!(error.starts_with(text), "{json}: {error}");
        }
        assert!(BasicAuth::of_users([("a", "b"), ("a", "c")]).is_err());
    }

    #[test]
    fn debug_shows_neither_a_password_nor_a_hash() {
        let guard = BasicAuth::of_users([("ci", "hunter2"), ("cj", BCRYPT)]).unwrap();
        let shown = format!("{guard:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("$2b$"), "{shown}");
    }
}
