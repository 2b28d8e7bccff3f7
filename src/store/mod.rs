//! The configuration as it is now.
//!
//! A [`Store`] is the read half: cheap to clone, never blocking, one whole snapshot at a time. There is one writer, and
//! it belongs to the [`Reflector`](crate::Reflector). Each revision of the source becomes visible at once or not at all.

mod cell;
pub(crate) mod current;
mod map;
mod not_ready;
mod revision;
mod snapshot;
mod status;

pub(crate) use self::current::{Store, Writer, store};
pub use self::not_ready::NotReady;
pub use self::revision::Revision;
pub use self::snapshot::{Counts, Refusal, Snapshot};
pub(crate) use self::snapshot::{Found, Slot};
pub use self::status::{ErrorKind, IgnoredKey, LastError, ListReason, SourceReport, SourceState, Status};
