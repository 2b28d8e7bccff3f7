//! Decides by a field's name whether it holds a secret, and has the text that is shown instead.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};

/// Shown in place of a secret.
pub const REDACTED: &str = "***REDACTED***";

/// Whether a header field of this name holds the sender's credential for this receiver. The value of such a field is
/// neither shown nor sent on.
pub fn is_credential(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
}

/// The longest name that is examined, in bytes. A longer name counts as secret.
pub(crate) const MAX_NAME: usize = 1024;

/// Words that make a field secret anywhere in its name.
const SECRET_WORDS: [&str; 16] = [
    "auth",
    "authorization",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "pwd",
    "secret",
    "secrets",
    "signature",
    "ssn",
];

/// Words that make a field secret as the last word of its name: `refresh_token`, but not `token_count`.
const SECRET_ENDINGS: [&str; 5] = ["token", "tokens", "jwt", "session", "sessionid"];

/// Words that make a `key` after them secret: `api_key`, but not `primary_key`.
const SECRET_KEYS: [&str; 8] = ["access", "api", "encryption", "master", "private", "secret", "shared", "signing"];

/// Suffixes that make a last word secret: `refreshtoken`, `dbpassword`.
const SECRET_SUFFIXES: [&str; 4] = ["password", "passwd", "secret", "token"];

/// Secret names that are often written as one word. Microsoft Graph calls the secret that it sends `clientState`.
const SECRET_NAMES: [&str; 9] = [
    "accesskey",
    "accesstoken",
    "apikey",
    "apitoken",
    "authtoken",
    "clientsecret",
    "clientstate",
    "creditcard",
    "privatekey",
];

/// A name that contains one of these sounds secret.
const SOUNDS: [&str; 7] = ["auth", "cookie", "credential", "key", "password", "secret", "token"];

/// Whether the words of this name say that the field holds a secret: `api_key` does, `monkey` does not.
pub(crate) fn is_secret(name: &str) -> bool {
    name.len() > MAX_NAME || (may_be_secret(name) && has_secret_words(name))
}

/// A quick test: most names lack letters of every secret word, and need not be split into words. A name that is not ASCII
/// is always split, because lower case may turn another letter into an ASCII one.
fn may_be_secret(name: &str) -> bool {
    let letters = letters(name.as_bytes());
    !name.is_ascii() || SECRET_LETTERS.iter().any(|secret| letters & secret == *secret)
}

/// The letters of each word of which every secret name contains at least one.
const SECRET_LETTERS: [u64; 35] = {
    let lists: [&[&str]; 5] = [&SECRET_WORDS, &SECRET_ENDINGS, &SECRET_SUFFIXES, &SECRET_NAMES, &["key"]];
    let mut all = [0; 35];
    let (mut list, mut count) = (0, 0);
    while list < lists.len() {
        let mut at = 0;
        while at < lists[list].len() {
            all[count] = letters(lists[list][at].as_bytes());
            (at, count) = (at + 1, count + 1);
        }
        list += 1;
    }
    assert!(count == all.len());
    all
};

/// One bit for each letter in a name, and another bit for each letter that occurs more than once.
const fn letters(name: &[u8]) -> u64 {
    let mut letters = 0;
    let mut at = 0;
    while at < name.len() {
        if name[at].is_ascii_alphabetic() {
            let letter = 1 << (name[at].to_ascii_lowercase() - b'a');
            letters |= if letters & letter == 0 { letter } else { letter << 26 };
        }
        at += 1;
    }
    letters
}

/// `PassWord` and `pAsSwOrD` can be one word or several, so both readings count.
fn has_secret_words(name: &str) -> bool {
    let camel = words(name, true);
    are_secret(&camel) || (camel.has_humps && are_secret(&words(name, false)))
}

fn are_secret(words: &Words) -> bool {
    let Some(last) = words.iter().last() else { return false };
    let key_of = |kind: &str| SECRET_KEYS.contains(&kind);
    has_secret_run(words)
        || SECRET_SUFFIXES.iter().any(|suffix| last.ends_with(suffix))
        || SECRET_ENDINGS.contains(&last)
        || words.iter().zip(words.iter().skip(1)).any(|pair| match pair {
            (kind, "key" | "keys") => key_of(kind),
            ("credit", "card") | ("session", "id") | ("token", "value") => true,
            _ => false,
        })
}

/// Whether consecutive words, written together, are a secret word or name: `pass_word`.
fn has_secret_run(words: &Words) -> bool {
    words.starts().any(|start| {
        let text = &words.text.as_bytes()[start..];
        if !begins_secret_run(text) {
            return false;
        }
        let is_end = |length: usize| words.ends.binary_search(&(start + length)).is_ok();
        let is_run = |word: &&str| text.starts_with(word.as_bytes()) && is_end(word.len());
        let is_plural = |name: &str| text.get(name.len()) == Some(&b's') && is_end(name.len() + 1);
        let is_name = |name: &&str| text.starts_with(name.as_bytes()) && (is_end(name.len()) || is_plural(name));
        SECRET_WORDS.iter().any(is_run) || SECRET_NAMES.iter().any(is_name)
    })
}

/// Whether any secret word or name begins with the same two letters. A quick test: a name may consist of many words, few of
/// which begin like a secret one.
fn begins_secret_run(text: &[u8]) -> bool {
    matches!(
        text,
        [b'a', b'c' | b'p' | b'u', ..]
            | [b'c', b'l' | b'o' | b'r', ..]
            | [b'p', b'a' | b'r' | b'w', ..]
            | [b's', b'e' | b'i' | b's', ..]
    )
}

/// Whether a field of this name might hold a secret. Misses fewer secrets than [`is_secret`], but also accepts `monkey` and
/// `author`.
pub(crate) fn sounds_secret(name: &str) -> bool {
    let contains = |part: &str| name.as_bytes().windows(part.len()).any(|at| at.eq_ignore_ascii_case(part.as_bytes()));
    name.len() > MAX_NAME || SOUNDS.into_iter().any(contains) || is_secret(name)
}

/// The words of a name, in one string.
struct Words {
    text: String,
    ends: Vec<usize>,
    /// Whether a capital letter separates two of the words.
    has_humps: bool,
}

impl Words {
    fn starts(&self) -> impl Iterator<Item = usize> {
        std::iter::once(0).chain(self.ends.iter().copied()).take(self.ends.len())
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.starts().zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }

    /// Ends the current word. Digits at its end are dropped, and so is the `v` of a version.
    fn end(&mut self) {
        let start = self.ends.last().copied().unwrap_or(0);
        let word = self.text[start..].trim_end_matches(|c: char| c.is_ascii_digit());
        let length = if word == "v" { 0 } else { word.len() };
        self.text.truncate(start + length);
        if length > 0 {
            self.ends.push(start + length);
        }
    }
}

/// Splits a name into words, in lower case and without digits at their ends: `password1`. Any character other than a
/// letter or digit separates words; in camel case capitals do as well: `HTTPAuth`.
fn words(name: &str, is_camel: bool) -> Words {
    let mut words = Words { text: String::with_capacity(name.len()), ends: Vec::new(), has_humps: false };
    let mut before = ' ';
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let begins = c.is_uppercase()
            && (before.is_lowercase()
                || (before.is_uppercase() && chars.peek().is_some_and(|next| next.is_lowercase())));
        let is_hump = is_camel && begins;
        words.has_humps |= is_hump;
        if !c.is_alphanumeric() || is_hump {
            words.end();
        }
        match c {
            _ if c.is_ascii_alphanumeric() => words.text.push(c.to_ascii_lowercase()),
            _ if c.is_alphanumeric() => words.text.extend(c.to_lowercase()),
            _ => {}
        }
        before = c;
    }
    words.end();
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_secret_word_begins_a_run() {
        for word in SECRET_WORDS.iter().chain(&SECRET_NAMES) {
            assert!(begins_secret_run(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn secret_fields_are_recognised_by_name() {
        for name in [
            "password",
            "PASSWORD",
            "userPassword",
            "db_password",
            "secret",
            "client_secret",
            "token",
            "accessToken",
            "access-token",
            "refresh_tokens",
            "api_key",
            "apiKey",
            "API_KEY",
            "x-api-key",
            "apikey",
            "private_key",
            "Authorization",
            "proxy_authorization",
            "Set-Cookie",
            "credentials",
            "session_id",
            "sessionId",
            "credit_card_number",
            "ssn",
            "auth",
            "password1",
            "newpassword",
            "refreshtoken",
            "token_value",
            "accessTokenV2",
            "passcode",
            "clientSecret",
            "clientState",
            "client_state",
            "signing_key",
            "api_\u{212a}ey",
            "PassWord",
            "pass_word",
            "pass-word",
            "passWord",
            "pAsSwOrD",
            "mypASSWORD",
            "userPassWordHash",
            "PASS_WORD",
            "X-Pass-Word",
            "aPiKeY",
            "APIKeys",
            "apikeys",
            "userAPIKey",
            "HTTPAuth",
            "IDToken",
            "DBPassword",
            "Secret",
            "xSSN",
        ] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn ordinary_names_are_not_secret() {
        for name in [
            "author",
            "author_association",
            "keyboard",
            "monkey",
            "primary_key",
            "tokens_used",
            "token_count",
            "key",
            "sort_keys",
            "idempotency-key",
            "secretary",
            "sessions",
            "",
            "_",
            "passenger",
            "passWordless",
            "tokenCount",
            "primaryKey",
            "KeyBoard",
            "compass",
            "clientStatus",
            "state",
            "Author",
            "sessionsTotal",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    proptest! {
        /// Names of meaningful pieces, in any order and with any separator.
        #[test]
        fn the_quick_tests_never_miss_a_secret(pieces in prop::collection::vec("[a-zA-Z_]{0,2}|[-._0-9é\u{212a}]|auth|Token|key|api|ssn|PWD|jwt|Session|id|credit|card|pass|word|secret|v", 0..6)) {
            let name = pieces.concat();
            prop_assert_eq!(is_secret(&name), has_secret_words(&name), "{}", name);
            for is_camel in [true, false] {
                prop_assert_eq!(are_secret(&words(&name, is_camel)), plain(&name, is_camel), "{}", name);
            }
        }
    }

    #[test]
    fn a_name_that_is_too_long_counts_as_secret() {
        let name = |length: usize| "é_".repeat(length / 3) + &"a".repeat(length % 3);
        for is_secret in [is_secret, sounds_secret] {
            assert!(!is_secret(&name(MAX_NAME)));
            assert!(is_secret(&name(MAX_NAME + 1)));
        }
    }

    /// A simple implementation to compare with, with a string for each word.
    fn plain(name: &str, is_camel: bool) -> bool {
        let mut words = vec![String::new()];
        let chars: Vec<char> = name.chars().collect();
        for (nth, &c) in chars.iter().enumerate() {
            let before = nth.checked_sub(1).map_or(' ', |before| chars[before]);
            let next_is_lower = chars.get(nth + 1).is_some_and(|next| next.is_lowercase());
            let begins = c.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && next_is_lower));
            if !c.is_alphanumeric() || (is_camel && begins) {
                words.push(String::new());
            }
            if c.is_alphanumeric() {
                words.last_mut().unwrap().extend(c.to_lowercase());
            }
        }
        let bare = words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()));
        let words: Vec<&str> = bare.filter(|word| !word.is_empty() && *word != "v").collect();
        let is_run =
            |run: &str| SECRET_WORDS.contains(&run) || SECRET_NAMES.contains(&run.strip_suffix('s').unwrap_or(run));
        let runs = (0..words.len()).flat_map(|first| (first..words.len()).map(move |last| (first, last)));
        let has_run = runs.map(|(first, last)| words[first..=last].concat()).any(|run| is_run(&run));
        let is_last =
            |last: &&str| SECRET_SUFFIXES.iter().any(|suffix| last.ends_with(suffix)) || SECRET_ENDINGS.contains(last);
        let is_pair = |pair: &[&str]| match (pair[0], pair[1]) {
            (kind, "key" | "keys") => SECRET_KEYS.contains(&kind),
            pair => [("credit", "card"), ("session", "id"), ("token", "value")].contains(&pair),
        };
        has_run || words.last().is_some_and(is_last) || words.windows(2).any(is_pair)
    }

    #[test]
    fn more_names_sound_secret_than_are_secret() {
        for name in ["author", "monkey", "KEYBOARD", "tokens_used", "idempotency-key", "XSecretary", "set-cookie2"] {
            assert!(sounds_secret(name), "{name}");
        }
        for name in ["pwd", "session_id", "ssn", "X-Hub-Signature-256"] {
            assert!(sounds_secret(name), "{name}");
        }
        for name in ["", "a", "name", "content-type", "tok", "señal", "ключ", "pässword"] {
            assert!(!sounds_secret(name), "{name}");
        }
    }
}
