//! The current configuration.
//!
//! A [`Store`] is the read half: it is cheap to clone, never blocks, and shows one complete snapshot at a
//! time. The only writer belongs to the [`Reflector`](crate::Reflector). Each revision of the source becomes visible as
//! a whole.

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
