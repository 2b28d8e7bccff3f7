//! What flows: an event, its id, what became of it.

mod delivery;
mod error;
mod id;
mod progress;

pub use self::delivery::{Ack, Delivery};
pub(crate) use self::error::LONGEST_WAIT;
pub use self::error::{DeliverError, DeliverErrorKind};
pub use self::id::EventId;
pub use self::progress::Progress;
pub(crate) use self::progress::{MAX_STEPS, Tracker};
