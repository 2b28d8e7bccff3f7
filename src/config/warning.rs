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
pub(crate) type Warnings = Arc<[Warning]>;

/// A warning about a value.
#[derive(Debug)]
pub(crate) struct Warning {
    text: Box<str>,
    is_logged: bool,
}

impl Warning {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the warning is logged when the value is accepted.
    pub(crate) fn is_logged(&self) -> bool {
        self.is_logged
    }
}

/// Collects warnings while a value, or one part of it, is compiled. A warning has a text and a path, like an error.
#[derive(Debug)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<Note>>,
    /// Whether a module or scheme asked for the connection.
    has_asked: AtomicBool,
}

#[derive(Debug)]
struct Note {
    text: CompileError,
    is_logged: bool,
}

impl Notes {
    pub(crate) const fn new() -> Self {
        Self { warnings: Mutex::new(Vec::new()), has_asked: AtomicBool::new(false) }
    }

    pub(crate) fn warn(&self, text: CompileError) {
        self.add(Note { text, is_logged: true });
    }

    /// Adds a warning that is listed but not logged.
    pub(crate) fn remark(&self, text: CompileError) {
        self.add(Note { text, is_logged: false });
    }

    fn add(&self, note: Note) {
        let mut warnings = self.locked();
        if warnings.len() < MOST {
            warnings.push(note);
        }
    }

    /// Takes over the warnings of a part, and puts the part's path in front of theirs.
    pub(crate) fn take(&self, part: &Self, place: &[&str]) {
        for Note { text, is_logged } in std::mem::take(&mut *part.locked()) {
            self.add(Note { text: place.iter().rev().fold(text, |text, key| text.inside(key)), is_logged });
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
        let warning = |Note { text, is_logged }: &Note| Warning {
            text: text.to_string().chars().take(LONGEST).collect(),
            is_logged: *is_logged,
        };
        warnings.iter().map(warning).collect()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Note>> {
        lock(&self.warnings)
    }
}
