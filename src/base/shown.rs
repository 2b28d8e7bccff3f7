//! Untrusted text, made safe for logs and terminals.

use std::fmt::{self, Write};

/// Displays a text on one line, cut after a number of characters. Control characters are escaped, so that the text can
/// neither forge a log line nor control a terminal. A byte that is not UTF-8 is written as `\xff`.
pub(crate) struct Shown<'a> {
    text: &'a [u8],
    longest: usize,
}

impl<'a> Shown<'a> {
    /// At most `longest` characters of `text` are shown.
    pub(crate) fn new(text: &'a (impl AsRef<[u8]> + ?Sized), longest: usize) -> Self {
        Self { text: text.as_ref(), longest }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.longest;
        for chunk in self.text.utf8_chunks() {
            for c in chunk.valid().chars() {
                let Some(less) = left.checked_sub(1) else { return f.write_char('…') };
                left = less;
                match c {
                    ' '..='~' => f.write_char(c)?,
                    _ => c.escape_debug().try_for_each(|c| f.write_char(c))?,
                }
            }
            for byte in chunk.invalid() {
                let Some(less) = left.checked_sub(1) else { return f.write_char('…') };
                left = less;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded_and_escaped() {
        let shown = |text: &str| Shown::new(text, 200).to_string();
        assert_eq!(shown("/a/b%20c?\"é\""), "/a/b%20c?\"é\"");
        assert_eq!(shown("\u{1b}[31m\r\n\u{202e}\u{9b}\0"), "\\u{1b}[31m\\r\\n\\u{202e}\\u{9b}\\0");
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&"\u{9b}".repeat(5000)), "\\u{9b}".repeat(200) + "…");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_shown_in_hexadecimal() {
        assert_eq!(Shown::new(b"a\xff\xc3(", 4).to_string(), "a\\xff\\xc3(");
        assert_eq!(Shown::new(b"a\xff\xc3(", 3).to_string(), "a\\xff\\xc3…");
        assert_eq!(Shown::new(b"a\xff\xc3(", 2).to_string(), "a\\xff…");
    }
}
