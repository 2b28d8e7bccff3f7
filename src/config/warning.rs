//! Warnings about a value that compiles.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::CompileError;
use crate::base::lock::lock;

/// The most warnings of one value.
const MOST: usize = 16;

/// The longest warning, in characters.
const LONGEST: usize = 500;

/// The warnings of a compiled value. Most values have none, and an empty slice costs nothing.
pub(crate) type Warnings = Arc<[Box<str>]>;

/// Collects warnings while a value, or one part of it, is compiled. A warning has a text and a path, like an error.
#[derive(Debug)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<CompileError>>,
    /// Whether a module or scheme asked for the connection.
    has_asked: AtomicBool,
}

impl Notes {
    pub(crate) const fn new() -> Self {
        Self { warnings: Mutex::new(Vec::new()), has_asked: AtomicBool::new(false) }
    }

    pub(crate) fn warn(&self, warning: CompileError) {
        let mut warnings = self.locked();
        if warnings.len() < MOST {
            warnings.push(warning);
        }
    }

    /// Takes over the warnings of a part, and puts the part's path in front of theirs.
    pub(crate) fn take(&self, part: &Self, place: &[&str]) {
        for warning in std::mem::take(&mut *part.locked()) {
            self.warn(place.iter().rev().fold(warning, |warning, key| warning.inside(key)));
        }
    }

    pub(crate) fn asked(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    pub(crate) fn into_warnings(self) -> Warnings {
        let warnings = self.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
        warnings.iter().map(|warning| warning.to_string().chars().take(LONGEST).collect()).collect()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<CompileError>> {
        lock(&self.warnings)
    }
}
