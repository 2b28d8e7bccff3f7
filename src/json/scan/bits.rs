//! Classifies the bytes of a block into masks.

use std::array;

use wide::{u8x16, u64x2};

/// How many bytes are classified together: two halves of 64, one half in each lane of a [`Mask`].
pub(crate) const BLOCK: usize = 128;

/// One bit for each byte of a block; the lowest bit is the first byte.
pub(crate) type Mask = u64x2;

/// The bytes of each class, inside and outside of strings.
pub(crate) struct Classes {
    pub(crate) quote: Mask,
    pub(crate) backslash: Mask,
    /// Bytes that form an escape together with a backslash before them.
    pub(crate) letter: Mask,
    /// Bytes below the space.
    pub(crate) control: Mask,
    pub(crate) blank: Mask,
    pub(crate) comma: Mask,
    pub(crate) colon: Mask,
    /// Opening brackets of arrays and objects.
    pub(crate) open: Mask,
    pub(crate) close: Mask,
    /// Distinguishes brackets only: set for the brackets of objects.
    pub(crate) curly: Mask,
    pub(crate) digit: Mask,
    pub(crate) zero: Mask,
    pub(crate) minus: Mask,
    pub(crate) dot: Mask,
    pub(crate) non_ascii: Mask,
}

impl Classes {
    #[inline(always)]
    pub(crate) fn classify(block: &[u8; BLOCK]) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = planes(block);
        // The upper hexadecimal digit of each byte, ...
        let ascii_low = !(b7 | b6);
        let upper_0 = ascii_low & !b5 & !b4;
        let upper_2 = ascii_low & b5 & !b4;
        let upper_3 = ascii_low & b5 & b4;
        let upper_6 = !b7 & b6 & b5 & !b4;
        let upper_7 = !b7 & b6 & b5 & b4;
        let upper_5_or_7 = !b7 & b6 & b4;
        // ... and the lower one.
        let lower_0 = !(b3 | b2 | b1 | b0);
        let lower_2 = b1 & !(b3 | b2 | b0);
        let lower_4 = b2 & !(b3 | b1 | b0);
        let lower_6 = b2 & b1 & !(b3 | b0);
        let lower_9_or_a = b3 & !b2 & (b0 ^ b1);
        let lower_a_or_b = b3 & !b2 & b1;
        let lower_c_or_d = b3 & b2 & !b1;
        let lower_e = b3 & b2 & b1 & !b0;
        let lower_f = b3 & b2 & b1 & b0;
        let quote = upper_2 & lower_2;
        let backslash = upper_5_or_7 & !b5 & lower_c_or_d & !b0;
        let slash = upper_2 & lower_f;
        let b_f_or_n = upper_6 & (lower_2 | lower_6 | lower_e);
        let r_or_t = upper_7 & (lower_2 | lower_4);
        Self {
            quote,
            backslash,
            letter: quote | backslash | slash | b_f_or_n | r_or_t,
            control: ascii_low & !b5,
            blank: (upper_2 & lower_0) | (upper_0 & (lower_9_or_a | (lower_c_or_d & b0))),
            comma: upper_2 & lower_c_or_d & !b0,
            colon: upper_3 & lower_a_or_b & !b0,
            open: upper_5_or_7 & lower_a_or_b & b0,
            close: upper_5_or_7 & lower_c_or_d & b0,
            curly: b5,
            digit: upper_3 & !(b3 & (b2 | b1)),
            zero: upper_3 & lower_0,
            minus: upper_2 & lower_c_or_d & b0,
            dot: upper_2 & lower_e,
            non_ascii: b7,
        }
    }
}

/// Transposes the bytes into bit planes: mask `n` holds bit `n` of each byte.
#[inline(always)]
fn planes(block: &[u8; BLOCK]) -> [Mask; 8] {
    let (rows, _) = block.as_chunks::<16>();
    let rows = array::from_fn(|row| u8x16::new(rows[row]));
    // Bytes of each half that are eight apart become neighbours, ...
    let rows = riffle(riffle(riffle(riffle(rows, 4), 2), 1), 4);
    let order = [0, 4, 1, 5, 2, 6, 3, 7];
    let words = array::from_fn(|row| words(rows[order[row]]));
    // ... then bits and rows are transposed.
    let words = swap(words, 4, 0x0f0f_0f0f_0f0f_0f0f);
    let words = swap(words, 2, 0x3333_3333_3333_3333);
    swap(words, 1, 0x5555_5555_5555_5555)
}

#[inline(always)]
fn words(row: u8x16) -> Mask {
    let row = row.to_array();
    let (words, _) = row.as_chunks::<8>();
    Mask::new([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
}

/// Interleaves each row with the row `step` after it, like two halves of a pack of cards.
#[inline(always)]
fn riffle(mut rows: [u8x16; 8], step: usize) -> [u8x16; 8] {
    for row in 0..8 {
        if row & step == 0 {
            let (first, second) = (rows[row], rows[row + step]);
            rows[row] = u8x16::unpack_low(first, second);
            rows[row + step] = u8x16::unpack_high(first, second);
        }
    }
    rows
}

/// Swaps the bits outside of `low` of each row with the bits in `low` of the row `step` after it.
#[inline(always)]
fn swap(mut rows: [Mask; 8], step: usize, low: u64) -> [Mask; 8] {
    let low = Mask::new([low, low]);
    for row in 0..8 {
        if row & step == 0 {
            let changed = ((rows[row] >> step as u64) ^ rows[row + step]) & low;
            rows[row] ^= changed << step as u64;
            rows[row + step] ^= changed;
        }
    }
    rows
}
