//! The webhook's key `hmac`.

use arrayvec::ArrayVec;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use http::header::HeaderName;
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::header_auth::header_name;
use super::{UNNAMED_CHALLENGE, one_of, only_value};
use crate::auth::{AuthError, ConfigScheme, Proof, Scheme, Secrets, SecretsConfig, WallClock};
use crate::config::{BuildContext, BuildError, CompileError, quote};
use crate::request::Head;

/// An HMAC of the body in a header field, in hex, with or without the name of the algorithm before it: `sha256=…`.
///
/// The code covers only the body, so somebody who has seen a request can send it again. The key `dedup` helps against that.
///
/// ```
/// use tower_webhook::layers::RequireAuthLayer;
/// use tower_webhook::auth::{HmacAlgorithm, HmacAuth};
///
/// let scheme = HmacAuth::new(HmacAlgorithm::Sha256, "x-hmac-signature", "a secret of 128 bits")?;
/// // Then a `CollectBodyLayer` and a `VerifyBodyLayer`.
/// let guard = RequireAuthLayer::new(scheme).verify_body_follows();
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HmacAuth {
    algorithm: HmacAlgorithm,
    name: HeaderName,
    keys: Secrets<Key>,
    clock: WallClock,
}

/// The hash of an [`HmacAuth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// HMAC-SHA1, for senders that support nothing better. The known attacks on SHA-1 do not break HMAC-SHA1.
    Sha1,
    /// HMAC-SHA256.
    Sha256,
    /// HMAC-SHA512.
    Sha512,
}

/// The state of an HMAC after its key.
#[derive(Clone)]
enum Key {
    Sha1(Box<Hmac<Sha1>>),
    Sha256(Box<Hmac<Sha256>>),
    Sha512(Box<Hmac<Sha512>>),
}

/// The longest code, in bytes.
const LONGEST: usize = 64;

impl HmacAuth {
    /// Lets in requests whose field `name` has the code of their body, made with one of `secrets`.
    ///
    /// # Errors
    ///
    /// When `name` is no name of a header field, and when a secret would guard nothing.
    pub fn new(algorithm: HmacAlgorithm, name: &str, secrets: impl Into<SecretsConfig>) -> Result<Self, BuildError> {
        let keys = Secrets::new(secrets, |text| algorithm.key(text))?;
        Ok(Self { algorithm, name: header_name(name)?, keys, clock: WallClock::system() })
    }

    /// The code in the request.
    fn sent(&self, head: Head<'_>) -> Result<ArrayVec<u8, LONGEST>, AuthError> {
        let value = only_value(head, &self.name)?.trim_ascii();
        let hex = match value.iter().position(|byte| *byte == b'=') {
            Some(at) if value[..at].eq_ignore_ascii_case(self.algorithm.name().as_bytes()) => &value[at + 1..],
            _ => value,
        };
        parse_hex(hex).filter(|code| code.len() == self.algorithm.length()).ok_or(AuthError::Malformed)
    }
}

/// The configuration of `hmac`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    #[serde(default = "default_header")]
    header: String,
    #[serde(default = "default_algorithm")]
    algorithm: String,
    secret: Option<SecretsConfig>,
    secrets: Option<SecretsConfig>,
}

fn default_header() -> String {
    "X-HMAC-Signature".to_owned()
}

fn default_algorithm() -> String {
    HmacAlgorithm::Sha256.name().to_owned()
}

impl ConfigScheme for HmacAuth {
    const KEY: &'static str = "hmac";

    type Config = HmacConfig;

    fn build(config: HmacConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let HmacConfig { header, algorithm, secret, secrets } = config;
        let (key, secrets) = one_of(("secret", secret), ("secrets", secrets))?;
        let algorithm = HmacAlgorithm::read(&algorithm).map_err(|error| error.inside("algorithm"))?;
        let name = header_name(&header).map_err(|error| error.inside("header"))?;
        let keys = Secrets::build(secrets, cx, |text| algorithm.key(text)).map_err(|error| error.inside(key))?;
        Ok(Self { algorithm, name, keys, clock: cx.clock().clone() })
    }
}

impl HmacAlgorithm {
    const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// By its name, in any case.
    fn read(name: &str) -> Result<Self, CompileError> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name.trim()));
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            CompileError::new(format!("expected one of {}, found another string", quote(&names)))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of a code, in bytes.
    fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn key(self, secret: &str) -> Result<Key, BuildError> {
        let secret = secret.as_bytes();
        Ok(match self {
            Self::Sha1 => Key::Sha1(Box::new(Hmac::new_from_slice(secret)?)),
            Self::Sha256 => Key::Sha256(Box::new(Hmac::new_from_slice(secret)?)),
            Self::Sha512 => Key::Sha512(Box::new(Hmac::new_from_slice(secret)?)),
        })
    }
}

impl Key {
    /// Whether `code` is that of `body`, in constant time.
    fn verifies(&self, body: &[u8], code: &[u8]) -> bool {
        fn verify<M: Mac + Clone>(key: &M, body: &[u8], code: &[u8]) -> bool {
            key.clone().chain_update(body).verify_slice(code).is_ok()
        }
        match self {
            Self::Sha1(key) => verify(&**key, body, code),
            Self::Sha256(key) => verify(&**key, body, code),
            Self::Sha512(key) => verify(&**key, body, code),
        }
    }
}

/// `None` if it is not hex throughout, or longer than a code can be.
fn parse_hex(text: &[u8]) -> Option<ArrayVec<u8, LONGEST>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > LONGEST {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

impl Scheme for HmacAuth {
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        // A malformed code is refused before a byte of the body is read.
        self.sent(head).map(|_| Proof::NeedsBody)
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        let code = self.sent(head)?;
        match self.keys.find(&self.clock, |key| key.verifies(body, &code)) {
            Err(AuthError::Invalid) => Err(AuthError::BadSignature),
            outcome => outcome.map(Proof::from),
        }
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        UNNAMED_CHALLENGE
    }

    fn reads_credential(&self, name: &HeaderName) -> bool {
        *name == self.name
    }

    fn label(&self) -> &'static str {
        Self::KEY
    }
}

/// No value of the header lets in a body whose code it is not, and none makes the parser panic.
#[cfg(fuzzing)]
pub(crate) fn fuzz(value: &[u8]) {
    let Ok(guard) = HmacAuth::new(HmacAlgorithm::Sha256, "x-code", "a secret") else { return };
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut request = http::Request::new(());
    request.headers_mut().insert("x-code", value);
    let head = Head::of(&request);
    if guard.check_head(head).is_ok() {
        // Nobody finds the code of this body by trying.
        assert!(guard.check_body(head, b"a body").is_err());
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::auth::schemes::tests::{build, error};

    /// Made with Python's `hmac` and `hashlib`, of the secret `hmac_secret`.
    const BODY: &[u8] = br#"{"a":1}"#;
    const SHA1: &str = "75df3788b0f5ad81805cbff16f506e94554c0939";
    const SHA256: &str = "55b556180c2df7ecfeaea8a9597275a64bf7c59655948011c001e19824d0e564";

    fn check(guard: &HmacAuth, fields: &[(&str, &str)], body: &[u8]) -> Result<(), AuthError> {
        let mut request = Request::new(());
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let head = Head::of(&request);
        assert_eq!(guard.check_head(head)?, Proof::NeedsBody);
        guard.check_body(head, body).map(drop)
    }

    fn hex(code: &[u8]) -> String {
        code.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_code_of_each_algorithm_lets_in() {
        let mut code = Hmac::<Sha512>::new_from_slice(b"hmac_secret").unwrap();
        code.update(BODY);
        let sha512 = hex(&code.finalize().into_bytes());
        for (algorithm, code) in [("sha1", SHA1), ("sha256", SHA256), ("sha512", &*sha512)] {
            let guard: HmacAuth =
                build(&format!(r#"{{"secret": "hmac_secret", "algorithm": "{algorithm}"}}"#)).unwrap();
            for value in [
                code.to_owned(),
                code.to_uppercase(),
                format!("{algorithm}={code}"),
                format!("{}={code}", algorithm.to_uppercase()),
            ] {
                assert_eq!(check(&guard, &[("x-hmac-signature", &value)], BODY), Ok(()), "{value}");
            }
        }
    }

    #[test]
    fn nothing_else_does() {
        use AuthError::{BadSignature, Malformed, Missing};
        let guard = HmacAuth::new(HmacAlgorithm::Sha256, "x-code", "hmac_secret").unwrap();
        let right = ("x-code", SHA256);
        assert_eq!(check(&guard, &[right], BODY), Ok(()));
        assert_eq!(check(&guard, &[], BODY), Err(Missing));
        assert_eq!(check(&guard, &[("x-hmac-signature", SHA256)], BODY), Err(Missing));
        assert_eq!(check(&guard, &[right, right], BODY), Err(Malformed));
        for value in [
            String::new(),
            "sha256=".to_owned(),
            SHA256[1..].to_owned(),
            SHA256[2..].to_owned(),
            format!("{SHA256}00"),
            format!("{SHA256}, {SHA256}"),
            format!("sha512={SHA256}"),
            format!("sha256:{SHA256}"),
            format!("={SHA256}"),
            format!("sha256=sha256={SHA256}"),
            format!("sha256= {SHA256}"),
            format!("0x{}", &SHA256[2..]),
            SHA256.replace('5', "g"),
            SHA256.replace('5', "+"),
            SHA1.to_owned(),
            "VbVWGAwt9+z+rqipWXJ1pkv3xZZVlIARwAHhmCTQ5WQ=".to_owned(),
        ] {
            assert_eq!(check(&guard, &[("x-code", &value)], BODY), Err(Malformed), "{value}");
        }
        for body in [&b""[..], b"{\"a\":1} ", b"{\"a\":2}", b"{\"a\":1", b"{\"a\": 1}"] {
            assert_eq!(check(&guard, &[right], body), Err(BadSignature), "{body:?}");
        }
    }

    #[test]
    fn a_flipped_bit_is_a_wrong_code() {
        let guard = HmacAuth::new(HmacAlgorithm::Sha256, "x-code", "hmac_secret").unwrap();
        let code = parse_hex(SHA256.as_bytes()).unwrap();
        for at in 0..code.len() * 8 {
            let mut flipped = code.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(check(&guard, &[("x-code", &hex(&flipped))], BODY), Err(AuthError::BadSignature), "{at}");
        }
        for at in 0..BODY.len() * 8 {
            let mut flipped = BODY.to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(check(&guard, &[("x-code", SHA256)], &flipped), Err(AuthError::BadSignature), "{at}");
        }
    }

    #[test]
    fn several_secrets_may_be_valid_and_one_may_have_expired() {
        let guard = |list: &str| build::<HmacAuth>(&format!(r#"{{"secrets": [{list}]}}"#)).unwrap();
        let sent = [("x-hmac-signature", SHA256)];
        assert_eq!(check(&guard(r#""other", "hmac_secret""#), &sent, BODY), Ok(()));
        assert_eq!(check(&guard(r#""other", "another""#), &sent, BODY), Err(AuthError::BadSignature));
        let old = r#"{"value": "hmac_secret", "not_after": "2020-01-01T00:00:00Z"}, "other""#;
        assert_eq!(check(&guard(old), &sent, BODY), Err(AuthError::ExpiredSecret));
    }

    #[test]
    fn what_could_not_guard_does_not_build() {
        for (json, text) in [
            ("{}", "the key `secret` is missing"),
            (r#"{"secret": "a", "secrets": ["b"]}"#, "expected `secret` or `secrets`, found both"),
            (r#"{"secret": " "}"#, "secret: the secret is empty"),
            (r#"{"secrets": ["a", ""]}"#, "secrets.1: the secret is empty"),
            (r#"{"secret": "$HMAC"}"#, "secret: the secret is a placeholder"),
            (r#"{"secret": "a", "algorithm": "md5"}"#, "algorithm: expected one of `sha1`, `sha256`, `sha512`"),
            (r#"{"secret": "a", "header": "a b"}"#, "header: expected the name of a header field"),
            (r#"{"secret": "a", "key": "b"}"#, "unknown key `key`"),
        ] {
            let error = error::<HmacAuth>(json);
            assert!(error.starts_with(text), "{json}: {error}");
        }
        assert!(HmacAuth::new(HmacAlgorithm::Sha1, "x-code", "").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let guard = HmacAuth::new(HmacAlgorithm::Sha256, "x-code", "hunter2").unwrap();
        assert!(!format!("{guard:?}").contains("hunter2"));
    }
}
