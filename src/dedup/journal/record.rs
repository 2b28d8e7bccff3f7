//! The encoding of a taken event.

use http::StatusCode;
use uuid::Uuid;

use crate::dedup::rule::EventDigest;
use crate::dedup::table::{Answer, Taken};

/// The size of a record: event digest, event id, time, expiry, status, two zero bytes, and a CRC-32 of everything before
/// it. Numbers are big-endian.
pub(super) const SIZE: usize = 48;

const CONTENT: usize = SIZE - 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) event: EventDigest,
    pub(super) taken: Taken,
}

impl Record {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.event.0);
        out.extend_from_slice(self.taken.answer.event_id.as_bytes());
        out.extend_from_slice(&self.taken.at.to_be_bytes());
        out.extend_from_slice(&self.taken.until.to_be_bytes());
        out.extend_from_slice(&self.taken.answer.status.as_u16().to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        let checksum = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&checksum.to_be_bytes());
    }

    /// `None` if the bytes are damaged.
    pub(super) fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let (content, checksum) = bytes.split_first_chunk::<CONTENT>()?;
        if crc32fast::hash(content).to_be_bytes() != checksum {
            return None;
        }
        let (event, rest) = content.split_first_chunk()?;
        let (event_id, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        let (status, _) = rest.split_first_chunk()?;
        let answer = Answer {
            status: StatusCode::from_u16(u16::from_be_bytes(*status)).ok()?,
            event_id: Uuid::from_bytes(*event_id),
        };
        let taken = Taken { answer, at: u32::from_be_bytes(*at), until: u32::from_be_bytes(*until) };
        Some(Self { event: EventDigest(*event), taken })
    }
}

#[cfg(test)]
pub(super) fn sample(number: u8, at: u32, until: u32) -> Record {
    let answer = Answer { status: StatusCode::ACCEPTED, event_id: Uuid::from_u128(u128::from(number)) };
    Record { event: EventDigest([number; 16]), taken: Taken { answer, at, until } }
}

/// A record that was decoded is encoded to the same bytes, except the two zero bytes.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(content) = bytes.first_chunk::<CONTENT>() else { return };
    let mut record = content.to_vec();
    record.extend_from_slice(&crc32fast::hash(content).to_be_bytes());
    let Some(read) = record.first_chunk().and_then(Record::decode) else { return };
    let mut again = Vec::new();
    read.encode(&mut again);
    assert_eq!(again[..CONTENT - 2], record[..CONTENT - 2]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> [u8; SIZE] {
        let mut bytes = Vec::new();
        sample(7, 100, u32::MAX).encode(&mut bytes);
        bytes.try_into().unwrap()
    }

    #[test]
    fn a_record_is_decoded_as_it_was_encoded() {
        assert_eq!(Record::decode(&encoded()), Some(sample(7, 100, u32::MAX)));
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        for bit in 0..SIZE * 8 {
            let mut bytes = encoded();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&bytes), None, "bit {bit}");
        }
        assert_eq!(Record::decode(&[0; SIZE]), None, "a power cut may leave zeros");
    }
}
