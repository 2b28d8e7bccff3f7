//! Masks fields in the beginning of a JSON text.

use super::depth::MAX_DEPTH;
use super::secrets::{Unreadable, clean, scalar_len, string_len};

/// The beginning of a JSON text, with the value of each field whose name `is_secret` replaced by the string `mask`. A
/// name, a number or a literal that is cut off at the end is left out, and of a string the part that is there is kept.
///
/// The beginning is completed to a whole value first, so that the same code and the same grammar decide as for whole texts.
pub(crate) fn clean_beginning(
    beginning: &[u8],
    mask: &str,
    is_secret: &dyn Fn(&str) -> bool,
) -> Result<Vec<u8>, Unreadable> {
    let cut = cut(beginning)?;
    let closers = cut.open.iter().rev().map(|bracket| if *bracket == b'{' { b'}' } else { b']' });
    let mut whole = beginning[..cut.end].to_vec();
    if cut.is_in_string {
        whole.push(b'"');
    }
    whole.extend(closers);
    let mut text = clean(&whole, Some(mask), is_secret)?.unwrap_or(whole);
    // Brackets within a masked value are gone already; its quote then stops the loop.
    for _ in &cut.open {
        if let Some(b'}' | b']') = text.last() {
            text.pop();
        }
    }
    if cut.is_in_string && !text.ends_with(format!("\"{mask}\"").as_bytes()) {
        text.pop();
    }
    Ok(text)
}

/// Where a beginning is cut.
struct Cut {
    end: usize,
    /// The brackets that are open there.
    open: Vec<u8>,
    /// Whether the cut is within a string that is a value.
    is_in_string: bool,
}

fn cut(text: &[u8]) -> Result<Cut, Unreadable> {
    let mut cut = Cut { end: 0, open: Vec::new(), is_in_string: false };
    let (mut at, mut before) = (0, b' ');
    while let Some(&byte) = text.get(at) {
        let length = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b',' | b':' => 1,
            b'{' | b'[' if cut.open.len() == MAX_DEPTH => return Err(Unreadable),
            b'{' | b'[' => {
                cut.open.push(byte);
                cut.end = at + 1;
                1
            }
            b'}' | b']' => {
                cut.open.pop().ok_or(Unreadable)?;
                cut.end = at + 1;
                1
            }
            b'"' => {
                let length = string_len(&text[at..]);
                let is_name = cut.open.last() == Some(&b'{') && matches!(before, b'{' | b',');
                let is_whole = length > 1 && ends_string(&text[at..at + length]);
                match (is_name, is_whole) {
                    (true, true) => {}
                    (true, false) => return Ok(cut),
                    (false, true) => cut.end = at + length,
                    (false, false) => {
                        cut.end = at + partial_len(&text[at..]);
                        cut.is_in_string = true;
                        return Ok(cut);
                    }
                }
                length
            }
            _ => {
                let length = scalar_len(&text[at..]).max(1);
                if at + length < text.len() {
                    cut.end = at + length;
                }
                length
            }
        };
        before = byte;
        at += length;
    }
    if cut.end == 0 { Err(Unreadable) } else { Ok(cut) }
}

/// Whether the last byte is a quote that is not escaped.
fn ends_string(string: &[u8]) -> bool {
    let Some((b'"', inner)) = string.split_last() else { return false };
    inner.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
}

/// The length of the beginning of a string, its first quote included, without a character or an escape that is cut off.
fn partial_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        let length = match byte {
            b'\\' if text.get(at + 1) == Some(&b'u') => 6,
            b'\\' => 2,
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        if at + length > text.len() {
            break;
        }
        at += length;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn cleaned(text: &str) -> Result<String, Unreadable> {
        clean_beginning(text.as_bytes(), "*", &|name| name.starts_with('s'))
            .map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_beginning_keeps_what_is_certain_to_be_no_secret() {
        for (text, expected) in [
            (r#"{"a":1,"b":[2,{"c":"d"#, r#"{"a":1,"b":[2,{"c":"d"#),
            (r#"{"a":1,"s":"hunt"#, r#"{"a":1,"s":"*""#),
            (r#"{"a":1,"s":{"x":["hunt"#, r#"{"a":1,"s":"*""#),
            (r#"{"a":1,"s":[["#, r#"{"a":1,"s":"*""#),
            (r#"{"a":1,"s":"hunter2","b":"x"#, r#"{"a":1,"s":"*","b":"x"#),
            (r#"{"a":1,"s"#, r#"{"a":1"#),
            (r#"{"a":1,"s":"#, r#"{"a":1"#),
            (r#"{"a":12"#, "{"),
            (r#"{"a":[12, 13"#, r#"{"a":[12"#),
            (r#"["ab\u00e"#, r#"["ab"#),
            (r#"["ab\"#, r#"["ab"#),
            (r#"["ab\\"#, r#"["ab\\"#),
            (r#""top"#, r#""top"#),
            (r#"[{}"#, "[{}"),
            (r#"[["a"]]"#, r#"[["a"]]"#),
        ] {
            assert_eq!(cleaned(text).unwrap(), expected, "{text}");
        }
        assert_eq!(clean_beginning("[\"é".as_bytes().split_last().unwrap().1, "*", &|_| false).unwrap(), b"[\"");
        for text in ["", "  ", "a=b", "}", r#"{"a" "b" "c"#, r#"{"a":1}}"#, "12"] {
            assert!(cleaned(text).is_err(), "{text}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            r#"[\\"{}\[\],:é😀 ]{0,8}"#.prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(r#"[sab"\\]{1,2}"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn marked(value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(marked).collect(),
            Value::Object(fields) => {
                let mark = |(name, value): (String, Value)| {
                    let value = if name.starts_with('s') { Value::from(vec!["hunter2"]) } else { marked(value) };
                    (name, value)
                };
                Value::Object(fields.into_iter().map(mark).collect())
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn no_cut_keeps_a_secret_or_loses_all(value in values(), pretty in any::<bool>(), at in any::<prop::sample::Index>()) {
            let value = marked(value);
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let beginning = &text.as_bytes()[..at.index(text.len() + 1)];
            if let Ok(text) = clean_beginning(beginning, "*", &|name| name.starts_with('s')) {
                prop_assert!(!String::from_utf8(text).unwrap().contains("hunt"));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(text in r#"[\[\]{}",:s0\\ tru\-.é]{0,24}"#) {
            let _ = cleaned(&text);
        }
    }
}
