//! Removes or masks fields of JSON, and leaves every other byte as it is.

use memchr::memchr2;
use serde_json::value::RawValue;

use super::depth::MAX_DEPTH;
use crate::base::secret_names::MAX_NAME;

/// The text is not JSON, or is nested too deep.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Replaces the value of each field whose name `is_secret` with the string `mask`, or removes the field if there is no
/// mask. `None` if there is no such field.
pub(crate) fn clean(
    text: &[u8],
    mask: Option<&str>,
    is_secret: &dyn Fn(&str) -> bool,
) -> Result<Option<Vec<u8>>, Unreadable> {
    // The grammar is checked here; the code below only splits the text into its parts.
    serde_json::from_slice::<&RawValue>(text).map_err(|_| Unreadable)?;
    let mut cleaner = Cleaner { rest: text, out: Vec::with_capacity(text.len()), mask, is_secret, has_changed: false };
    cleaner.copy_blanks()?;
    cleaner.value(0)?;
    cleaner.copy_blanks()?;
    match cleaner.rest {
        [] => Ok(cleaner.has_changed.then_some(cleaner.out)),
        _ => Err(Unreadable),
    }
}

struct Cleaner<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
    mask: Option<&'a str>,
    is_secret: &'a dyn Fn(&str) -> bool,
    has_changed: bool,
}

impl<'a> Cleaner<'a> {
    fn value(&mut self, depth: usize) -> Result<(), Unreadable> {
        match self.rest.first() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(Unreadable),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            _ => self.copy(value_len(self.rest)),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Unreadable> {
        self.copy(1)?;
        self.copy_blanks()?;
        while self.rest.first() != Some(&b']') {
            self.value(depth)?;
            self.copy_blanks()?;
            if self.rest.first() == Some(&b',') {
                self.copy(1)?;
                self.copy_blanks()?;
            }
        }
        self.copy(1)
    }

    fn object(&mut self, depth: usize) -> Result<(), Unreadable> {
        self.copy(1)?;
        let mut is_first = true;
        loop {
            let blanks = self.take(blanks_len(self.rest))?;
            if self.rest.first() == Some(&b'}') {
                self.out.extend_from_slice(blanks);
                return self.copy(1);
            }
            let name = self.take(value_len(self.rest))?;
            let is_secret = self.is_secret(name)?;
            let colon = self.take(colon_len(self.rest))?;
            if is_secret && self.mask.is_none() {
                self.take(value_len(self.rest))?;
                self.has_changed = true;
            } else {
                if !is_first {
                    self.out.push(b',');
                }
                is_first = false;
                for piece in [blanks, name, colon] {
                    self.out.extend_from_slice(piece);
                }
                self.field(is_secret, depth)?;
            }
            // Whitespace between a value and its comma is dropped.
            if self.rest.get(blanks_len(self.rest)) == Some(&b',') {
                self.take(blanks_len(self.rest) + 1)?;
            }
        }
    }

    /// Whether a field of this name is secret. `name` includes its quotes.
    fn is_secret(&self, name: &[u8]) -> Result<bool, Unreadable> {
        let inner = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).ok_or(Unreadable)?;
        let inner = str::from_utf8(inner).map_err(|_| Unreadable)?;
        // An escape has at most six bytes for one decoded byte, so this name is too long even if it consists of escapes.
        if inner.len() > 6 * MAX_NAME || !inner.contains('\\') {
            return Ok((self.is_secret)(inner));
        }
        let decoded = decode(inner);
        // Some parsers drop a lone surrogate, and then see another name.
        let is_dropped = decoded.contains(char::REPLACEMENT_CHARACTER);
        let dropped = || decoded.replace(char::REPLACEMENT_CHARACTER, "");
        Ok((self.is_secret)(&decoded) || (is_dropped && (self.is_secret)(&dropped())))
    }

    fn field(&mut self, is_secret: bool, depth: usize) -> Result<(), Unreadable> {
        let (true, Some(mask)) = (is_secret, self.mask) else { return self.value(depth) };
        self.take(value_len(self.rest))?;
        self.has_changed = true;
        self.out.push(b'"');
        self.out.extend_from_slice(mask.as_bytes());
        self.out.push(b'"');
        Ok(())
    }

    fn copy_blanks(&mut self) -> Result<(), Unreadable> {
        self.copy(blanks_len(self.rest))
    }

    fn copy(&mut self, len: usize) -> Result<(), Unreadable> {
        let piece = self.take(len)?;
        self.out.extend_from_slice(piece);
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        let (piece, rest) = self.rest.split_at_checked(len).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(piece)
    }
}

/// Decodes the escapes in a name. Lone surrogates are replaced.
fn decode(name: &str) -> String {
    let mut units = Vec::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).unwrap_or(0xfffd));
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn blanks_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_blank(byte)).count()
}

/// The length of a colon with the whitespace on both sides.
fn colon_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_blank(byte) || **byte == b':').count()
}

/// The length of the value at the start of `text`.
fn value_len(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += string_len(&text[at..]),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ if depth == 0 => return scalar_len(text),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The length of the string at the start of `text`, quotes included.
pub(crate) fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        match text[at + found] {
            b'"' => return at + found + 1,
            _ => at += found + 2,
        }
    }
    text.len()
}

/// The length of the number or literal at the start of `text`.
pub(crate) fn scalar_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| !is_blank(byte) && !matches!(byte, b',' | b'}' | b']')).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn is_secret(name: &str) -> bool {
        name.starts_with('s')
    }

    fn cleaned(text: &str, mask: Option<&str>) -> Option<String> {
        clean(text.as_bytes(), mask, &is_secret).unwrap().map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn every_other_byte_stays_as_it_was() {
        let text =
            " {\"b\" : 1.10, \"a\":[ 1e2 ,{\"s\" : {\"x\": [1, \"}\"]} , \"a\":\"\\u00e9\\\"\"}],\t\"a\": -0}\r\n";
        let masked = " {\"b\" : 1.10, \"a\":[ 1e2 ,{\"s\" : \"*\", \"a\":\"\\u00e9\\\"\"}],\t\"a\": -0}\r\n";
        assert_eq!(cleaned(text, Some("*")).unwrap(), masked);
        let removed = " {\"b\" : 1.10, \"a\":[ 1e2 ,{ \"a\":\"\\u00e9\\\"\"}],\t\"a\": -0}\r\n";
        assert_eq!(cleaned(text, None).unwrap(), removed);
    }

    #[test]
    fn secret_fields_are_found_at_every_position() {
        for (text, removed, masked) in [
            (r#"{"s":1}"#, "{}", r#"{"s":"*"}"#),
            (r#"{"s":1,"a":2}"#, r#"{"a":2}"#, r#"{"s":"*","a":2}"#),
            (r#"{"a":2,"s":1}"#, r#"{"a":2}"#, r#"{"a":2,"s":"*"}"#),
            (r#"{"a":2,"s":[1],"b":3}"#, r#"{"a":2,"b":3}"#, r#"{"a":2,"s":"*","b":3}"#),
            (r#"{"s":null,"s":"x","st":{}}"#, "{}", r#"{"s":"*","s":"*","st":"*"}"#),
            (r#"[{"s":{"a":1}},{"a":{"s":true}}]"#, r#"[{},{"a":{}}]"#, r#"[{"s":"*"},{"a":{"s":"*"}}]"#),
            (r#"{"\u0073":1}"#, "{}", r#"{"\u0073":"*"}"#),
            (r#"{"a":"s","s\"":"}"}"#, r#"{"a":"s"}"#, r#"{"a":"s","s\"":"*"}"#),
        ] {
            assert_eq!(cleaned(text, None).as_deref(), Some(removed), "{text}");
            assert_eq!(cleaned(text, Some("*")).as_deref(), Some(masked), "{text}");
        }
    }

    #[test]
    fn a_text_without_secret_fields_is_left_alone() {
        for text in ["{}", " [ ] ", "\"s\"", "1.0", "null", r#"["s", {"a": "s"}]"#, r#"{"a": {"S": 1}}"#, "{ }\n"] {
            assert_eq!(cleaned(text, None), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_json_is_an_error() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for text in ["", "{", r#"{"a":1"#, "{} {}", r#"{"a" 1}"#, "\u{feff}{}", &deep(MAX_DEPTH + 1)] {
            assert!(clean(text.as_bytes(), None, &is_secret).is_err(), "{text}");
        }
        assert!(clean(b"{\"\xff\": 1}", None, &is_secret).is_err());
        assert!(clean(deep(MAX_DEPTH).as_bytes(), None, &is_secret).is_ok());
        // Values that Rust cannot hold are no errors: lone surrogates, and numbers beyond f64.
        assert_eq!(
            cleaned(r#"{"\ud83d": 1, "\udc00s": 2, "\ud83d\ude00": 3}"#, None).unwrap(),
            r#"{"\ud83d": 1, "\ud83d\ude00": 3}"#
        );
        assert_eq!(cleaned(r#"{"a":"\ud83d","s":1e999}"#, None).unwrap(), r#"{"a":"\ud83d"}"#);
    }

    /// The same, computed with a tree.
    fn expected(value: Value, mask: Option<&str>) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(|item| expected(item, mask)).collect(),
            Value::Object(fields) => {
                let fields = fields.into_iter().filter_map(|(name, value)| match (is_secret(&name), mask) {
                    (false, _) => Some((name, expected(value, mask))),
                    (true, Some(mask)) => Some((name, Value::from(mask))),
                    (true, None) => None,
                });
                Value::Object(fields.collect())
            }
            other => other,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"[\[\]{}"\\,:s \u{0}-\u{20}é]{0,12}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(r#"[s\[\]{}"\\é]{0,3}"#, inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn names_are_decoded_as_by_serde_json(name in any::<String>()) {
            let escaped: String = name.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(decode(&escaped), &*name);
            let text = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(decode(&text[1..text.len() - 1]), name);
        }

        #[test]
        fn cleaning_gives_the_same_result_as_with_a_tree(value in values(), pretty in any::<bool>(), mask in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let mask = mask.then_some("*");
            let wanted = expected(value.clone(), mask);
            match cleaned(&text, mask) {
                Some(text) => prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wanted),
                None => prop_assert_eq!(value, wanted),
            }
        }

        #[test]
        fn cleaning_never_panics_and_always_ends(text in r#"[\[\]{}",:s0\\ tru\-.e]{0,24}"#) {
            let _ = clean(text.as_bytes(), None, &is_secret);
        }
    }
}
