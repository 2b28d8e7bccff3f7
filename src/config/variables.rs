//! The names of variables and of secret files, which placeholders may name.

use std::collections::BTreeSet;

/// A set of names of variables and [files](candidates).
pub(crate) type Variables = BTreeSet<Box<str>>;

/// The longest name of a file, in bytes.
pub(super) const LONGEST_NAME: usize = 128;

/// The prefix of files in the set. No variable has a name with a colon.
pub(super) const PREFIX: &str = "file:";

/// The directory whose files every namespace may use.
const SHARED: &str = "shared";

/// The directory for connections, which belong to no namespace.
pub(crate) const OF_CONNECTIONS: &str = "global";

/// Whether a name in the set is that of a [file](variable).
pub(crate) fn is_file(variable: &str) -> bool {
    variable.starts_with(PREFIX)
}

/// Whether a placeholder may use `name` for a file.
pub(super) fn is_name(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_of_name) && !matches!(name, "." | "..")
}

/// The name of a file in a set of variables, which no variable can have.
fn variable(directory: &str, name: &str) -> Box<str> {
    format!("{PREFIX}{directory}/{name}").into()
}

/// The names of the files for `name`, in the order in which they are tried: the one in `directory`, then the shared
/// one.
pub(crate) fn candidates(directory: &str, name: &str) -> impl Iterator<Item = Box<str>> {
    let shared = (directory != SHARED).then(|| variable(SHARED, name));
    [Some(variable(directory, name)), shared].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["a", "db-password", "TOKEN_1", ".a", "a..b", &"a".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../a", "a b", "a\0", "ä", "a:b", &"a".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
