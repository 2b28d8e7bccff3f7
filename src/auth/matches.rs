//! Which secrets let a request in.

use super::metrics::Series;
use super::secrets::Position;

/// The secrets by which a request was let in: of most requests none or one, which costs no allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matches {
    first: Option<Match>,
    rest: Vec<Match>,
}

/// A secret of a guard that fits.
#[derive(Clone, Copy, Debug)]
struct Match {
    guard: &'static Series,
    position: Position,
}

impl Matches {
    pub(crate) fn add(&mut self, guard: &'static Series, position: Position) {
        self.push(Match { guard, position });
    }

    pub(crate) fn extend(&mut self, more: Self) {
        // Two loops: `chain` costs more, and most requests have no matches.
        more.first.into_iter().for_each(|found| self.push(found));
        more.rest.into_iter().for_each(|found| self.push(found));
    }

    /// Counts each of them.
    pub(crate) fn count(&self) {
        if self.first.is_some() {
            self.all().for_each(|found| found.guard.matched(found.position));
        }
    }

    /// The name of each guard, and the position of its secret.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Position)> {
        self.all().map(|found| (found.guard.guard(), found.position))
    }

    fn all(&self) -> impl Iterator<Item = &Match> {
        self.first.iter().chain(&self.rest)
    }

    fn push(&mut self, found: Match) {
        match self.first {
            None => self.first = Some(found),
            Some(_) => self.rest.push(found),
        }
    }
}
