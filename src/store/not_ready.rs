//! Why no configuration has been loaded.

use std::fmt;
use std::time::Duration;

use super::status::SourceState;

/// No configuration was loaded: the error of [`Store::wait_ready`](crate::Store::wait_ready).
///
/// Its text names the source, says what the source reported last, such as a file that cannot be read or a server that
/// does not answer, and what to do.
#[derive(Clone, Debug)]
pub struct NotReady {
    pub(super) source: &'static str,
    pub(super) state: SourceState,
    /// How long was waited; `None` if the reflector ended before.
    pub(super) waited: Option<Duration>,
}

impl NotReady {
    /// The state of the source when the wait ended.
    pub fn state(&self) -> &SourceState {
        &self.state
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, state, waited } = self;
        match waited {
            Some(waited) => write!(f, "no configuration was loaded within {waited:?}: ")?,
            None => f.write_str("no configuration was loaded, and none will be, because the reflector has ended: ")?,
        }
        match (state, waited) {
            (SourceState::Disconnected(reason), _) => write!(f, "the source `{source}` reports: {reason}"),
            (SourceState::Starting, Some(_)) => {
                write!(f, "the source `{source}` has not begun; spawn the future of `Reflector::run`")
            }
            (SourceState::Starting, None) => {
                write!(f, "the source `{source}` had not begun; keep the future of `Reflector::run` running")
            }
            (SourceState::Live | SourceState::Stale, _) => write!(f, "the source `{source}` is {}", state.label()),
        }
    }
}

impl std::error::Error for NotReady {}
