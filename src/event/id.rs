//! Ids of events.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use uuid::{Builder, Uuid};

/// The id of an event: a UUIDv7 (RFC 9562), so that ids sort by time of receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// The length of its text.
    #[cfg(feature = "_egress")]
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) const LENGTH: usize = 36;

    fn new(received_at: SystemTime) -> Self {
        let since = received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // An id is no secret, so a fast random number generator suffices. The twelve bits after the milliseconds are the
        // fraction of the millisecond (RFC 9562 §6.2, method 3), so that ids sort within a millisecond as well.
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let fraction = (u64::from(since.subsec_nanos() % 1_000_000) << 12) / 1_000_000;
        random[..2].copy_from_slice(&(fraction as u16).to_be_bytes());
        Self(Builder::from_unix_timestamp_millis(since.as_millis() as u64, &random).into_uuid())
    }

    pub(crate) fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    #[cfg(any(feature = "history", feature = "queue-disk"))]
    pub(crate) fn uuid(&self) -> &Uuid {
        &self.0
    }

    /// When the event was received, in whole milliseconds. Of an id that is no UUIDv7, the result has no meaning.
    pub fn received_at(&self) -> SystemTime {
        // The milliseconds are the first 48 bits (RFC 9562 §5.7).
        let millis = self.0.as_u128() >> 80;
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis as u64)
    }

    /// The id as text, which is written into `buffer`.
    #[cfg(feature = "_egress")]
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn encode(self, buffer: &mut [u8; Self::LENGTH]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// The id as the value of a header.
    pub(crate) fn to_header(self) -> Option<HeaderValue> {
        let mut buffer = Uuid::encode_buffer();
        HeaderValue::from_str(self.0.hyphenated().encode_lower(&mut buffer)).ok()
    }
}

/// The time at which an event was received, and its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) id: EventId,
    pub(crate) at: SystemTime,
}

impl Stamp {
    /// The stamp of an event that was received now.
    pub(crate) fn now() -> Self {
        Self::at(SystemTime::now())
    }

    pub(crate) fn at(at: SystemTime) -> Self {
        Self { id: EventId::new(at), at }
    }
}

/// Parses the text of an `X-Event-Id`.
impl FromStr for EventId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}
