//! Checks in one pass that a text is JSON (RFC 8259), nested at most [`MAX_DEPTH`](super::MAX_DEPTH) levels deep.
//!
//! The text is read in blocks. [`bits`] classifies the bytes of a block into masks, one bit for each byte; [`tokens`] uses
//! the masks to find the tokens outside of strings; [`grammar`] checks the order of the tokens. A rule is a few operations
//! on masks, whose cost does not depend on the number of tokens in the block.

mod bits;
mod carry;
mod grammar;
mod scalars;
mod tokens;

use self::bits::BLOCK;
use self::grammar::Grammar;
use self::tokens::Lexer;
#[cfg(test)]
use super::MAX_DEPTH;

/// Whether `text` is one JSON value in UTF-8 that is not too deep, with only whitespace around it.
pub(crate) fn is_well_formed(text: &[u8]) -> bool {
    Scan { text, lexer: Lexer::new(text), grammar: Grammar::new(text) }.run().is_some()
}

struct Scan<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    grammar: Grammar<'a>,
}

impl Scan<'_> {
    /// `None` if the text is not well-formed.
    fn run(mut self) -> Option<()> {
        let (blocks, rest) = self.text.as_chunks::<BLOCK>();
        for (nth, block) in blocks.iter().enumerate() {
            self.block(nth * BLOCK, block)?;
        }
        // The padding puts at least one blank after the text, which ends a number.
        let mut last = [b' '; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        self.block(blocks.len() * BLOCK, &last)?;
        (self.lexer.is_outside() && self.grammar.is_complete()).then_some(())?;
        (self.lexer.is_ascii() || str::from_utf8(self.text).is_ok()).then_some(())
    }

    fn block(&mut self, at: usize, block: &[u8; BLOCK]) -> Option<()> {
        if self.lexer.skip(block) {
            return Some(());
        }
        let tokens = self.lexer.tokens(at, block)?;
        self.grammar.take(at, &tokens.map(|pair| pair[0]))?;
        self.grammar.take(at + 64, &tokens.map(|pair| pair[1]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::json::exceeds_depth;

    fn serde_json_accepts(text: &[u8]) -> bool {
        !exceeds_depth(text, MAX_DEPTH) && serde_json::from_slice::<&RawValue>(text).is_ok()
    }

    fn assert_agreement(text: &[u8]) {
        assert_eq!(is_well_formed(text), serde_json_accepts(text), "{:?}", String::from_utf8_lossy(text));
    }

    #[test]
    fn the_scan_agrees_with_serde_json_on_edge_cases() {
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
            assert_agreement(text.as_bytes());
        }
        for depth in [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 70, 1000] {
            assert_agreement(format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
            assert_agreement(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).as_bytes());
        }
        for bytes in [&b"\"\xff\""[..], b"\xff", b"\"\xed\xa0\x80\"", b"{\"\xc3\":1}", b"\"a\0b\"", b"\0"] {
            assert_agreement(bytes);
        }
    }

    /// Right and wrong forms of every token that a block may end in.
    const PIECES: [&str; 40] = [
        r#""""#,
        r#""a""#,
        r#""a"b"#,
        r#""\""""#,
        r#""\\""#,
        r#""\\\"""#,
        r#""\\\\""#,
        r#""\/\b\f\n\r\t""#,
        r#""\x""#,
        r#""\u00e9\ud83d\ude00""#,
        r#""\u00g9""#,
        "\\",
        "\"\u{e9}\u{20ac}\u{1f600}\"",
        "\u{e9}",
        "\"\t\"",
        "\"\u{7f}\"",
        "0",
        "-0",
        "01",
        "-01",
        "1203",
        "1.05e-07",
        "0.0E+0",
        "1e00",
        "1.2.3",
        "1e2e3",
        "1e2.3",
        "1.",
        "1e+",
        "-",
        "--1",
        "1-1",
        "true",
        "false",
        "null",
        "nulll",
        "true1",
        r#"[ ] , { } , [[1]], {"a":{"b":[]}}"#,
        r#"{"a" : [1 , 2], "b":"c"}"#,
        r#"{"a" 1}"#,
    ];

    #[test]
    fn the_scan_agrees_with_serde_json_wherever_a_block_ends() {
        for piece in PIECES {
            for before in 0..=2 * BLOCK {
                assert_agreement(format!("{}{piece}", " ".repeat(before)).as_bytes());
                assert_agreement(format!("[{}{piece}{}]", " ".repeat(before), " ".repeat(before % 7)).as_bytes());
                assert_agreement(format!("{{\"{}\":{piece},\"\":{piece}}}", "n".repeat(before)).as_bytes());
                assert_agreement(format!("[\"{}\",{piece}", "\u{e9}".repeat(before / 2)).as_bytes());
            }
        }
    }

    #[test]
    fn the_scan_agrees_with_serde_json_on_long_runs_wherever_a_block_ends() {
        for before in (0..8).chain(56..=72).chain(BLOCK - 8..=BLOCK + 8) {
            for length in (0..8).chain(60..=68).chain(BLOCK - 4..=BLOCK + 4) {
                let blanks = " ".repeat(before);
                let [backslashes, digits] = ["\\", "0"].map(|byte| byte.repeat(length));
                assert_agreement(format!("{blanks}\"{backslashes}\"").as_bytes());
                assert_agreement(format!("[{blanks}\"{backslashes}\"\"]").as_bytes());
                assert_agreement(format!("[\"{}{backslashes}n\",1]", "x".repeat(before)).as_bytes());
                assert_agreement(format!("[{blanks}1{digits},{digits}]").as_bytes());
                assert_agreement(format!("[{blanks}1.{digits}]").as_bytes());
                assert_agreement(format!("[{blanks}1.1{digits}.1]").as_bytes());
                assert_agreement(format!("[{blanks}1e1{digits}]").as_bytes());
                assert_agreement(format!("[{blanks}1e-{digits}.1]").as_bytes());
                assert_agreement(format!("[{blanks}1E{digits}e1]").as_bytes());
                assert_agreement(
                    format!("{{{blanks}\"a\":[{blanks}],{}\"a\"{blanks}:{{{blanks}}}}}", " ".repeat(length)).as_bytes(),
                );
                assert_agreement(format!("{{\"a\"{blanks}:1,{}}}", " ".repeat(length)).as_bytes());
            }
        }
    }

    /// More than two blocks, with every kind of token.
    const SAMPLE: &str = r#"{"sku":"B-4711","name":"coffee, \"ground\"","count":10,"price":-8.05e+1,"open":true,"tags":[[],{}],
        "note":"\\\\ \u20ac € 😀 and a long text that goes on and on for more than half of a block","left":null, "a" : [ 0 , 0.0 , {"b":false} ] ,
        "url":"https://api.example.com/repos/{owner}/{repo}/issues?labels=[a,b]"}"#;

    #[test]
    fn the_scan_agrees_with_serde_json_on_a_sample_with_any_byte_at_any_position() {
        assert_agreement(SAMPLE.as_bytes());
        for at in 0..SAMPLE.len() {
            assert_agreement(&SAMPLE.as_bytes()[..at]);
            assert_agreement(&SAMPLE.as_bytes()[at..]);
            let mut text = SAMPLE.as_bytes().to_vec();
            for byte in 0..=u8::MAX {
                text[at] = byte;
                assert_agreement(&text);
            }
        }
    }

    #[test]
    fn the_scan_agrees_with_serde_json_on_long_texts() {
        let text = format!("[{}]", vec![SAMPLE; 200].join(","));
        assert!(text.len() > 64 << 10);
        assert_agreement(text.as_bytes());
        assert_agreement(format!("{text},").as_bytes());
        assert_agreement(format!("[{text}").as_bytes());
        assert_agreement(&text.as_bytes()[..text.len() - 1]);
        for fill in ["a", "\u{20ac}", "\\\\", "\\n", "\\"] {
            let fill = fill.repeat(70_000);
            for text in [format!("\"{fill}\""), format!("{{\"{fill}\":\"{fill}\"}}"), format!("[\"{fill}\n\"]")] {
                assert_agreement(text.as_bytes());
            }
        }
        for digits in ["7".repeat(70_000), format!("0.{}", "0".repeat(70_000)), format!("1e{}", "0".repeat(70_000))] {
            assert_agreement(digits.as_bytes());
            assert_agreement(format!("[{digits}.0]").as_bytes());
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
        fn the_scan_accepts_json(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            prop_assert!(is_well_formed(&text));
        }

        /// One byte is changed, inserted or removed, or the text is cut there.
        #[test]
        fn the_scan_agrees_with_serde_json_on_text_that_is_nearly_json(
            value in json(), before in 0..BLOCK, pretty in any::<bool>(),
            at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4,
        ) {
            let mut text = vec![b' '; before];
            text.extend(if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap());
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => drop(text.remove(at)),
                _ => text.truncate(at),
            }
            assert_agreement(&text);
        }

        #[test]
        fn the_scan_agrees_with_serde_json_on_random_token_characters(
            text in r#"[\[\]{}:,"\\0-9eE.+\-truefalsn ub\n]{0,24}"#, before in 0..BLOCK,
        ) {
            assert_agreement(text.as_bytes());
            assert_agreement(format!("{}{text}", " ".repeat(before)).as_bytes());
        }
    }
}
