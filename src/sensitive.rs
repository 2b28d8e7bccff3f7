//! Which fields hold a secret, by their name.

pub(crate) mod json;

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "***REDACTED***";

/// Words that make a field secret wherever they stand in its name.
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

/// Words that make a field secret when they are the last of its name: `refresh_token`, and not `token_count`.
const SECRET_ENDINGS: [&str; 5] = ["token", "tokens", "jwt", "session", "sessionid"];

/// What a `key` must be preceded by to be secret: `api_key`, and not `primary_key`.
const SECRET_KEYS: [&str; 8] = ["access", "api", "encryption", "master", "private", "secret", "shared", "signing"];

/// What a word may end in that is written together with another: `refreshtoken`, `dbpassword`.
const SECRET_SUFFIXES: [&str; 4] = ["password", "passwd", "secret", "token"];

/// Names that are written in one word.
const SECRET_NAMES: [&str; 8] =
    ["accesskey", "accesstoken", "apikey", "apitoken", "authtoken", "clientsecret", "creditcard", "privatekey"];

/// What a name must contain to sound secret.
const SOUNDS: [&str; 7] = ["auth", "cookie", "credential", "key", "password", "secret", "token"];

/// Whether a field of this name holds a secret, as far as its words tell: `api_key` does, `monkey` does not.
pub(crate) fn is_secret(name: &str) -> bool {
    may_be_secret(name) && has_secret_words(name)
}

/// Most names lack the letters of every secret word, and need not be taken apart. Beyond ASCII a letter may become another.
fn may_be_secret(name: &str) -> bool {
    let letters = letters(name.as_bytes());
    !name.is_ascii() || SECRET_LETTERS.iter().any(|secret| letters & secret == *secret)
}

/// Of each of the words, one of which is in whatever is secret.
const SECRET_LETTERS: [u64; 34] = {
    let lists: [&[&str]; 5] = [&SECRET_WORDS, &SECRET_ENDINGS, &SECRET_SUFFIXES, &SECRET_NAMES, &["key"]];
    let mut all = [0; 34];
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

/// One bit for each letter that is in a name, and another for each that is in it more than once.
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

/// `PassWord` and `pAsSwOrD` are one word or several, so both readings count.
fn has_secret_words(name: &str) -> bool {
    are_secret(&words(name, true)) || are_secret(&words(name, false))
}

fn are_secret(words: &[String]) -> bool {
    let Some(last) = words.last() else { return false };
    let key_of = |kind: &str| SECRET_KEYS.contains(&kind);
    has_secret_run(words)
        || SECRET_SUFFIXES.iter().any(|suffix| last.ends_with(suffix))
        || SECRET_ENDINGS.contains(&last.as_str())
        || words.windows(2).any(|pair| {
            (key_of(&pair[0]) && (pair[1] == "key" || pair[1] == "keys"))
                || (pair[0] == "credit" && pair[1] == "card")
                || (pair[0] == "session" && pair[1] == "id")
                || (pair[0] == "token" && pair[1] == "value")
        })
}

/// Whether some of the words, written together, are a secret word or name: `pass_word`.
fn has_secret_run(words: &[String]) -> bool {
    /// Longer than each of them.
    const TOO_LONG: usize = 16;
    (0..words.len()).any(|first| {
        let mut run = String::new();
        words[first..].iter().take_while(|word| word.len() < TOO_LONG).take(TOO_LONG).any(|word| {
            run.push_str(word);
            SECRET_WORDS.contains(&run.as_str()) || SECRET_NAMES.contains(&run.strip_suffix('s').unwrap_or(&run))
        })
    })
}

/// Whether a field of this name might hold a secret. Misses less, and takes `monkey` and `author` for one.
pub(crate) fn sounds_secret(name: &str) -> bool {
    let contains = |part: &str| name.as_bytes().windows(part.len()).any(|at| at.eq_ignore_ascii_case(part.as_bytes()));
    SOUNDS.into_iter().any(contains) || is_secret(name)
}

/// The words of a name, in lower case and without numbers at their ends: `password1`. They are divided by anything that
/// is no letter or digit and, in camel case, by capitals: `HTTPAuth`.
fn words(name: &str, is_camel: bool) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let begins = c.is_uppercase()
            && (before.is_lowercase()
                || (before.is_uppercase() && chars.peek().is_some_and(|next| next.is_lowercase())));
        if !c.is_alphanumeric() || (is_camel && begins) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    let bare = words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned());
    bare.filter(|word| !word.is_empty() && word != "v").collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_known_by_name() {
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
    fn ordinary_names_are_not() {
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
            "Author",
            "sessionsTotal",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    proptest! {
        /// Names of pieces that matter, in any case and with anything in between.
        #[test]
        fn what_is_secret_has_the_letters_of_it(pieces in prop::collection::vec("[a-zA-Z_]{0,2}|[-._0-9é\u{212a}]|auth|Token|key|api|ssn|PWD|jwt|Session|id|credit|card|pass|word|secret|v", 0..6)) {
            let name = pieces.concat();
            prop_assert_eq!(is_secret(&name), has_secret_words(&name), "{}", name);
        }
    }

    #[test]
    fn what_sounds_secret_is_more() {
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
