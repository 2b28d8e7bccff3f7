//! Frames to be appended to a segment, and the memory that keeps written frames for a while.

use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::frame::{FRAME_HEAD, Kind, Salt};
use super::state::StoredState;
use super::{frame, state};
use crate::base::lock::lock;

/// A larger body is written from its own buffer; a smaller one is copied into the buffer of the frames.
const LARGE: usize = 64 << 10;

/// A larger piece gets no more frames: one event of the piece that stays in memory keeps the whole piece there.
const PIECE: usize = 256 << 10;

/// Frames in the order in which they will be written.
#[derive(Default)]
pub(super) struct Frames {
    salt: Salt,
    closed: Vec<Piece>,
    open: Vec<u8>,
    length: u64,
}

enum Piece {
    Frames(Vec<u8>),
    Body(Bytes),
}

/// The position of a frame in a [`Frames`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The offset from the beginning of the first frame.
    pub(super) at: u64,
    pub(super) length: u32,
    piece: u32,
    start: u32,
}

impl Frames {
    pub(super) fn new(salt: Salt) -> Self {
        Self { salt, ..Self::default() }
    }

    /// No frames yet; new ones are put into `buffer`.
    pub(super) fn with(salt: Salt, buffer: Vec<u8>) -> Self {
        Self { open: buffer, ..Self::new(salt) }
    }

    /// The salt of the segment that the frames are written to.
    pub(super) fn salt(&self) -> Salt {
        self.salt
    }

    /// Adds a frame. `payload` appends the part of the payload before `body`.
    pub(super) fn push(&mut self, kind: Kind, sequence: u64, payload: impl FnOnce(&mut Vec<u8>), body: &Bytes) -> Span {
        let (piece, start) = (self.closed.len() as u32, self.open.len());
        frame::begin(&mut self.open, kind, sequence);
        payload(&mut self.open);
        let rest = if body.len() > LARGE { body } else { &[][..] };
        if rest.is_empty() {
            self.open.extend_from_slice(body);
        }
        frame::finish(&mut self.open[start..], self.salt, rest);
        let length = self.open.len() - start + rest.len();
        if !rest.is_empty() || self.open.len() > PIECE {
            self.closed.push(Piece::Frames(std::mem::take(&mut self.open)));
        }
        if !rest.is_empty() {
            self.closed.push(Piece::Body(body.clone()));
        }
        // A longer event than `u32` can count is refused earlier.
        let span = Span { at: self.length, length: length as u32, piece, start: start as u32 };
        self.length += length as u64;
        span
    }

    /// Adds a frame that ends these events. The last one must be the newest.
    pub(super) fn push_done(&mut self, sequences: &[u64]) {
        let Some((newest, others)) = sequences.split_last() else { return };
        let payload = |bytes: &mut Vec<u8>| others.iter().for_each(|other| bytes.extend(other.to_le_bytes()));
        self.push(Kind::Done, *newest, payload, &Bytes::new());
    }

    pub(super) fn push_state(&mut self, sequence: u64, state: &StoredState) {
        self.push(Kind::State, sequence, |bytes| state::encode(state, bytes), &Bytes::new());
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let closed = self.closed.iter().map(|piece| match piece {
            Piece::Frames(bytes) => IoSlice::new(bytes),
            Piece::Body(bytes) => IoSlice::new(bytes),
        });
        closed.chain([IoSlice::new(&self.open)]).filter(|slice| !slice.is_empty())
    }

    /// Keeps the frames in memory, as far as there is room. Large bodies are not kept.
    pub(super) fn keep(self, memory: &Memory) -> Kept {
        let keep = |piece| match piece {
            Piece::Frames(bytes) => memory.keep(bytes),
            Piece::Body(_) => None,
        };
        Kept(self.closed.into_iter().chain([Piece::Frames(self.open)]).map(keep).collect())
    }
}

/// Written frames that are still in memory.
pub(super) struct Kept(Vec<Option<Bytes>>);

impl Kept {
    /// The payload of a frame, if it is in memory in one piece.
    pub(super) fn payload(&self, span: Span) -> Option<Bytes> {
        let piece = self.0.get(span.piece as usize)?.as_ref()?;
        let (start, end) = (span.start as usize, span.start as usize + span.length as usize);
        (end <= piece.len()).then(|| piece.slice(start + FRAME_HEAD..end))
    }
}

/// The memory for written frames, bounded, with a pool of buffers. Clones share it.
#[derive(Clone)]
pub(super) struct Memory(Arc<Buffers>);

struct Buffers {
    max: usize,
    /// The capacity of all buffers that are kept.
    taken: AtomicUsize,
    /// Buffers for the next frames: allocating a large buffer costs more than filling it.
    free: Mutex<Vec<Vec<u8>>>,
}

/// The largest number of free buffers.
const FREE: usize = 4;

impl Memory {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Buffers { max, taken: AtomicUsize::new(0), free: Mutex::default() }))
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.free().pop().unwrap_or_default()
    }

    /// Keeps these bytes if there is room. Only the writer thread calls this.
    fn keep(&self, bytes: Vec<u8>) -> Option<Bytes> {
        let length = bytes.capacity();
        if self.0.taken.load(Ordering::Relaxed) + length > self.0.max {
            self.give_back(bytes);
            return None;
        }
        self.0.taken.fetch_add(length, Ordering::Relaxed);
        Some(Bytes::from_owner(Counted { bytes, memory: self.clone() }))
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.free();
        // A buffer larger than two pieces was needed for a single frame only.
        if free.len() < FREE && (1..=2 * PIECE).contains(&bytes.capacity()) {
            free.push(bytes);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        lock(&self.0.free)
    }
}

struct Counted {
    bytes: Vec<u8>,
    memory: Memory,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.0.taken.fetch_sub(self.bytes.capacity(), Ordering::Relaxed);
        self.memory.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_are_where_they_are_said_to_be(bodies in prop::collection::vec(0..(3 * LARGE), 0..20)) {
            let salt = Salt::random();
            let mut frames = Frames::new(salt);
            let push = |(n, length): (usize, &usize)| {
                let body = Bytes::from(vec![n as u8; *length]);
                (frames.push(Kind::Event, n as u64, |head| head.extend(b"head"), &body), body)
            };
            let pushed: Vec<_> = bodies.iter().enumerate().map(push).collect();
            let bytes: Vec<u8> = frames.slices().flat_map(|slice| slice.to_vec()).collect();
            prop_assert_eq!(bytes.len() as u64, frames.length());
            let kept = frames.keep(&Memory::new(usize::MAX));
            for (n, (span, body)) in pushed.into_iter().enumerate() {
                let expected = [b"head", &body[..]].concat();
                let record = frame::read(salt, &bytes[span.at as usize..]).unwrap();
                prop_assert_eq!((record.sequence, record.payload), (n as u64, &expected[..]));
                prop_assert_eq!(record.payload.len() + FRAME_HEAD, span.length as usize);
                prop_assert_eq!(kept.payload(span).map(Vec::from), (body.len() <= LARGE).then_some(expected));
            }
        }
    }

    #[test]
    fn memory_keeps_no_more_than_its_limit() {
        let memory = Memory::new(100);
        let kept = memory.keep(vec![1; 60]).unwrap();
        assert!(memory.keep(vec![1; 60]).is_none());
        let part = kept.slice(..1);
        drop(kept);
        assert!(memory.keep(vec![1; 60]).is_none(), "a part keeps the whole");
        drop(part);
        assert!(memory.keep(vec![1; 60]).is_some());
    }

    #[test]
    fn buffers_are_reused() {
        let memory = Memory::new(1 << 20);
        assert_eq!(memory.buffer().capacity(), 0);
        for length in [100, 2 * PIECE, 2 * PIECE + 1] {
            let bytes = vec![7; length];
            let address = bytes.as_ptr();
            drop(memory.keep(bytes));
            let again = memory.buffer();
            assert_eq!((again.len(), again.as_ptr() == address), (0, length <= 2 * PIECE), "{length}");
        }
        drop(memory.keep(Vec::new()));
        (0..=FREE).map(|_| memory.keep(vec![7; 100])).collect::<Vec<_>>().clear();
        assert_eq!(memory.free().len(), FREE);
    }
}
