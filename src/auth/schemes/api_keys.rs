//! API keys, which a sender puts into a header or the query.

use std::borrow::Cow;

use super::one_of;
use crate::auth::{AuthError, Position, Secrets, SecretsConfig, WallClock};
use crate::base::secret::SecretDigest;
use crate::config::{BuildContext, BuildError};

/// Keys, any of which lets in.
#[derive(Clone, Debug)]
pub(super) struct ApiKeys {
    keys: Secrets<SecretDigest>,
    case: Case,
    clock: WallClock,
}

/// Whether `KEY` and `key` are different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    /// The default of the service that this crate replaces. It makes keys easier to guess.
    Ignored,
}

impl ApiKeys {
    /// `check` refuses keys that no sender could send.
    pub(super) fn new(
        keys: impl Into<SecretsConfig>,
        check: impl Fn(&str) -> Result<(), BuildError>,
    ) -> Result<Self, BuildError> {
        let case = Case::Sensitive;
        let keys = Secrets::new(keys, |text| check(text.trim()).and_then(|()| case.digest(text)))?;
        Ok(Self { keys, case, clock: WallClock::system() })
    }

    pub(super) fn build(
        written: Written,
        cx: &BuildContext<'_>,
        check: impl Fn(&str) -> Result<(), BuildError>,
    ) -> Result<Self, BuildError> {
        let (name, keys) = one_of(("api_key", written.api_key), ("api_keys", written.api_keys))?;
        let case = if written.case_sensitive { Case::Sensitive } else { Case::Ignored };
        let keys = Secrets::build(keys, cx, |text| check(text.trim()).and_then(|()| case.digest(text)));
        let keys = keys.map_err(|error| error.inside(name))?;
        Ok(Self { keys, case, clock: cx.clock().clone() })
    }

    pub(super) fn find(&self, sent: &[u8]) -> Result<Position, AuthError> {
        let sent = self.case.fold(sent);
        self.keys.find(&self.clock, |key| key.matches(&sent))
    }
}

/// The keys as a configuration has them.
pub(super) struct Written {
    pub(super) api_key: Option<SecretsConfig>,
    pub(super) api_keys: Option<SecretsConfig>,
    pub(super) case_sensitive: bool,
}

impl Case {
    /// Blanks around a key are not part of it.
    fn digest(self, text: &str) -> Result<SecretDigest, BuildError> {
        let text = text.trim();
        Ok(match self {
            Self::Sensitive => SecretDigest::new(text)?,
            Self::Ignored => SecretDigest::new(&text.to_ascii_lowercase())?,
        })
    }

    fn fold(self, sent: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Sensitive => Cow::Borrowed(sent),
            Self::Ignored => Cow::Owned(sent.to_ascii_lowercase()),
        }
    }
}
