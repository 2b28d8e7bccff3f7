//! The environment variables and the files of secrets that placeholders may name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tower_webhook::Registry;

use crate::Error;
use crate::settings::is_below;
use crate::settings::values::{Problems, shown, var, wrong};
use crate::variables::may_be_read;

#[derive(Default)]
pub(crate) struct Placeholders {
    /// `None` if webhooks may name every variable that is not the gateway's own secret.
    allowed: Option<Arc<[Pattern]>>,
    secrets: Option<PathBuf>,
}

/// The name of a variable, or what a name begins with.
enum Pattern {
    Name(String),
    Prefix(String),
}

impl Placeholders {
    /// `writable` is the directory below which webhooks may write.
    pub(crate) fn from_env(problems: &mut Problems, writable: &Path) -> Self {
        Self { allowed: problems.collect(allowed()), secrets: problems.collect(secrets(writable)) }
    }

    pub(crate) fn register(&self, registry: Registry) -> Registry {
        // The author of a webhook must not read the gateway's own secrets through it.
        let mut registry = registry.variables(|name| may_be_read(name).then(|| std::env::var(name).ok()).flatten());
        if let Some(allowed) = self.allowed.clone() {
            registry = registry.variables_of_webhooks(move |name| allowed.iter().any(|pattern| pattern.fits(name)));
        }
        match &self.secrets {
            Some(directory) => registry.secrets_dir(directory),
            None => registry,
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (name, pattern): (_, fn(String) -> Self) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, Self::Prefix),
            None => (text, Self::Name),
        };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| pattern(name.to_owned()))
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Name(allowed) => allowed == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

fn allowed() -> Result<Option<Arc<[Pattern]>>, Error> {
    const NAME: &str = "PLACEHOLDER_ALLOW";
    let Some(text) = var(NAME)? else { return Ok(None) };
    let pattern = |entry: &str| match Pattern::parse(entry) {
        Some(Pattern::Name(name)) if !may_be_read(&name) => {
            Err(wrong(NAME, format!("found `{name}`, which no webhook may read: it is the gateway's own; remove it")))
        }
        Some(pattern) => Ok(pattern),
        None => {
            let expected = "names and prefixes of variables, comma-separated: ACME_TOKEN, STRIPE_*";
            Err(wrong(NAME, format!("found `{}`, expected {expected}", shown(entry))))
        }
    };
    text.split(',').map(|entry| pattern(entry.trim())).collect::<Result<_, _>>().map(Some)
}

/// The directory must exist. Otherwise a misspelt path would be an error of each webhook that names a file.
fn secrets(writable: &Path) -> Result<Option<PathBuf>, Error> {
    const NAME: &str = "SECRETS_DIR";
    let Some(text) = var(NAME)? else { return Ok(None) };
    let directory = PathBuf::from(&text);
    if is_below(&directory, writable) || is_below(writable, &directory) {
        let expected = "a directory that neither is below SAVE_TO_DISK_ROOT nor contains it: webhooks may write there";
        return Err(wrong(NAME, format!("found `{}`, expected {expected}", shown(&text))));
    }
    match std::fs::read_dir(&directory) {
        Ok(_) => Ok(Some(directory)),
        Err(error) => Err(wrong(NAME, format!("found `{}`, expected a directory of secrets: {error}", shown(&text)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        for (pattern, fits, does_not) in [
            ("ACME_TOKEN", &["ACME_TOKEN"][..], &["ACME_TOKEN_2", "ACME", "acme_token", ""][..]),
            ("STRIPE_*", &["STRIPE_", "STRIPE_KEY"], &["STRIPE", "XSTRIPE_KEY", "stripe_key"]),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(fits.iter().all(|name| pattern.fits(name)) && !does_not.iter().any(|name| pattern.fits(name)));
        }
        for text in ["", "*", "A-B", "A*B", "A B", "**", "{$A}"] {
            assert!(Pattern::parse(text).is_none(), "{text}");
        }
    }
}
