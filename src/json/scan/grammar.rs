//! Checks the order of tokens.

use super::carry::Carry;
use super::scalars::Scalars;
use super::tokens::{Tokens, ones};
use crate::json::depth::MAX_DEPTH;

/// The state between one 64 bytes and the next.
pub(crate) struct Grammar<'a> {
    text: &'a [u8],
    levels: Levels<'a>,
    /// All ones if the text is a single scalar or string, which has no comma outside of strings. Zero otherwise.
    lone: u64,
    scalar: Carry,
    value: Carry,
    name: Carry,
    scalars: Scalars<'a>,
}

impl<'a> Grammar<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let lone = !matches!(text.trim_ascii_start(), [b'[' | b'{', ..]);
        Self {
            text,
            levels: Levels { text, open: OUTSIDE },
            lone: u64::from(lone).wrapping_neg(),
            scalar: Carry::default(),
            value: Carry::default(),
            name: Carry::default(),
            scalars: Scalars::new(text),
        }
    }

    /// Whether the value is complete. Call it at the end of the text.
    pub(crate) fn is_complete(&self) -> bool {
        self.levels.open == OUTSIDE && self.value.is_open()
    }

    /// Checks the next 64 bytes; `None` if they violate the grammar.
    #[inline(always)]
    pub(crate) fn take(&mut self, at: usize, tokens: &Tokens) -> Option<()> {
        let Tokens { comma, colon, open, close, scalar, .. } = *tokens;
        let after_scalar = self.scalar.next(scalar);

        // A comma, a colon and a closing bracket come after a value, and nothing else comes after a value.
        let ends = tokens.string_end | close | scalar;
        let after_value = self.value.past(ends, tokens.blank) & !tokens.blank;
        // `empty` are the exceptions: the closing bracket of an empty array or object is the only valid one. Every byte
        // of a scalar counts as its end, so scalar bytes after scalar bytes are left out.
        let empty = after_value ^ (comma | colon | close | (after_scalar & scalar));
        if empty != 0 && (empty & !close != 0 || !ones(empty).all(|bit| self.is_empty(at + bit))) {
            return None;
        }

        // Where a name is due, the next separator must be a colon. No other separator may be a colon, and no scalar may
        // be a name.
        let separator = comma | colon | open | close;
        let objects = self.levels.take(at, open | close, open, tokens.curly)?;
        let past_name = self.name.past((open & tokens.curly) | (comma & objects), !separator);
        let mut wrong = (((past_name & separator) ^ colon) & !empty) | (scalar & !past_name) | (comma & self.lone);

        wrong |= self.scalars.take(at, tokens, after_scalar)?;
        (wrong == 0).then_some(())
    }

    /// Whether only whitespace is between this closing bracket and an opening one.
    fn is_empty(&self, close: usize) -> bool {
        matches!(self.text[..close].trim_ascii_end(), [.., b'[' | b'{'])
    }
}

/// The arrays and objects that are open.
struct Levels<'a> {
    text: &'a [u8],
    /// One bit for each level, the innermost lowest: set if the level is an object. The bit of `OUTSIDE` is above them.
    open: u64,
}

const OUTSIDE: u64 = 1;
const _: () = assert!(MAX_DEPTH + 1 < u64::BITS as usize);

impl Levels<'_> {
    /// The mask of bytes whose innermost level is an object; `None` if brackets do not match, or are nested too deep.
    #[inline(always)]
    fn take(&mut self, at: usize, mut brackets: u64, open: u64, curly: u64) -> Option<u64> {
        let mut objects = (self.open & 1).wrapping_neg();
        while brackets != 0 {
            let bracket = brackets & brackets.wrapping_neg();
            let object = u64::from(curly & bracket != 0);
            if open & bracket != 0 {
                self.open = self.open << 1 | object;
                (self.open >> MAX_DEPTH <= OUTSIDE).then_some(())?;
            } else {
                (self.open & 1 == object).then_some(())?;
                self.open >>= 1;
                if self.open <= OUTSIDE {
                    self.at_end(at + bracket.trailing_zeros() as usize)?;
                }
            }
            let after = !(bracket ^ (bracket - 1));
            objects ^= (objects ^ (self.open & 1).wrapping_neg()) & after;
            brackets ^= bracket;
        }
        Some(objects)
    }

    /// Only whitespace may follow the bracket that closes the outermost level.
    fn at_end(&self, close: usize) -> Option<()> {
        (self.open == OUTSIDE && self.text[close + 1..].trim_ascii_start().is_empty()).then_some(())
    }
}
