//! A disk that can lose power and fail.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::spool::disk::{Disk, Segment};

/// A disk in memory that can lose power and fail.
#[derive(Clone, Default)]
pub(super) struct Faulty(Arc<Mutex<Platters>>);

#[derive(Default)]
pub(super) struct Platters {
    pub(super) segments: BTreeMap<u32, Content>,
    pub(super) syncs: usize,
    pub(super) fail_append: bool,
    pub(super) fail_sync: bool,
    pub(super) fail_create: bool,
    pub(super) fail_truncate: bool,
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// What would survive a power cut.
    pub(super) synced: usize,
}

impl Faulty {
    pub(super) fn lock(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().unwrap()
    }

    /// What a power cut leaves: of what was not synced any part, torn anywhere.
    pub(super) fn after_power_cut(&self, random: &mut fastrand::Rng) -> Self {
        let mut segments = self.lock().segments.clone();
        for content in segments.values_mut() {
            content.bytes.truncate(random.usize(content.synced..=content.bytes.len()));
            content.synced = content.bytes.len();
        }
        Self(Arc::new(Mutex::new(Platters { segments, ..Platters::default() })))
    }

    /// What `kill -9` leaves: everything that was written.
    pub(super) fn after_kill(&self) -> Self {
        let segments = self.lock().segments.clone();
        Self(Arc::new(Mutex::new(Platters { segments, ..Platters::default() })))
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().segments.values().map(|content| content.bytes.len()).sum()
    }
}

impl Disk for Faulty {
    fn list(&self) -> io::Result<Vec<u32>> {
        Ok(self.lock().segments.keys().copied().collect())
    }

    fn create(&self, number: u32) -> io::Result<Arc<dyn Segment>> {
        let mut platters = self.lock();
        if platters.fail_create {
            return Err(io::Error::other("no segment can be made"));
        }
        platters.segments.insert(number, Content::default());
        drop(platters);
        self.open(number)
    }

    fn open(&self, number: u32) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(File { disk: self.clone(), number }))
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        self.lock().segments.remove(&number);
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
        self.with(|content| content.bytes.extend(bytes))?;
        if fails { Err(io::Error::other("torn")) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut platters = self.disk.lock();
        platters.syncs += 1;
        if platters.fail_sync {
            return Err(io::Error::other("not synced"));
        }
        drop(platters);
        self.with(|content| content.synced = content.bytes.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        if self.disk.lock().fail_truncate {
            return Err(io::Error::other("not cut"));
        }
        self.with(|content| content.bytes.truncate(length as usize))
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|content| content.bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|content| bytes.copy_from_slice(&content.bytes[offset as usize..][..bytes.len()]))
    }
}
