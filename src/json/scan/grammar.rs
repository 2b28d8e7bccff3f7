//! What may follow what.

use super::carry::Carry;
use super::scalars::Scalars;
use super::tokens::{Tokens, ones};
use crate::json::depth::MAX_DEPTH;

/// What is known at the end of 64 bytes.
pub(crate) struct Grammar<'a> {
    text: &'a [u8],
    levels: Levels<'a>,
    /// All ones if the text is no array and no object. No comma can be in it.
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

    /// Whether the value has ended. Only when the text has.
    pub(crate) fn is_complete(&self) -> bool {
        self.levels.open == OUTSIDE && self.value.is_open()
    }

    /// The next 64 bytes; `None` if they are wrong.
    #[inline(always)]
    pub(crate) fn take(&mut self, at: usize, tokens: &Tokens) -> Option<()> {
        let Tokens { comma, colon, open, close, scalar, .. } = *tokens;
        let after_scalar = self.scalar.next(scalar);

        // After a value there is a comma, a colon or the end of an array or object, and nowhere else, ...
        let ends = tokens.string_end | close | scalar;
        let after_value = self.value.past(ends, tokens.blank) & !tokens.blank;
        // ... but that an array or object may be empty. Within a scalar any byte looks like an end.
        let empty = after_value ^ (comma | colon | close | (after_scalar & scalar));
        if empty != 0 && (empty & !close != 0 || !ones(empty).all(|bit| self.is_empty(at + bit))) {
            return None;
        }

        // From where a name is due to the next of these there is a string, and then a colon; colons are nowhere else.
        let separator = comma | colon | open | close;
        let objects = self.levels.take(at, open | close, open, tokens.curly)?;
        let past_name = self.name.past((open & tokens.curly) | (comma & objects), !separator);
        let mut wrong = (((past_name & separator) ^ colon) & !empty) | (scalar & !past_name) | (comma & self.lone);

        wrong |= self.scalars.take(at, tokens, after_scalar)?;
        (wrong == 0).then_some(())
    }

    /// Whether there are but blanks between a closing bracket and an opening one.
    fn is_empty(&self, close: usize) -> bool {
        matches!(self.text[..close].trim_ascii_end(), [.., b'[' | b'{'])
    }
}

/// The arrays and objects that are open.
struct Levels<'a> {
    text: &'a [u8],
    /// One bit for each level, the innermost lowest: whether it is an object. Above them is the one of `OUTSIDE`.
    open: u64,
}

const OUTSIDE: u64 = 1;
const _: () = assert!(MAX_DEPTH + 1 < u64::BITS as usize);

impl Levels<'_> {
    /// The bytes that stand directly in an object; `None` if brackets do not match or are too many.
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

    /// Nothing may follow the bracket that closes the outermost level.
    fn at_end(&self, close: usize) -> Option<()> {
        (self.open == OUTSIDE && self.text[close + 1..].trim_ascii_start().is_empty()).then_some(())
    }
}
