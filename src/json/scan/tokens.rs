//! Finds strings, and the tokens outside of them.

use super::bits::{BLOCK, Classes, Mask};

/// The tokens outside of strings, a mask for each kind: `u64` for 64 bytes, a pair of them for a block.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<T = u64> {
    pub(crate) blank: T,
    pub(crate) comma: T,
    pub(crate) colon: T,
    pub(crate) open: T,
    pub(crate) close: T,
    /// Distinguishes brackets only: set for the brackets of objects.
    pub(crate) curly: T,
    /// The closing quote.
    pub(crate) string_end: T,
    /// All other bytes: those of numbers and literals, and invalid ones.
    pub(crate) scalar: T,
    pub(crate) digit: T,
    pub(crate) zero: T,
    pub(crate) minus: T,
    pub(crate) dot: T,
}

impl<T> Tokens<T> {
    #[inline(always)]
    pub(crate) fn map<U>(&self, f: impl Fn(&T) -> U) -> Tokens<U> {
        Tokens {
            blank: f(&self.blank),
            comma: f(&self.comma),
            colon: f(&self.colon),
            open: f(&self.open),
            close: f(&self.close),
            curly: f(&self.curly),
            string_end: f(&self.string_end),
            scalar: f(&self.scalar),
            digit: f(&self.digit),
            zero: f(&self.zero),
            minus: f(&self.minus),
            dot: f(&self.dot),
        }
    }
}

/// The state between one block and the next.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    /// All ones inside a string, zero outside.
    inside: u64,
    /// One if the next byte is escaped.
    escape: u64,
    /// Whether the last 64 bytes were inside one string.
    long: bool,
    non_ascii: u64,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, inside: 0, escape: 0, long: false, non_ascii: 0 }
    }

    pub(crate) fn is_outside(&self) -> bool {
        self.inside == 0
    }

    pub(crate) fn is_ascii(&self) -> bool {
        self.non_ascii == 0
    }

    /// Whether the whole block is inside a long string, and can be skipped.
    pub(crate) fn skip(&mut self, block: &[u8; BLOCK]) -> bool {
        if !self.long || self.escape == 1 {
            return false;
        }
        let special = block.iter().fold(false, |any, byte| any | matches!(byte, ..0x20 | b'"' | b'\\'));
        self.non_ascii |= u64::from(!special && !block.is_ascii());
        !special
    }

    /// The tokens of a block; `None` if a string is wrong. Never inlined, because the masks take all registers.
    #[inline(never)]
    pub(crate) fn tokens(&mut self, at: usize, block: &[u8; BLOCK]) -> Option<Tokens<[u64; 2]>> {
        let class = Classes::classify(block);
        let [first, second] = class.non_ascii.to_array();
        self.non_ascii |= first | second;
        let quote = class.quote & !self.escaped(at, &class)?;
        let string = self.strings(quote);
        if (class.control & string) != Mask::default() {
            return None;
        }
        let outside = !(string | quote);
        let blank = class.blank & outside;
        let comma = class.comma & outside;
        let colon = class.colon & outside;
        let open = class.open & outside;
        let close = class.close & outside;
        let tokens = Tokens {
            blank,
            comma,
            colon,
            open,
            close,
            curly: class.curly,
            string_end: quote & !string,
            scalar: outside & !(blank | comma | colon | open | close),
            digit: class.digit & outside,
            zero: class.zero & outside,
            minus: class.minus & outside,
            dot: class.dot & outside,
        };
        Some(tokens.map(|mask| mask.to_array()))
    }

    /// The mask of the bytes inside strings, with the opening quote and without the closing one.
    #[inline(always)]
    fn strings(&mut self, quote: Mask) -> Mask {
        // Whether the number of quotes up to a byte is odd.
        let odd = [1_u64, 2, 4, 8, 16, 32].into_iter().fold(quote, |odd, step| odd ^ (odd << step));
        let [first, second] = odd.to_array().map(|half| half >> 63);
        let before = [self.inside, self.inside ^ first.wrapping_neg()];
        self.inside = before[1] ^ second.wrapping_neg();
        let string = odd ^ Mask::new(before);
        self.long = string.to_array()[1] == !0;
        string
    }

    /// The mask of escaped bytes; `None` if one of them forms no valid escape.
    #[inline(always)]
    fn escaped(&mut self, at: usize, class: &Classes) -> Option<Mask> {
        if class.backslash == Mask::default() && self.escape == 0 {
            return Some(class.backslash);
        }
        let [first, second] = class.backslash.to_array();
        let escaped = Mask::new([self.escaped_half(first), self.escaped_half(second)]);
        let [first, second] = (escaped & !class.letter).to_array();
        let mut others = ones(first).chain(ones(second).map(|bit| bit + 64));
        others.all(|bit| self.is_unicode_escape(at + bit)).then_some(escaped)
    }

    fn escaped_half(&mut self, backslash: u64) -> u64 {
        // In a run of backslashes every second one is escaped, counted from the first unescaped one. The subtraction
        // carries through a run that starts at an even position, and stops at a run that starts at an odd position.
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let starts = backslash & !self.escape;
        let codes = ((starts << 1) | ODD).wrapping_sub(starts) ^ ODD;
        let escaped = codes ^ (backslash | self.escape);
        self.escape = (codes & backslash) >> 63;
        escaped
    }

    fn is_unicode_escape(&self, at: usize) -> bool {
        matches!(self.text.get(at..), Some([b'u', a, b, c, d, ..]) if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit))
    }
}

/// The positions of the set bits.
pub(crate) fn ones(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(lowest)
    })
}
