//! The format of a segment: a head, then frames with one record each.
//!
//! ```text
//! segment  "TWSPOOL1"  salt: u64  frame*
//! frame    length: u32  checksum: u32  kind: u8  tag: [u8; 3]  sequence: u64  payload: [u8; length]
//! ```
//!
//! Numbers are little-endian. The checksum is CRC-32 over the salt and everything behind the checksum. The tag is the first
//! three bytes of the salt: a search for the next frame compares the tag before it computes a checksum. Each segment has
//! a random salt. A sender that knows the format therefore cannot put bytes into a body that would pass for a frame when
//! recovery searches behind a damaged stretch, and frames of an earlier segment in a recycled file are not found.
//!
//! The current segment has preallocated room behind its last frame, filled with zeros or with bytes of an earlier segment.
//! Appending and syncing then leave the file's size as it is; a change of the size costs a file system several times as
//! much.

use std::ops::Range;

use super::state::{self, StoredState};

/// The first bytes of a segment.
const MAGIC: &[u8; 8] = b"TWSPOOL1";

/// The bytes before the first frame.
pub(super) const SEGMENT_HEAD: usize = 16;

/// The bytes before a payload.
pub(super) const FRAME_HEAD: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event: see `event.rs`.
    Event = 1,
    /// The state of an event: see `state.rs`.
    State = 2,
    /// The event is done, and so are the events whose sequence numbers are the payload.
    Done = 3,
    /// Everything before an offset was synced. The offset is stored in the `sequence` field.
    Synced = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Event),
            2 => Some(Self::State),
            3 => Some(Self::Done),
            4 => Some(Self::Synced),
            _ => None,
        }
    }
}

/// A random number that distinguishes the frames of a segment from frames of other segments and from forged ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Salt {
    number: u64,
    tag: [u8; 3],
}

impl Salt {
    pub(super) fn random() -> Self {
        Self::from_number(fastrand::u64(..))
    }

    fn from_number(number: u64) -> Self {
        let [first, second, third, ..] = number.to_le_bytes();
        Self { number, tag: [first, second, third] }
    }

    /// The salt of a segment; `None` if the bytes are no segment.
    pub(super) fn read(segment: &[u8]) -> Option<Self> {
        let (magic, number) = segment.get(..SEGMENT_HEAD)?.split_at(MAGIC.len());
        let number = u64::from_le_bytes(number.try_into().ok()?);
        (magic == MAGIC).then(|| Self::from_number(number))
    }

    /// The head of a segment with this salt.
    pub(super) fn head(self) -> [u8; SEGMENT_HEAD] {
        let mut head = [0; SEGMENT_HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..].copy_from_slice(&self.number.to_le_bytes());
        head
    }
}

/// Appends the head of a frame; append the payload next, then call [`finish`].
pub(super) fn begin(bytes: &mut Vec<u8>, kind: Kind, sequence: u64) {
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
}

/// Fills in the length and the checksum of a frame whose payload continues with `rest`.
pub(super) fn finish(frame: &mut [u8], salt: Salt, rest: &[u8]) {
    frame[9..12].copy_from_slice(&salt.tag);
    let checksum = checksum(salt, &frame[8..], rest);
    // An event this long is refused earlier.
    let length = u32::try_from(frame.len() - FRAME_HEAD + rest.len()).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// A frame of `length` bytes without a meaning, to overwrite bytes that are no frame.
pub(super) fn filler(salt: Salt, length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    begin(&mut bytes, Kind::Synced, 0);
    if length < bytes.len() {
        return None;
    }
    bytes.resize(length, 0);
    finish(&mut bytes, salt, &[]);
    Some(bytes)
}

/// The bytes that a frame with this state takes.
pub(super) fn state_length(state: &StoredState) -> u32 {
    // The reason is cut, so the length fits.
    (FRAME_HEAD + state::encoded_length(state)) as u32
}

fn checksum(salt: Salt, head: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.number.to_le_bytes());
    hasher.update(head);
    hasher.update(rest);
    hasher.finalize()
}

/// A record that was read from a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) payload: &'a [u8],
}

impl Record<'_> {
    /// The sequence numbers of the events that a `Done` record ends.
    pub(super) fn done(&self) -> impl Iterator<Item = u64> {
        let (others, _) = self.payload.as_chunks();
        others.iter().map(|other| u64::from_le_bytes(*other)).chain([self.sequence])
    }
}

/// Reads the frame at the beginning of `bytes`; `None` unless a whole and undamaged frame is there.
pub(super) fn read(salt: Salt, bytes: &[u8]) -> Option<Record<'_>> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD)?;
    let number = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes);
    let kind = Kind::from_byte(head[8]).filter(|_| head[9..12] == salt.tag)?;
    let payload = rest.get(..number(0).ok()? as usize)?;
    let sequence = head[12..].try_into().map(u64::from_le_bytes).ok()?;
    (number(4).ok()? == checksum(salt, &head[8..], payload)).then_some(Record { kind, sequence, payload })
}

/// Calls `found` with each frame of a segment and its offset. Returns the ranges that belong to no frame.
pub(super) fn scan<'a>(salt: Salt, segment: &'a [u8], mut found: impl FnMut(u32, Record<'a>)) -> Vec<Range<usize>> {
    let mut gaps = Vec::new();
    let (mut at, mut gap) = (SEGMENT_HEAD, SEGMENT_HEAD);
    while at < segment.len() {
        match read(salt, &segment[at..]) {
            Some(record) => {
                if gap < at {
                    gaps.push(gap..at);
                }
                let length = FRAME_HEAD + record.payload.len();
                // Segments are far below 4 GiB: the writer closes a segment as soon as it is full.
                found(u32::try_from(at).unwrap_or(u32::MAX), record);
                at += length;
                gap = at;
            }
            None => at += 1,
        }
    }
    if gap < segment.len() {
        gaps.push(gap..segment.len());
    }
    gaps
}

/// Frames do not overlap, and frames and gaps together cover the segment.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let salt = Salt::from_number(7);
    let mut segment = salt.head().to_vec();
    segment.extend_from_slice(bytes);
    let mut covered = SEGMENT_HEAD;
    let gaps = scan(salt, &segment, |_, record| covered += FRAME_HEAD + record.payload.len());
    assert_eq!(covered + gaps.iter().map(Range::len).sum::<usize>(), segment.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn salt(number: u64) -> Salt {
        Salt::from_number(number)
    }

    fn frame(number: u64, kind: Kind, sequence: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin(&mut bytes, kind, sequence);
        bytes.extend(payload);
        finish(&mut bytes, salt(number), &[]);
        bytes
    }

    fn segment(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut segment = salt(7).head().to_vec();
        frames.iter().for_each(|frame| segment.extend(frame));
        segment
    }

    fn found(segment: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        scan(salt(7), segment, |_, record| found.push(record.sequence));
        found
    }

    fn frames() -> Vec<Vec<u8>> {
        (1..=3).map(|n| frame(7, Kind::Event, n, &[n as u8; 34])).collect()
    }

    #[test]
    fn frames_are_read_as_written() {
        let bytes = frame(7, Kind::State, u64::MAX, b"payload");
        let expected = Record { kind: Kind::State, sequence: u64::MAX, payload: b"payload" };
        assert_eq!(read(salt(7), &bytes), Some(expected));
        assert_eq!(read(salt(8), &bytes), None, "another salt");
    }

    #[test]
    fn a_payload_may_be_in_two_buffers() {
        let mut bytes = Vec::new();
        begin(&mut bytes, Kind::Event, 1);
        bytes.extend(b"head");
        finish(&mut bytes, salt(7), b"rest");
        bytes.extend(b"rest");
        assert_eq!(bytes, frame(7, Kind::Event, 1, b"headrest"));
    }

    #[test]
    fn a_filler_is_one_frame() {
        assert_eq!(filler(salt(7), FRAME_HEAD - 1), None);
        for length in [FRAME_HEAD, 100] {
            let bytes = filler(salt(7), length).unwrap();
            assert_eq!((bytes.len(), read(salt(7), &bytes).unwrap().kind), (length, Kind::Synced));
        }
    }

    #[test]
    fn each_damaged_byte_costs_one_frame_and_no_other() {
        let whole = segment(&frames());
        assert_eq!(found(&whole), [1, 2, 3]);
        assert_eq!((Salt::read(&whole), Salt::read(b"TWSPOOL9-and-more")), (Some(salt(7)), None));
        let length = (whole.len() - SEGMENT_HEAD) / 3;
        for at in SEGMENT_HEAD..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            let lost = ((at - SEGMENT_HEAD) / length) as u64 + 1;
            let expected: Vec<_> = (1..=3).filter(|n| *n != lost).collect();
            assert_eq!(found(&damaged), expected, "byte {at}");
            let start = SEGMENT_HEAD + (lost as usize - 1) * length;
            assert_eq!(scan(salt(7), &damaged, |_, _| {}), vec![start..start + length; 1], "byte {at}");
        }
    }

    #[test]
    fn a_torn_tail_costs_what_is_torn() {
        let whole = segment(&frames());
        let length = (whole.len() - SEGMENT_HEAD) / 3;
        for end in SEGMENT_HEAD..=whole.len() {
            assert_eq!(found(&whole[..end]).len(), (end - SEGMENT_HEAD) / length, "cut at {end}");
        }
    }

    #[test]
    fn a_frame_inside_a_body_is_not_taken_for_one() {
        let forged = frame(0, Kind::Event, 99, b"forged");
        let mut segment = segment(&[frame(7, Kind::Event, 1, &forged)]);
        segment[SEGMENT_HEAD + 1] ^= 1;
        assert!(found(&segment).is_empty());
    }

    proptest! {
        #[test]
        fn reading_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(salt(7), &bytes);
            scan(salt(7), &bytes, |_, _| {});
        }
    }
}
