//! What flows: an event, its id, what became of it.

mod delivery;
mod error;
mod id;
mod progress;

pub use self::delivery::{Ack, Delivery};
pub(crate) use self::error::LONGEST_WAIT;
pub use self::error::{DeliverError, DeliverErrorKind};
pub use self::id::EventId;
pub(crate) use self::progress::{Done, MAX_STEPS};
