//! The current segment: the one that records are appended to.

use std::sync::Arc;

use bytes::Bytes;

use super::batch::Frames;
use super::frame::{Kind, Salt};
use super::storage::Segment;

/// How many bytes are preallocated in the current segment at a time: see `frame.rs`. A small segment gets less.
const SPARE: u64 = 512 << 10;

/// The segment that records are appended to.
pub(super) struct Current {
    pub(super) number: u32,
    pub(super) segment: Arc<dyn Segment>,
    pub(super) salt: Salt,
    /// Bytes written: the offset of the next frame.
    pub(super) size: u64,
    /// Size of the file, the preallocated room included.
    pub(super) reserved: u64,
    /// Offset up to which the segment is known to be synced; recorded in the next frame.
    pub(super) synced: u64,
}

impl Current {
    /// The frame that records how far the segment is synced. If bytes after that offset are torn, recovery cannot tell
    /// whether they belonged to accepted events.
    pub(super) fn mark(&self) -> Frames {
        let mut frames = Frames::new(self.salt);
        frames.push(Kind::Synced, self.synced, |_| {}, &Bytes::new());
        frames
    }

    /// Preallocates room behind `end`, if none is left. After large frames it would not pay.
    pub(super) fn reserve(&mut self, end: u64, segment_bytes: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

        if end < self.reserved {
            return;
        }
        let spare = if end - self.size < SPARE / 8 { SPARE.min(segment_bytes / 8) } else { 0 };
        let until = (end + spare).min(segment_bytes).max(end);
        self.reserved = end;
        while self.reserved < until {
            let zeros = &ZEROS[..ZEROS.len().min((until - self.reserved) as usize)];
            // Preallocation is optional: if the disk is full, the next append fails.
            if self.segment.write_at(zeros, self.reserved).is_err() {
                return;
            }
            self.reserved += zeros.len() as u64;
        }
    }
}
