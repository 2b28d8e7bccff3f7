//! The key `any_of`: a list of alternatives, one of which must let the request in. Each is an object with keys of guards.

use std::cell::Cell;

use crate::auth::{ANY_OF, Guard, Guards};
use crate::config::{BuildContext, CompileError, Node, Notes, legacy, unknown_key};

/// How deep `any_of` may be nested, and how many alternatives one may have in all: a wrong credential costs the work of each.
const DEEPEST: usize = 4;
const MOST: usize = 64;

/// Builds guards that are schemes.
pub(super) trait Schemes {
    fn keys(&self) -> impl Iterator<Item = &'static str>;

    /// `key` is one of the keys. Errors name it.
    fn build(&self, key: &str, config: Node, cx: &BuildContext<'_>) -> Result<Guard, CompileError>;
}

/// Builds the guard of a key that is one of `schemes`, or `any_of`.
pub(super) fn build_guard(
    schemes: &impl Schemes,
    key: &str,
    config: Node,
    cx: &BuildContext<'_>,
) -> Result<Guard, CompileError> {
    Building { schemes, cx, count: &Cell::new(0), depth: 0 }.guard(key, config)
}

/// The state while a guard is built.
struct Building<'a, S> {
    schemes: &'a S,
    cx: &'a BuildContext<'a>,
    count: &'a Cell<usize>,
    depth: usize,
}

impl<S: Schemes> Building<'_, S> {
    fn guard(&self, key: &str, config: Node) -> Result<Guard, CompileError> {
        match key {
            ANY_OF => self.alternatives(config).map_err(|error| error.inside(ANY_OF)),
            key => self.schemes.build(key, config, self.cx),
        }
    }

    fn alternatives(&self, config: Node) -> Result<Guard, CompileError> {
        let items = match config {
            Node::Array(items) if items.is_empty() => {
                return Err(CompileError::new("expected at least one alternative, found none"));
            }
            Node::Array(items) => items,
            other => return Err(other.is_not("an array of objects with keys of guards")),
        };
        if self.depth == DEEPEST {
            return Err(CompileError::new(format!("expected at most {DEEPEST} levels of `any_of`, found more")));
        }
        self.count.set(self.count.get() + items.len());
        if self.count.get() > MOST {
            return Err(CompileError::new(format!("expected at most {MOST} alternatives in all, found more")));
        }
        let alternatives = items.into_iter().enumerate().map(|(at, item)| {
            let at = at.to_string();
            let notes = Notes::new();
            let cx = BuildContext { notes: &notes, ..*self.cx };
            let guards = Building { cx: &cx, depth: self.depth + 1, ..*self }.alternative(item);
            self.take(&notes, &at);
            guards.map_err(|error| error.inside(&at))
        });
        Ok(Guard::any_of(alternatives.collect::<Result<_, _>>()?))
    }

    /// Takes over the notes about the part at `place`.
    fn take(&self, notes: &Notes, place: &str) {
        self.cx.notes.take(notes, &[place]);
        if notes.has_asked() {
            self.cx.notes.asked();
        }
    }

    /// All guards of an alternative must let the request in. An alternative without guards is refused: it would let everybody in.
    fn alternative(&self, item: Node) -> Result<Guards, CompileError> {
        let fields = match item {
            Node::Object(fields) if fields.is_empty() => {
                return Err(CompileError::new("expected at least one guard, found none: it would let in everybody"));
            }
            Node::Object(fields) => fields,
            other => return Err(other.is_not("an object with keys of guards")),
        };
        legacy::check_guard_keys(fields.iter().map(|(key, _)| key.as_str()))?;
        let guards = fields.into_iter().map(|(key, config)| {
            let is_known = |known: &str| known == legacy::guard_key(&key);
            if key != ANY_OF && !self.schemes.keys().any(is_known) {
                return Err(CompileError::new(unknown_key(&key, self.schemes.keys().chain([ANY_OF]))));
            }
            let notes = Notes::new();
            let cx = BuildContext { notes: &notes, ..*self.cx };
            let guard = Building { cx: &cx, ..*self }.guard(&key, config);
            self.take(&notes, &key);
            guard
        });
        Ok(Guards::new(guards.collect::<Result<_, _>>()?))
    }
}
