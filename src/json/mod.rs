//! JSON on bytes: checks, pointers and cleaning, without building a tree.

#[cfg(any(feature = "history", test))]
mod beginning;
mod depth;
mod not_json;
mod pointer;
mod scan;
pub(crate) mod secrets;

use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

#[cfg(feature = "history")]
pub(crate) use self::beginning::clean_beginning;
pub(crate) use self::depth::MAX_DEPTH;
use self::depth::exceeds_depth;
pub(crate) use self::not_json::NotJson;
pub(crate) use self::pointer::{InvalidPointer, Pointer, Scalar};
pub(crate) use self::secrets::{clean, scalar_len, string_len};

/// The reason for which a text is not accepted as JSON.
#[derive(Debug)]
pub(crate) enum Malformed {
    TooDeep,
    /// The text is in another format.
    NotJson(NotJson),
    Syntax(serde_json::Error),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "JSON payload is nested more than {MAX_DEPTH} levels deep"),
            Self::NotJson(NotJson::Empty) => {
                f.write_str("Malformed JSON payload: the body is empty; send one JSON value")
            }
            Self::NotJson(format) => {
                let (found, hint) = (format.found(), format.hint());
                write!(f, "Malformed JSON payload: expected JSON, found {found}; {hint}")
            }
            // Position and kind; serde_json's syntax errors never quote the text.
            Self::Syntax(error) => write!(f, "Malformed JSON payload: {error}"),
        }
    }
}

impl Malformed {
    /// Prefers the format that `Content-Type` names to a syntax error.
    pub(crate) fn or_named_by(self, headers: &HeaderMap) -> Self {
        let named = || headers.get(CONTENT_TYPE).and_then(|value| NotJson::of_content_type(value.as_bytes()));
        match self {
            Self::Syntax(error) => named().map_or(Self::Syntax(error), Self::NotJson),
            other => other,
        }
    }
}

/// Checks that `text` is one JSON value in UTF-8, at most [`MAX_DEPTH`] levels deep, with only whitespace around it.
pub(crate) fn check(text: &[u8]) -> Result<(), Malformed> {
    // The fast path. For any other text serde_json decides, and describes the error.
    if scan::is_well_formed(text) {
        return Ok(());
    }
    // Checked first, because serde_json does not limit the depth of a value that it skips.
    if exceeds_depth(text, MAX_DEPTH) {
        return Err(Malformed::TooDeep);
    }
    // `RawValue` and not `IgnoredAny`: only the former checks that strings are UTF-8.
    match serde_json::from_slice::<&RawValue>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(NotJson::detect(text).map_or(Malformed::Syntax(error), Malformed::NotJson)),
    }
}

/// The scan accepts exactly the texts that serde_json accepts and that are not too deep.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &[u8]) {
    let is_json = serde_json::from_slice::<&RawValue>(text).is_ok();
    let is_accepted = is_json && !exceeds_depth(text, MAX_DEPTH);
    assert_eq!(scan::is_well_formed(text), is_accepted);
    assert_eq!(check(text).is_ok(), is_accepted);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn json_values_of_every_kind_pass() {
        for text in [
            "{}",
            "[]",
            "null",
            "true",
            "0",
            "-1.5e3",
            r#""""#,
            r#""\ud83d\ude00""#,
            " {\"a\": [1, {\"b\": \"]\"}]}\r\n",
            r#"{"a":"\"[[["}"#,
            "\"\u{e9}\"",
        ] {
            assert!(check(text.as_bytes()).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            &b""[..],
            b" \n",
            b"{",
            b"}",
            b"[1,]",
            b"{\"a\":1,}",
            b"{} {}",
            b"{}x",
            b"nul",
            b"'a'",
            b"01",
            b"+1",
            b"NaN",
            b"\"\xff\"",
            b"\"\xc0\xaf\"",
            b"{\"\xff\": 1}",
            b"\"\n\"",
            b"\"abc",
            b"\xef\xbb\xbf{}",
            b"\0",
            b"[1}",
            b"a=1&b=2",
        ] {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_depth_limit_is_exact() {
        assert!(check(nested(50).as_bytes()).is_ok());
        assert!(matches!(check(nested(51).as_bytes()), Err(Malformed::TooDeep)));
        assert!(check(r#"{"a":"#.repeat(50).as_bytes()).is_err());
        assert!(matches!(check(&b"[".repeat(1_000_000)), Err(Malformed::TooDeep)));
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"[\[\]{}"\\a-z\u{0}-\u{20}é]{0,12}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(r#"[\[\]{}"\\a-z]{0,6}"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_counter_agrees_with_the_tree(value in values(), limit in 0_usize..8) {
            let text = value.to_string();
            prop_assert_eq!(exceeds_depth(text.as_bytes(), limit), depth(&value) > limit);
            prop_assert!(check(text.as_bytes()).is_ok());
        }

        #[test]
        fn the_check_agrees_with_serde_json(text in r#"[\[\]{}",:a0\\ tru\-.e]{0,24}"#) {
            let ours = check(text.as_bytes()).is_ok();
            let theirs = serde_json::from_str::<Value>(&text).is_ok();
            // A tree refuses numbers that overflow f64, and lone surrogates; the grammar allows both.
            prop_assert!(ours == theirs || (ours && text.contains(['e', 'u'])));
        }

        #[test]
        fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
        }
    }
}
