//! The segment that is written to.

use std::sync::Arc;

use bytes::Bytes;

use super::batch::Frames;
use super::frame::{Kind, Salt};
use super::storage::Segment;

/// So much room is made at a time in the segment that is written to: see `frame.rs`. A small segment has less.
const SPARE: u64 = 512 << 10;

/// The segment that is written to.
pub(super) struct Current {
    pub(super) number: u32,
    pub(super) segment: Arc<dyn Segment>,
    pub(super) salt: Salt,
    /// What was written.
    pub(super) size: u64,
    /// What the file has, the room behind what was written included.
    pub(super) reserved: u64,
    /// What a sync has come to its end for, of which the next frames tell.
    pub(super) synced: u64,
}

impl Current {
    /// Says in the segment how much of it is certain: of the rest, should it be torn, nobody knows whether it was accepted.
    pub(super) fn mark(&self) -> Frames {
        let mut frames = Frames::new(self.salt);
        frames.push(Kind::Synced, self.synced, |_| {}, &Bytes::new());
        frames
    }

    /// Makes room behind `end`, if there is none left. For frames that are so large themselves it would not pay.
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
            // It is written to all the same; a full disk will show then.
            if self.segment.write_at(zeros, self.reserved).is_err() {
                return;
            }
            self.reserved += zeros.len() as u64;
        }
    }
}
