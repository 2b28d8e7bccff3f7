//! Events: an event on its way to a module, its id, its progress, and the answers and errors about it.

mod answer;
mod delivery;
mod error;
mod id;
mod progress;
pub(crate) mod receipt;

pub(crate) use self::answer::Answered;
pub use self::answer::{Answer, Reply};
pub use self::delivery::{Ack, Delivery};
pub(crate) use self::error::LONGEST_WAIT;
pub use self::error::{DeliverError, DeliverErrorKind};
pub use self::id::EventId;
pub(crate) use self::id::Stamp;
pub use self::progress::Progress;
pub(crate) use self::progress::{MAX_STEPS, Tracker};
pub(crate) use self::receipt::DuplicateOf;
pub use self::receipt::{DUPLICATE, EVENT_ID, Receipt, Render, dispatch_answer};
