//! Checks numbers, `true`, `false` and `null`.

use super::carry::Carry;
use super::tokens::{Tokens, ones};

/// The state between one 64 bytes and the next.
pub(crate) struct Scalars<'a> {
    text: &'a [u8],
    digit: Carry,
    zero: Carry,
    dot: Carry,
    /// The offset at which the last word ends.
    word_end: usize,
}

impl<'a> Scalars<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, digit: Carry::default(), zero: Carry::default(), dot: Carry::default(), word_end: 0 }
    }

    /// The mask of wrong bytes among the next 64; `None` if a word is wrong.
    #[inline(always)]
    pub(crate) fn take(&mut self, at: usize, tokens: &Tokens, after_scalar: u64) -> Option<u64> {
        let Tokens { scalar, mut digit, mut minus, mut dot, .. } = *tokens;
        let letters = scalar & !(digit | minus | dot);
        if letters != 0 || self.word_end > at {
            // Words count as digits, so that the rules for numbers below accept them.
            let words = self.words(at, letters, after_scalar)?;
            digit |= words;
            minus &= !words;
            dot &= !words;
        }
        let after_digit = self.digit.next(digit);
        let leading = self.zero.next(tokens.zero & !after_digit) & tokens.digit;
        if leading != 0 && !ones(leading).all(|bit| self.is_fraction(at + bit)) {
            return None;
        }
        let second_dot = self.dot.past(dot, digit) & dot;
        Some((minus & after_scalar) | (dot & !after_digit) | (after_scalar & !after_digit & !digit) | second_dot)
    }

    /// Whether the digit is the second after a dot: the first one may then be a zero.
    fn is_fraction(&self, digit: usize) -> bool {
        matches!(self.text[..digit], [.., b'.', _])
    }

    /// Checks `true`, `false`, `null` and the exponents of numbers. Returns the mask of their bytes.
    #[inline(never)]
    fn words(&mut self, at: usize, mut letters: u64, after_scalar: u64) -> Option<u64> {
        let mut words = below(self.word_end.saturating_sub(at));
        letters &= !words;
        while letters != 0 {
            let bit = letters.trailing_zeros() as usize;
            let text = &self.text[at + bit..];
            let length = if after_scalar >> bit & 1 == 0 { literal(text) } else { self.exponent(at + bit) }?;
            matches!(text.get(length), None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r')).then_some(())?;
            self.word_end = at + bit + length;
            words |= below(bit + length) & (!0 << bit);
            letters &= !words;
        }
        Some(words)
    }

    fn exponent(&self, at: usize) -> Option<usize> {
        let (number, exponent) = self.text.split_at(at);
        let [b'e' | b'E', unsigned @ ..] = exponent else { return None };
        let unsigned = if let [b'+' | b'-', rest @ ..] = unsigned { rest } else { unsigned };
        let digits = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (digits > 0 && number.last()?.is_ascii_digit()).then_some(exponent.len() - unsigned.len() + digits)
    }
}

fn literal(text: &[u8]) -> Option<usize> {
    let start = text.first_chunk()?;
    if start == b"true" || start == b"null" {
        Some(4)
    } else {
        (start == b"fals" && text.get(4) == Some(&b'e')).then_some(5)
    }
}

/// The bits below this one.
fn below(bit: usize) -> u64 {
    if bit < 64 { (1 << bit) - 1 } else { !0 }
}
