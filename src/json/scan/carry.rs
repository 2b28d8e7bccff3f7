//! What one block of a scan leads over to the next.

/// What the last 64 bytes lead over to the next, as their highest bit.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carry(u64);

impl Carry {
    /// The bytes after those in `mask`.
    #[inline(always)]
    pub(crate) fn next(&mut self, mask: u64) -> u64 {
        let next = mask << 1 | self.0 >> 63;
        self.0 = mask;
        next
    }

    /// Whether the last byte of the last block was in its mask.
    pub(crate) fn is_open(self) -> bool {
        self.0 >> 63 == 1
    }

    /// The first bytes after those in `mask` that are not in `run`, by an addition's carry. The rest of `run` stays,
    /// but for what was passed.
    #[inline(always)]
    pub(crate) fn past(&mut self, mask: u64, run: u64) -> u64 {
        let (sum, carry) = run.overflowing_add(mask << 1 | self.0 >> 63);
        self.0 = mask | u64::from(carry) << 63;
        sum
    }
}
