//! Secrets: kept as digests, and checked for being secrets at all.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 digest of a secret.
///
/// Comparing digests takes the same time whatever the candidate is. Neither the secret nor its length is kept in memory
/// or shown by `Debug`. Use it for tokens of high entropy, not for passwords.
#[derive(Clone)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest of `secret`.
    ///
    /// # Errors
    ///
    /// When [`check_secret`] refuses the secret.
    pub fn new(secret: &str) -> Result<Self, InvalidSecret> {
        check_secret(secret)?;
        Ok(Self(Sha256::digest(secret.as_bytes()).into()))
    }

    /// The digest that is written as `hex`; `None` if it is not 64 hex digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        let pairs: &[[u8; 2]; 32] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(digest))
    }

    /// Whether `candidate` is the secret. Takes constant time for candidates of one length.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        is_same(&Sha256::digest(candidate).into(), &self.0)
    }

    /// The digest of a candidate, which may be no secret at all.
    #[cfg(feature = "admin")]
    pub(crate) fn of(candidate: &[u8]) -> Self {
        Self(Sha256::digest(candidate).into())
    }

    /// Whether both are digests of the same secret. Takes constant time.
    #[cfg(feature = "admin")]
    pub(crate) fn is_equal(&self, other: &Self) -> bool {
        is_same(&self.0, &other.0)
    }
}

/// Compares digests in constant time: word by word, because `subtle` compares slices byte by byte.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let (one, other) = (one.as_chunks().0.iter(), other.as_chunks().0.iter());
    let differences = one.zip(other).map(|(one, other)| u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other));
    differences.fold(0, |all, difference| all | difference).ct_eq(&0).into()
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(..)")
    }
}

/// Checks that `secret` is neither blank nor a placeholder that nothing has filled in.
///
/// Such a placeholder guards nothing: every reader of the configuration knows it. A text is one if it contains `${…}`,
/// `{{…}}` or `{$NAME}`, or if it is `$NAME`, `$(NAME)` or `%NAME%`, alone or after one word as in `Bearer $NAME`. `NAME`
/// is in capitals in the last three. A hash such as `$argon2id$…` or `$2y$…` is no placeholder.
///
/// # Errors
///
/// When the secret is empty, blank, or such a placeholder. The error quotes nothing of the secret.
///
/// ```
/// use tower_webhook::auth::{InvalidSecret, check_secret};
///
/// assert!(check_secret("Bearer $2y$10$N9qo8uLOickgx2ZMRZoMye").is_ok());
/// assert_eq!(check_secret(" "), Err(InvalidSecret::Empty));
/// assert!(matches!(check_secret("Bearer ${TOKEN}"), Err(InvalidSecret::Placeholder(_))));
/// ```
pub fn check_secret(secret: &str) -> Result<(), InvalidSecret> {
    match secret.trim().is_empty() {
        true => Err(InvalidSecret::Empty),
        false => placeholder(secret).map_or(Ok(()), |shape| Err(InvalidSecret::Placeholder(shape))),
    }
}

/// The shape of the placeholder in `secret`, if there is one.
fn placeholder(secret: &str) -> Option<&'static str> {
    let holds = |open: &str, close: &str| secret.split_once(open).is_some_and(|(_, rest)| rest.contains(close));
    if holds("${", "}") {
        return Some("${…}");
    }
    if holds("{{", "}}") {
        return Some("{{…}}");
    }
    let braces = secret.split("{$").skip(1).filter_map(|rest| rest.split_once('}'));
    if braces.map(|(inner, _)| inner).any(|inner| is_variable(inner.split(':').next().unwrap_or(inner))) {
        return Some("{$NAME}");
    }
    let mut words = secret.split_ascii_whitespace();
    let word = match (words.next()?, words.next(), words.next()) {
        (word, None, _) | (_, Some(word), None) => word,
        _ => return None,
    };
    let between = |open, close| word.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    let shapes = [(between("$", ""), "$NAME"), (between("$(", ")"), "$(NAME)"), (between("%", "%"), "%NAME%")];
    shapes.into_iter().find(|(name, _)| name.is_some_and(is_capital_variable)).map(|(_, shape)| shape)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_capital_variable(name: &str) -> bool {
    is_variable(name) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains(|c: char| c.is_lowercase())
}

/// The reason for which a text is not accepted as a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSecret {
    /// The text is empty or blank: it would guard nothing.
    Empty,
    /// The text is or contains a placeholder of this shape that nothing has filled in.
    Placeholder(&'static str),
}

impl fmt::Display for InvalidSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the secret is empty"),
            Self::Placeholder(shape) => write!(
                f,
                "the secret is a placeholder that was not filled in: found `{shape}`, expected the secret itself, or \
                 `{{$TOKEN}}` in the configuration of a webhook or connection"
            ),
        }
    }
}

impl std::error::Error for InvalidSecret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_matches() {
        let secret = SecretDigest::new("abc").unwrap();
        assert!(secret.matches(b"abc"));
        for other in ["", "ab", "abcd", "ABC", " abc", "abc\n"] {
            assert!(!secret.matches(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn digests_differ_in_any_bit() {
        let digest = SecretDigest::new("abc").unwrap().0;
        assert!(is_same(&digest, &digest));
        for bit in 0..256 {
            let mut other = digest;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_same(&digest, &other), "bit {bit}");
        }
    }

    #[test]
    fn an_empty_secret_is_refused() {
        for empty in ["", " ", "\t\n"] {
            assert_eq!(SecretDigest::new(empty).unwrap_err(), InvalidSecret::Empty);
        }
    }

    #[test]
    fn a_placeholder_that_was_not_filled_in_is_refused() {
        for (secret, shape) in [
            ("${TOKEN}", "${…}"),
            ("Bearer ${TOKEN}", "${…}"),
            ("a${token:-x}b", "${…}"),
            ("${}", "${…}"),
            ("{{TOKEN}}", "{{…}}"),
            ("Bearer {{ .Values.token }}", "{{…}}"),
            ("{$TOKEN}", "{$NAME}"),
            ("x {$token:default} y", "{$NAME}"),
            ("$TOKEN", "$NAME"),
            ("$_", "$NAME"),
            (" $A1_B\n", "$NAME"),
            ("Bearer $TOKEN", "$NAME"),
            ("bearer   $TOKEN", "$NAME"),
            ("Token $TOKEN", "$NAME"),
            ("$(TOKEN)", "$(NAME)"),
            ("Bearer $(TOKEN)", "$(NAME)"),
            ("%TOKEN%", "%NAME%"),
        ] {
            let error = SecretDigest::new(secret).unwrap_err();
            assert_eq!(error, InvalidSecret::Placeholder(shape), "{secret}");
            assert!(error.to_string().contains("`{$TOKEN}`"), "{error}");
        }
    }

    #[test]
    fn hashes_and_odd_passwords_are_secrets() {
        for secret in [
            "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
            "$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
            "$apr1$salt$HASH",
            "$6$SALT$HASH",
            "Bearer $2y$10$abc",
            "$token",
            "$1ABC",
            "$",
            "$$TOKEN",
            "$TOKEN$",
            "a$TOKEN",
            "$TOKEN a b",
            "pa$$word{1}",
            "{$}",
            "{$ a}",
            "${",
            "}}{{",
            r#"{"a":{"b":1}}"#,
            "%",
            "100%",
            "%41%42",
            "$()",
        ] {
            assert_eq!(check_secret(secret), Ok(()), "{secret}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SecretDigest::new("abc").unwrap()), "SecretDigest(..)");
    }
}
