//! The numbers of rows: they sort by the time of receipt, and carry it.
//!
//! An id is a UUIDv7: 48 bits of milliseconds and twelve bits of their fraction sort it. These 60 bits and a slot of three
//! bits make the number of an event's row, so that the table itself is sorted by time, and no index by id is needed: an
//! event is in one of the eight slots of its time.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::event::EventId;

/// The bits of a number that are not milliseconds.
const BITS: u32 = 15;

/// The numbers of the slots that an event may be in.
pub(super) fn slots(id: EventId) -> RangeInclusive<i64> {
    let bytes = id.uuid().as_bytes();
    let bits = u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
    // Without the four bits of the version.
    let sorted = (bits >> 16 << 12) | (bits & 0xfff);
    let first = (sorted << 3) as i64;
    first..=first + 7
}

/// The first number of this millisecond.
pub(super) fn first(at: SystemTime) -> i64 {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(millis << BITS).unwrap_or(i64::MAX)
}

/// The time of receipt, to the millisecond.
pub(super) fn time(number: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(number.max(0) as u64 >> BITS)
}

/// An id as it is stored.
pub(super) fn bytes(id: EventId) -> [u8; 16] {
    *id.uuid().as_bytes()
}

/// The id that is stored as these bytes.
pub(super) fn id(bytes: &[u8]) -> EventId {
    EventId::from_uuid(Uuid::from_slice(bytes).unwrap_or_default())
}

/// Microseconds since 1970, as times are stored.
pub(super) fn micros(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// The time that is stored as these microseconds.
pub(super) fn from_micros(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.max(0) as u64)
}

/// A span in microseconds, as it is stored.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The span that is stored as these microseconds.
pub(super) fn from_span(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stamp;

    #[test]
    fn numbers_sort_as_ids_and_carry_the_time() {
        let mut before = (EventId::from_uuid(Uuid::nil()), 0);
        for _ in 0..1000 {
            let stamp = Stamp::now();
            let slots = slots(stamp.id);
            assert!(stamp.id < before.0 || *slots.start() >= before.1, "the order of ids is that of numbers");
            before = (stamp.id, *slots.start());
            let millis = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_millis();
            assert_eq!(millis(time(*slots.end())), millis(stamp.at));
            assert!(first(stamp.at) <= *slots.start() && *slots.end() < first(stamp.at + Duration::from_millis(1)));
            assert_eq!(id(&bytes(stamp.id)), stamp.id);
        }
        let nil = EventId::from_uuid(Uuid::max());
        assert!(*slots(nil).start() >= 0, "any id has a number");
    }
}
