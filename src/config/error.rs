//! What is wrong with a configuration value.

use std::error::Error;
use std::fmt;

use serde::de;

/// More of a key is not shown, in characters.
const LONGEST_SHOWN: usize = 64;

/// Why a module, scheme or connection refuses its configuration.
pub type BuildError = Box<dyn Error + Send + Sync>;

/// Why a value does not compile: where in the value, and what is wrong there.
///
/// The text is shown in logs and in `/admin/config-status`. It names keys, types and rules, and never quotes a value:
/// any value may be a secret.
#[derive(Debug)]
pub struct CompileError {
    path: Vec<String>,
    message: String,
}

impl CompileError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into() }
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub(crate) fn inside(mut self, key: &str) -> Self {
        self.path.push(shown(key));
        self
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.path.iter().rev().enumerate() {
            write!(f, "{}{key}", if at == 0 { "" } else { "." })?;
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl Error for CompileError {}

/// serde's own words quote the value; these do not.
impl de::Error for CompileError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("must be {expected}, and is {}", kind(found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("must be {expected}, and is another {}", kind(found)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of {}", quote(expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(unknown_key(field, expected.iter().copied()))
    }
}

/// The words for a key that nobody asked for, with the nearest known one.
pub(super) fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("unknown key `{}`{}", shown(key), did_you_mean(key, known))
}

/// The nearest of `known`, if one is near.
pub(super) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // The distance to a long text costs time and memory, and none is near it.
    if name.len() > LONGEST_SHOWN {
        return String::new();
    }
    let nearest = known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|&(distance, known)| distance <= known.len().div_ceil(2));
    nearest.map_or_else(String::new, |(_, known)| format!(", did you mean `{known}`?"))
}

/// A key for an operator's eyes.
pub(super) fn shown(key: &str) -> String {
    let cut: String = key.chars().take(LONGEST_SHOWN).collect();
    let more = if cut.len() < key.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

/// The names, each between backticks.
pub(super) fn quote(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn kind(found: de::Unexpected<'_>) -> &'static str {
    use de::Unexpected as U;
    match found {
        U::Bool(_) => "boolean",
        U::Unsigned(_) | U::Signed(_) | U::Float(_) => "number",
        U::Str(_) | U::Char(_) => "string",
        U::Unit | U::Option => "null",
        U::Seq => "array",
        U::Map => "object",
        _ => "value",
    }
}
