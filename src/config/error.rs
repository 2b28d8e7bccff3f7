//! What is wrong with a configuration value.

use std::error::Error;
use std::fmt;

use serde::de;

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
        self.path.push(key.to_owned());
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
    let nearest = known
        .map(|name| (strsim::damerau_levenshtein(key, name), name))
        .min()
        .filter(|&(distance, name)| distance <= name.len().div_ceil(2));
    match nearest {
        Some((_, name)) => format!("unknown key `{}`, did you mean `{name}`?", key.escape_debug()),
        None => format!("unknown key `{}`", key.escape_debug()),
    }
}

fn quote(names: &[&str]) -> String {
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
