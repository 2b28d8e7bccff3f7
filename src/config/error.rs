//! Errors of a configuration value, worded for an operator.

use std::error::Error;
use std::fmt;

use serde::de;

use crate::base::shown::Shown;

/// A longer key is cut to this many characters when it is shown.
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

    /// The same error, with `key` put in front of its path.
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

/// serde's own messages quote the value; these do not.
impl de::Error for CompileError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = Expected::of(expected);
        Self::new(format!("expected {}, found {}{}", expected.words, kind(found), expected.mend(found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = Expected::of(expected);
        Self::new(format!("expected {}{}, found another {}", expected.words, expected.range, bare_kind(found)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected one of {}, found another string", quote(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        missing_key(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        duplicate_key(field)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(unknown_key(field, expected.iter().copied()))
    }
}

/// The text for an unknown key, with the nearest known one.
pub(crate) fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("unknown key `{}`{}", shown(key), did_you_mean(key, known))
}

/// A hint at the nearest of `known`, or an empty text if none is near.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // The distance to a long text costs time and memory, and no known name is near it.
    if name.len() > LONGEST_SHOWN {
        return String::new();
    }
    let nearest = known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|&(distance, known)| distance <= known.len().div_ceil(2));
    nearest.map_or_else(String::new, |(_, known)| format!(", did you mean `{known}`?"))
}

/// A key as it is shown to an operator: escaped and cut.
pub(crate) fn shown(key: &str) -> String {
    Shown::new(key, LONGEST_SHOWN).to_string()
}

/// The names, each between backticks.
pub(crate) fn quote(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// The error for a required key that is missing.
pub(crate) fn missing_key(key: &str) -> CompileError {
    CompileError::new(format!("the key `{key}` is missing"))
}

/// The error for a key that occurs more than once.
pub(crate) fn duplicate_key<E: de::Error>(key: &str) -> E {
    E::custom(format_args!("duplicate key `{}`", shown(key)))
}

/// The expected type, in words rather than by its name in Rust.
struct Expected {
    words: String,
    /// The allowed range, which is added when the type is right and the value is not.
    range: &'static str,
}

impl Expected {
    fn of(expected: &dyn de::Expected) -> Self {
        let named = expected.to_string();
        let (words, range) = match &*named {
            "f32" | "f64" => ("a number", ""),
            "u8" => ("a whole number", " from 0 to 255"),
            "u16" => ("a whole number", " from 0 to 65535"),
            "u32" => ("a whole number", " from 0 to 4294967295"),
            "u64" | "usize" => ("a whole number", " from 0 on"),
            "i8" | "i16" | "i32" | "i64" | "isize" => ("a whole number", " within the range"),
            "a sequence" => ("an array", ""),
            "a map" => ("an object", ""),
            "unit" => ("null", ""),
            _ if named.starts_with("struct ") => ("an object", ""),
            other => (other, ""),
        };
        Self { words: words.to_owned(), range }
    }

    /// How to correct a value whose type is nearly right.
    fn mend(&self, found: de::Unexpected<'_>) -> &'static str {
        use de::Unexpected as U;
        match (&*self.words, found) {
            ("a number" | "a whole number" | "a boolean", U::Str(_)) => "; write it without quotes",
            ("a string", U::Bool(_) | U::Unsigned(_) | U::Signed(_) | U::Float(_)) => "; write it in quotes",
            _ => "",
        }
    }
}

fn kind(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Unit | de::Unexpected::Option => "null".to_owned(),
        de::Unexpected::Float(number) if number.is_finite() => "a number with a fraction or an exponent".to_owned(),
        de::Unexpected::Seq | de::Unexpected::Map => format!("an {}", bare_kind(found)),
        de::Unexpected::Other(words) => words.to_owned(),
        _ => format!("a {}", bare_kind(found)),
    }
}

fn bare_kind(found: de::Unexpected<'_>) -> &'static str {
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
