//! The tokens of operators. Two variables have one each; a file has any number, and is read again when it changes.

use std::path::PathBuf;

use tower_webhook::admin::{AdminToken, AdminTokens, InvalidTokens};

use crate::reload::{NamedFile, Watch};

/// Why nobody is let in while there is no token.
pub(crate) const CLOSED: &str = "none of ADMIN_TOKEN, ADMIN_READ_TOKEN and ADMIN_TOKENS_FILE is set";

/// The tokens that let operators in.
#[derive(Default)]
pub(crate) struct Operators {
    /// The tokens of the variables.
    fixed: Vec<AdminToken>,
    file: Option<NamedFile>,
    tokens: AdminTokens,
}

impl Operators {
    /// The tokens of `ADMIN_TOKEN` and `ADMIN_READ_TOKEN`. The file of `ADMIN_TOKENS_FILE` is not read yet.
    ///
    /// # Errors
    ///
    /// When two variables have the same token.
    pub(crate) fn new(fixed: Vec<AdminToken>, file: Option<PathBuf>) -> Result<Self, InvalidTokens> {
        let tokens = AdminTokens::new(fixed.clone())?;
        Ok(Self { fixed, file: file.map(|path| NamedFile::new("ADMIN_TOKENS_FILE", path)), tokens })
    }

    /// The tokens, if any are set.
    pub(crate) fn tokens(&self) -> Option<&AdminTokens> {
        (self.file.is_some() || !self.fixed.is_empty()).then_some(&self.tokens)
    }

    /// Reads the file, now and whenever it changes. While the file is broken, the tokens that it had before stay in use.
    ///
    /// # Errors
    ///
    /// When the file cannot be used now. The error names the file and the reason.
    pub(crate) fn watch(&self) -> Option<Result<Watch, String>> {
        let file = self.file.clone()?;
        let (named, fixed, tokens) = (file.clone(), self.fixed.clone(), self.tokens.clone());
        Some(Watch::begin([file], move |contents| {
            let [json] = contents else { return Err("the tokens are one file".to_owned()) };
            let listed = AdminToken::parse(json).map_err(|error| named.wrong(error))?;
            let all = fixed.iter().cloned().chain(listed).collect();
            tokens.replace(all).map_err(|error| named.wrong(error))
        }))
    }
}
