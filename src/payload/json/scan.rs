//! One pass over a JSON text: RFC 8259, and no more than [`MAX_DEPTH`] levels.

use super::MAX_DEPTH;

/// Whether `text` is one JSON value in UTF-8 that is not too deep, with nothing but blanks around it.
pub(super) fn is_well_formed(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok() && Scan { text, at: 0, depth: 0, objects: 0 }.run().is_some()
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    /// One bit for each level that is open, the innermost lowest: whether it is an object. `MAX_DEPTH` of them fit.
    objects: u64,
}

const _: () = assert!(MAX_DEPTH <= u64::BITS as usize);

/// What must come next.
#[derive(Clone, Copy)]
enum Next {
    Value,
    /// Or the end of the array.
    FirstValue,
    Name,
    /// Or the end of the object.
    FirstName,
    /// After a value.
    Comma,
}

/// Bytes that stand for themselves in a string.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

impl Scan<'_> {
    /// `None` if something is wrong.
    fn run(mut self) -> Option<()> {
        let mut next = Next::Value;
        loop {
            self.blanks();
            let Some(&byte) = self.text.get(self.at) else {
                return (self.depth == 0 && matches!(next, Next::Comma)).then_some(());
            };
            next = match (next, byte) {
                (Next::Value | Next::FirstValue, b'{') => self.open(1).map(|()| Next::FirstName)?,
                (Next::Value | Next::FirstValue, b'[') => self.open(0).map(|()| Next::FirstValue)?,
                (Next::FirstValue, b']') => self.close(0)?,
                (Next::Value | Next::FirstValue, _) => self.scalar(byte).map(|()| Next::Comma)?,
                (Next::FirstName, b'}') => self.close(1)?,
                (Next::Name | Next::FirstName, b'"') => self.name().map(|()| Next::Value)?,
                (Next::Comma, b',') if self.depth > 0 => {
                    self.at += 1;
                    if self.objects & 1 == 1 { Next::Name } else { Next::Value }
                }
                (Next::Comma, b'}') => self.close(1)?,
                (Next::Comma, b']') => self.close(0)?,
                _ => return None,
            };
        }
    }

    fn open(&mut self, object: u64) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        self.objects = self.objects << 1 | object;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn close(&mut self, object: u64) -> Option<Next> {
        let fits = self.depth > 0 && self.objects & 1 == object;
        self.at += 1;
        self.depth = self.depth.checked_sub(1)?;
        self.objects >>= 1;
        fits.then_some(Next::Comma)
    }

    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// A name and its colon.
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.blanks();
        self.take(b':')
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..)?;
            let plain = rest.iter().position(|byte| !PLAIN[usize::from(*byte)])?;
            self.at += plain + 1;
            match rest[plain] {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let length = match self.text.get(self.at)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' if self.text.get(self.at + 1..self.at + 5)?.iter().all(u8::is_ascii_hexdigit) => 5,
            _ => return None,
        };
        self.at += length;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        self.at += usize::from(self.text[self.at] == b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(())
    }

    /// At least one.
    fn digits(&mut self) -> Option<()> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        (digits > 0).then_some(())
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::payload::json::exceeds_depth;

    fn serde_json_takes(text: &[u8]) -> bool {
        !exceeds_depth(text, MAX_DEPTH) && serde_json::from_slice::<&RawValue>(text).is_ok()
    }

    fn same(text: &[u8]) {
        assert_eq!(is_well_formed(text), serde_json_takes(text), "{:?}", String::from_utf8_lossy(text));
    }

    #[test]
    fn it_says_what_serde_json_says_of_edges() {
        for text in [
            "",
            " ",
            "{}",
            "[]",
            " { } ",
            "[ ]",
            "{,}",
            "[,]",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{\"a\":}",
            "{1:2}",
            "[1 2]",
            "1",
            "-",
            "-0",
            "01",
            "-01",
            "1.",
            ".1",
            "1.0",
            "1e",
            "1e+",
            "1E-9",
            "1e5.5",
            "0e0",
            "+1",
            "1-",
            "00",
            "--1",
            "true",
            "tru",
            "truex",
            "nulll",
            "false ",
            "nan",
            "\"\"",
            "\"",
            "\"\\\"",
            "\"\\\\\"",
            "\"\\u12\"",
            "\"\\u123g\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"\t\"",
            "\"\u{7f}\"",
            "\"\u{e9}\"",
            "{\"a\":{\"b\":[{}]}}",
            "[}",
            "{]",
            "[{]}",
            "}",
            "]",
            "{}{}",
            "{} x",
            "\u{feff}{}",
            "[1,[2,[3]]]",
            "{\"a\":1,\"a\":2}",
            "\"a\" : 1",
            ":",
            ",",
            "[\"a\":1]",
            "{\"a\",1}",
        ] {
            same(text.as_bytes());
        }
        for depth in [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 70, 1000] {
            same(format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
            same(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).as_bytes());
        }
        for bytes in [&b"\"\xff\""[..], b"\xff", b"\"\xed\xa0\x80\"", b"{\"\xc3\":1}", b"\"a\0b\"", b"\0"] {
            same(bytes);
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(8, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn it_takes_what_is_json(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            prop_assert!(is_well_formed(&text));
        }

        /// One byte is changed, put in, taken out or cut at.
        #[test]
        fn it_says_what_serde_json_says_of_what_is_nearly_json(
            value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4,
        ) {
            let mut text = serde_json::to_vec(&value).unwrap();
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => drop(text.remove(at)),
                _ => text.truncate(at),
            }
            same(&text);
        }

        #[test]
        fn it_says_what_serde_json_says_of_the_same_letters(text in r#"[\[\]{}:,"\\0-9eE.+\-truefalsn ub\n]{0,24}"#) {
            same(text.as_bytes());
        }
    }
}
