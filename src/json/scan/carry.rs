//! Carries the end of one mask over to the next.

/// The last mask, or a carry of an addition; only the highest bit counts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carry(u64);

impl Carry {
    /// The mask of the bytes that follow a byte in `mask`.
    #[inline(always)]
    pub(crate) fn next(&mut self, mask: u64) -> u64 {
        let next = mask << 1 | self.0 >> 63;
        self.0 = mask;
        next
    }

    /// Whether the last byte of the last mask was set.
    pub(crate) fn is_open(self) -> bool {
        self.0 >> 63 == 1
    }

    /// For each byte in `mask`, sets the first byte after it that is not in `run`, by the carry of an addition. The other
    /// bytes of `run` stay set, except the ones that were passed.
    #[inline(always)]
    pub(crate) fn past(&mut self, mask: u64, run: u64) -> u64 {
        let (sum, carry) = run.overflowing_add(mask << 1 | self.0 >> 63);
        self.0 = mask | u64::from(carry) << 63;
        sum
    }
}
