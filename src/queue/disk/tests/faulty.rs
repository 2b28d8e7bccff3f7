//! A fake disk that can lose power and fail.

// The fuzzer uses only a part of this.
#![cfg_attr(fuzzing, allow(dead_code, clippy::unwrap_used))]

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::queue::disk::storage::{Disk, Segment};

/// A disk in memory that can lose power and fail. Clones share the disk.
#[derive(Clone, Default)]
pub(super) struct Faulty(Arc<Mutex<Contents>>);

#[derive(Default)]
pub(super) struct Contents {
    pub(super) segments: BTreeMap<u32, Content>,
    /// The recycled segment that the next one is made of.
    spare: Option<Content>,
    pub(super) syncs: usize,
    pub(super) fail_append: bool,
    pub(super) fail_sync: bool,
    pub(super) fail_create: bool,
    pub(super) fail_truncate: bool,
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// The bytes that would survive a power cut.
    pub(super) synced: Vec<u8>,
    /// The offset of the next append.
    end: usize,
    /// The bytes that cannot be read.
    pub(super) bad: Range<usize>,
}

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

impl Content {
    pub(super) fn synced(bytes: Vec<u8>) -> Self {
        Self { synced: bytes.clone(), bytes, ..Self::default() }
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Of the unsynced bytes, either some sectors in no order are left, or all bytes up to a random one.
    fn after_power_cut(&self, random: &mut fastrand::Rng) -> Self {
        let (least, most) = (self.synced.len().min(self.bytes.len()), self.synced.len().max(self.bytes.len()));
        let mut bytes = self.bytes.clone();
        bytes.resize(random.usize(least..=most), 0);
        let (is_in_order, until) = (random.bool(), random.usize(..=bytes.len()));
        for (nth, byte) in bytes.iter_mut().enumerate() {
            let is_written = if is_in_order { nth < until } else { until.wrapping_mul(nth / SECTOR + 7) % 3 > 0 };
            if !is_written {
                *byte = self.synced.get(nth).copied().unwrap_or(0);
            }
        }
        Self::synced(bytes)
    }
}

impl Faulty {
    pub(super) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    /// The disk after a power cut.
    pub(super) fn after_power_cut(&self, random: &mut fastrand::Rng) -> Self {
        let mut segments = self.lock().segments.clone();
        segments.values_mut().for_each(|content| *content = content.after_power_cut(random));
        Self(Arc::new(Mutex::new(Contents { segments, ..Contents::default() })))
    }

    /// The disk after `kill -9`: everything that was written is there.
    pub(super) fn after_kill(&self) -> Self {
        let segments = self.lock().segments.clone();
        Self(Arc::new(Mutex::new(Contents { segments, ..Contents::default() })))
    }

    pub(super) fn bytes(&self) -> usize {
        let contents = self.lock();
        contents.segments.values().chain(&contents.spare).map(|content| content.bytes.len()).sum()
    }
}

impl Disk for Faulty {
    fn list(&self) -> io::Result<Vec<u32>> {
        Ok(self.lock().segments.keys().copied().collect())
    }

    fn create(&self, number: u32, head: &[u8]) -> io::Result<Arc<dyn Segment>> {
        let mut contents = self.lock();
        if contents.fail_create {
            return Err(io::Error::other("creating a segment fails"));
        }
        let mut content = contents.spare.take().unwrap_or_default();
        content.write(head, 0);
        let content = Content { end: head.len(), ..Content::synced(content.bytes) };
        contents.segments.insert(number, content);
        drop(contents);
        self.open(number)
    }

    fn open(&self, number: u32) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(File { disk: self.clone(), number }))
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        self.lock().segments.remove(&number);
        Ok(())
    }

    fn recycle(&self, number: u32) -> io::Result<()> {
        let mut contents = self.lock();
        contents.spare = contents.segments.remove(&number);
        Ok(())
    }
}

struct File {
    disk: Faulty,
    number: u32,
}

impl File {
    fn with<R>(&self, act: impl FnOnce(&mut Content) -> R) -> io::Result<R> {
        self.disk.lock().segments.get_mut(&self.number).map(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Segment for File {
    fn append(&self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let fails = self.disk.lock().fail_append;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if fails {
            bytes.truncate(bytes.len() / 2);
        }
        self.with(|content| {
            content.write(&bytes, content.end);
            content.end += bytes.len();
        })?;
        if fails { Err(io::Error::other("appending fails")) } else { Ok(()) }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.disk.lock().fail_append {
            return Err(io::Error::other("appending fails"));
        }
        self.with(|content| content.write(bytes, offset as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut contents = self.disk.lock();
        contents.syncs += 1;
        if contents.fail_sync {
            return Err(io::Error::other("syncing fails"));
        }
        drop(contents);
        self.with(|content| content.synced.clone_from(&content.bytes))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        if self.disk.lock().fail_truncate {
            return Err(io::Error::other("truncating fails"));
        }
        self.with(|content| content.bytes.truncate(length as usize))
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|content| content.bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset as usize..offset as usize + bytes.len();
        self.with(|content| {
            if range.start < content.bad.end && content.bad.start < range.end {
                return Err(io::Error::other("the disk cannot read it"));
            }
            bytes.copy_from_slice(&content.bytes[range]);
            Ok(())
        })?
    }
}
