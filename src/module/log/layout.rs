//! Writes JSON piece by piece, up to a maximum length.

use crate::json::{scalar_len, string_len};

/// The longest string that is printed whole, in characters; an escape counts as one.
pub(super) const MAX_STRING: usize = 10_000;

/// The end of a string that was cut.
const CUT: &str = "… (cut)";

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// A text of limited length, on one line or indented.
pub(super) struct Page {
    pub(super) text: String,
    /// Whether something did not fit.
    pub(super) is_cut: bool,
    max: usize,
    is_pretty: bool,
    depth: usize,
}

impl Page {
    pub(super) fn new(is_pretty: bool, max: usize) -> Self {
        Self { text: String::with_capacity(512), is_cut: false, max, is_pretty, depth: 0 }
    }

    /// Opens a bracket; its content is on lines of its own.
    pub(super) fn open(&mut self, bracket: &str) {
        self.push(bracket);
        self.depth += 1;
        self.new_line();
    }

    pub(super) fn close(&mut self, bracket: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.new_line();
        self.push(bracket);
    }

    pub(super) fn comma(&mut self) {
        self.push(",");
        self.new_line();
    }

    pub(super) fn colon(&mut self) {
        self.push(if self.is_pretty { ": " } else { ":" });
    }

    /// Appends as much of `text` as fits.
    pub(super) fn push(&mut self, text: &str) {
        let room = self.max - self.text.len();
        if self.is_cut || text.len() <= room {
            if !self.is_cut {
                self.text.push_str(text);
            }
            return;
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        self.is_cut = true;
    }

    /// Appends a text as a JSON string.
    pub(super) fn string(&mut self, text: &str) {
        if text.len() <= MAX_STRING && is_plain(text) && !text.contains(['"', '\\']) {
            ["\"", text, "\""].into_iter().for_each(|part| self.push(part));
            return;
        }
        let end = text.char_indices().nth(MAX_STRING).map(|(end, _)| end);
        let mut escaped = String::with_capacity(text.len() + 2);
        for c in text[..end.unwrap_or(text.len())].chars() {
            match c {
                '"' => escaped.push_str("\\\""),
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                '\u{8}' => escaped.push_str("\\b"),
                '\u{c}' => escaped.push_str("\\f"),
                c if is_hidden(c) => escaped.push_str(&escape(c)),
                c => escaped.push(c),
            }
        }
        self.push("\"");
        self.push(&escaped);
        self.push(if end.is_some() { CUT } else { "" });
        self.push("\"");
    }

    /// Appends well-formed JSON. Each token stays as it is, except that a long string is cut and a hidden character is
    /// escaped; only the whitespace between tokens changes.
    pub(super) fn json(&mut self, text: &str) {
        let mut rest = text.trim_start_matches(BLANKS);
        while let Some(first) = rest.chars().next().filter(|_| !self.is_cut) {
            let length = match first {
                '"' => string_len(rest.as_bytes()),
                '{' | '[' | '}' | ']' | ',' | ':' => 1,
                _ => scalar_len(rest.as_bytes()),
            };
            let (token, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
            rest = behind.trim_start_matches(BLANKS);
            match first {
                '"' => self.token(token),
                '{' | '[' => match rest.strip_prefix(['}', ']']) {
                    Some(behind) => {
                        self.push(if first == '{' { "{}" } else { "[]" });
                        rest = behind.trim_start_matches(BLANKS);
                    }
                    None => self.open(token),
                },
                '}' | ']' => self.close(token),
                ',' => self.comma(),
                ':' => self.colon(),
                _ => self.push(token),
            }
        }
    }

    /// Appends a JSON string, given with its quotes.
    fn token(&mut self, token: &str) {
        let end = (token.len() > MAX_STRING).then(|| cut_at(token)).flatten();
        let mut rest = &token[..end.unwrap_or(token.len())];
        if is_plain(rest) {
            self.push(rest);
            rest = "";
        }
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_hidden(c)) {
            self.push(&rest[..at]);
            self.push(&escape(c));
            rest = &rest[at + c.len_utf8()..];
        }
        self.push(rest);
        if end.is_some() {
            self.push(CUT);
            self.push("\"");
        }
    }

    fn new_line(&mut self) {
        if self.is_pretty {
            self.push("\n");
            (0..self.depth).for_each(|_| self.push("  "));
        }
    }
}

/// Where to cut a string that is given with its quotes, if it is too long.
fn cut_at(token: &str) -> Option<usize> {
    let mut at = 1;
    for _ in 0..MAX_STRING {
        at += char_len(token.get(at..)?);
    }
    // Exactly the closing quote follows: the string is not too long.
    (at + 1 < token.len()).then_some(at)
}

/// The length of the character or escape at the start of `text`. A surrogate pair of escapes counts as one character.
fn char_len(text: &str) -> usize {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u").and_then(|text| text.get(..4));
        digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
    };
    match unit(text) {
        Some(0xd800..=0xdbff) if matches!(text.get(6..).and_then(unit), Some(0xdc00..=0xdfff)) => 12,
        Some(_) => 6,
        None if text.starts_with('\\') => 2,
        None => text.chars().next().map_or(1, char::len_utf8),
    }
}

/// Whether `text` is printable ASCII, of which nothing is hidden. It is looked at without a branch for each byte, because
/// most texts are plain.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~'))
}

/// Whether a character that JSON need not escape could deceive a terminal or a reader: DEL, C1 controls, line
/// separators, and marks that change the direction of text. All are in the basic plane.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}

fn escape(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn laid_out(text: &str, is_pretty: bool) -> String {
        let mut page = Page::new(is_pretty, usize::MAX);
        page.json(text);
        page.text
    }

    #[test]
    fn every_token_stays_as_it_is() {
        let text = "\t{ \"n\" : [7615917337495251231111, 1e400 , -0,1.0,1E+2, -0.0e-0 ],\r\n\"s\\u0020\":\"\\ud800 \\u00e9\\/\\b é\",\
                    \"s\\u0020\":null,\"e\":{ },\"a\":[\n], \"t\":true }\n";
        let compact = r#"{"n":[7615917337495251231111,1e400,-0,1.0,1E+2,-0.0e-0],"s\u0020":"\ud800 \u00e9\/\b é","s\u0020":null,"e":{},"a":[],"t":true}"#;
        assert_eq!(laid_out(text, false), compact);
        assert_eq!(laid_out(&laid_out(text, true), false), compact);
    }

    #[test]
    fn a_cut_falls_between_characters_and_never_within_an_escape() {
        for unit in ["x", "é", "😀", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud83d"] {
            let long = format!("\"{}\"", unit.repeat(MAX_STRING + 1));
            assert_eq!(laid_out(&long, false), format!("\"{}… (cut)\"", unit.repeat(MAX_STRING)), "{unit}");
            let whole = format!("\"{}\"", unit.repeat(MAX_STRING));
            assert_eq!(laid_out(&whole, false), whole, "{unit}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_indentation_is_that_of_serde_json(value in values()) {
            // The only difference is that hidden characters are escaped.
            let hidden = |text: String| text.chars().map(|c| match c {
                '\n' => c.to_string(),
                c if is_hidden(c) => escape(c),
                c => c.to_string(),
            }).collect::<String>();
            prop_assert_eq!(laid_out(&value.to_string(), true), hidden(format!("{value:#}")));
            prop_assert_eq!(laid_out(&format!("{value:#}"), false), hidden(value.to_string()));
        }

        #[test]
        fn a_text_becomes_a_json_string_of_that_text(text in any::<String>()) {
            let mut page = Page::new(false, usize::MAX);
            page.string(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&page.text).unwrap(), text);
        }

        #[test]
        fn a_page_is_never_longer_than_its_maximum(text in any::<String>(), max in 0..200usize) {
            let mut page = Page::new(true, max);
            page.string(&text);
            prop_assert!(page.text.len() <= max);
        }

        #[test]
        fn no_text_makes_the_layout_panic_or_loop(text in r#"[\[\]{}",:s0\\ ud8é\-.e]{0,24}"#) {
            laid_out(&text, true);
        }
    }
}
