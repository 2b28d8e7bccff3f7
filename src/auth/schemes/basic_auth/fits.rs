//! Which of a user's passwords match.

/// A bit for each position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fits(u16);

impl Fits {
    /// No user has more than 16 passwords.
    pub(super) fn of(fit: impl Iterator<Item = bool>) -> Self {
        let bits = fit.take(u16::BITS as usize).enumerate();
        Self(bits.fold(0, |bits, (at, fits)| bits | u16::from(fits) << at))
    }

    pub(super) fn each(self) -> impl Iterator<Item = bool> {
        (0..u16::BITS).map(move |at| self.0 >> at & 1 == 1)
    }

    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
}
