//! Recovery: reads the segments that an earlier process left.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::event::decode_name;
use super::frame::{FRAME_HEAD, Kind, Record, SEGMENT_HEAD, Salt};
use super::ledger::{Added, Ledger, Place};
use super::quota::Shares;
use super::storage::{Disk, Segment};
use super::{frame, measure, state};
use crate::config::WebhookKey;
use crate::event::EventId;
use crate::queue::Ticket;

pub(super) struct Recovered {
    pub(super) ledger: Ledger,
    pub(super) shares: Shares,
    /// In the order of their receipt.
    pub(super) waiting: Vec<Ticket>,
    pub(super) next_sequence: u64,
    pub(super) next_segment: u32,
    /// Bytes of accepted events that are damaged.
    pub(super) damaged: u64,
}

/// Id, webhook and length of each live event, by sequence number.
type Names = HashMap<u64, (EventId, WebhookKey, u32)>;

pub(super) fn read(disk: &dyn Disk) -> io::Result<Recovered> {
    let mut numbers = disk.list()?;
    numbers.sort_unstable();
    let mut ledger = Ledger::default();
    let mut names = Names::default();
    let (mut newest, mut damaged) = (0, 0);
    for (nth, number) in numbers.iter().enumerate() {
        let is_last = nth + 1 == numbers.len();
        let read = read_segment(disk, *number, is_last, &mut ledger, &mut names)?;
        newest = newest.max(read.newest);
        damaged += read.damaged;
    }
    let mut waiting = Vec::new();
    let mut shares = Shares::default();
    for (sequence, (id, webhook, bytes)) in names.into_iter().collect::<BTreeMap<_, _>>() {
        shares.take(&webhook, u64::from(bytes));
        let ticket = Ticket { sequence, webhook, bytes };
        match ledger.death(&ticket) {
            Some(_) => ledger.bury(id, ticket),
            None => waiting.push(ticket),
        }
    }
    if !numbers.is_empty() {
        tracing::info!(
            waiting = waiting.len(),
            dead = ledger.dead().len(),
            bytes = ledger.sizes().taken(),
            "spool read"
        );
    }
    let next_segment = numbers.last().map_or(1, |number| number + 1);
    Ok(Recovered { ledger, shares, waiting, next_sequence: newest + 1, next_segment, damaged })
}

/// The result of reading one segment.
struct SegmentSummary {
    /// The newest sequence number in it.
    newest: u64,
    damaged: u64,
}

fn read_segment(
    disk: &dyn Disk,
    number: u32,
    is_last: bool,
    ledger: &mut Ledger,
    names: &mut Names,
) -> io::Result<SegmentSummary> {
    let segment = disk.open(number)?;
    let (bytes, unreadable) = read_all(&*segment, number)?;
    // Unreadable bytes are never overwritten or cut off: a later start may be able to read them.
    let may_change = is_last && unreadable == 0;
    let salt = match Salt::read(&bytes) {
        Some(salt) => salt,
        // The power went after the segment was created, and before any event in it was accepted.
        None if bytes.iter().all(|byte| *byte == 0) || bytes.len() < SEGMENT_HEAD => Salt::random(),
        None => {
            let reason = format!(
                "the head of segment {number} is damaged, or the file is no segment: move the file away to start without its events"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    };
    let (mut size, mut damaged, mut newest, mut undecodable) = (bytes.len(), 0, 0, 0);
    ledger.add_segment(number, Arc::clone(&segment), salt, size as u64);
    // The offset up to which the bytes are known to be synced; `None` if no frame records one.
    let mut synced = None;
    let gaps = frame::scan(salt, &bytes, |offset, record| match record.kind {
        Kind::Synced => synced = synced.max(Some(record.sequence)),
        _ => {
            newest = newest.max(record.sequence);
            undecodable += usize::from(apply(number, offset, &record, ledger, names).is_err());
        }
    });
    if undecodable > 0 {
        tracing::error!(segment = number, events = undecodable, "accepted events cannot be decoded: they are lost");
        measure::lost(undecodable);
    }
    for gap in gaps {
        let synced = synced.map_or(0, |offset| offset as usize);
        let lost = gap.len().min(synced.saturating_sub(gap.start));
        let is_blank = bytes[gap.start + lost..gap.end].iter().all(|byte| *byte == 0);
        damaged += lost;
        match gap.end == size {
            // Preallocated room that was not written to.
            true if is_blank && !may_change => {}
            // A torn tail, or bytes of an earlier segment in preallocated room. It is cut off, because the next start,
            // for which this is not the last segment, would take it for damage.
            true if may_change => {
                size = gap.start;
                segment.truncate(size as u64)?;
            }
            // The same between frames: a later frame of an unsynced write reached the disk, this part did not.
            false if may_change && lost == 0 && (synced > 0 || gap.start == SEGMENT_HEAD) => {
                if let Some(filler) = frame::filler(salt, gap.len()) {
                    segment.write_at(&filler, gap.start as u64)?;
                }
            }
            // How much of it was accepted is not known; `unreadable` counts it below.
            _ if is_last && unreadable > 0 => {}
            _ => damaged += gap.len() - lost,
        }
    }
    // At most this many events may be in the unreadable part. Their sequence numbers must not be used again.
    newest += (unreadable / FRAME_HEAD) as u64;
    damaged = damaged.max(unreadable);
    ledger.resize(number, size as u64);
    // The bytes may have been read from the page cache only. They must be on disk before an older copy of an event is
    // removed.
    segment.sync()?;
    if damaged > 0 {
        tracing::error!(
            segment = number,
            bytes = damaged,
            "a segment of the spool is damaged: the events in it are lost"
        );
    }
    Ok(SegmentSummary { newest, damaged: damaged as u64 })
}

/// Reads a segment, block by block if parts of it are unreadable. Returns the bytes and the number of unreadable ones,
/// which are replaced by `0xFF`: no frame begins with that.
pub(super) fn read_all(segment: &dyn Segment, number: u32) -> io::Result<(Vec<u8>, usize)> {
    /// The smallest unit that a disk fails to read.
    const BLOCK: usize = 4 << 10;

    let mut bytes = vec![0; usize::try_from(segment.length()?).map_err(io::Error::other)?];
    if segment.read_at(&mut bytes, 0).is_ok() {
        return Ok((bytes, 0));
    }
    let (mut unreadable, mut first) = (0, None);
    for (nth, block) in bytes.chunks_mut(BLOCK).enumerate() {
        if let Err(error) = segment.read_at(block, (nth * BLOCK) as u64) {
            block.fill(u8::MAX);
            unreadable += block.len();
            first.get_or_insert((nth * BLOCK, error));
        }
    }
    if let Some((offset, error)) = first {
        tracing::error!(segment = number, offset, bytes = unreadable, %error, "blocks of a segment of the spool cannot be read");
    }
    Ok((bytes, unreadable))
}

/// An event that cannot be decoded.
struct Undecodable;

fn apply(
    segment: u32,
    offset: u32,
    record: &Record<'_>,
    ledger: &mut Ledger,
    names: &mut Names,
) -> Result<(), Undecodable> {
    match record.kind {
        Kind::Event => {
            let (id, webhook) = decode_name(record.payload).ok_or(Undecodable)?;
            // A frame is no longer than its segment, which is far below 4 GiB.
            let length = (FRAME_HEAD + record.payload.len()) as u32;
            let place = Place { segment, offset, length };
            ledger.insert(record.sequence, Added { id, webhook: webhook.clone(), place, payload: None });
            names.insert(record.sequence, (id, webhook, length));
        }
        Kind::State => {
            if let Some(state) = state::decode(record.payload) {
                ledger.note(record.sequence, state);
            }
        }
        Kind::Synced => {}
        Kind::Done => {
            for sequence in record.done() {
                names.remove(&sequence);
                ledger.remove(sequence);
            }
        }
    }
    Ok(())
}

/// Segments with whole frames, some of them damaged, are recovered; a second start finds what the first one found.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    use super::faulty::{Content, Faulty};

    let Some((script, damage)) = bytes.split_at_checked(bytes.len() / 2) else { return };
    let salt = Salt::random();
    let mut segment = salt.head().to_vec();
    // Each step is a kind, a number, and as much of the script as its third byte says.
    let mut rest = script;
    while let [kind, sequence, length, tail @ ..] = rest {
        let (payload, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        let kind = [Kind::Event, Kind::State, Kind::Done, Kind::Synced][usize::from(*kind) % 4];
        let start = segment.len();
        frame::begin(&mut segment, kind, u64::from(*sequence));
        segment.extend_from_slice(payload);
        frame::finish(&mut segment[start..], salt, &[]);
        rest = tail;
    }
    for place in damage.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([place[0], place[1]]));
        if let Some(byte) = segment.get_mut(SEGMENT_HEAD + at) {
            *byte = place[2];
        }
    }
    let disk = Faulty::default();
    disk.lock().segments.insert(1, Content::synced(segment));
    let found = |recovered: &Recovered| recovered.waiting.iter().map(|ticket| ticket.sequence).collect::<Vec<_>>();
    let (Ok(first), Ok(second)) = (read(&disk), read(&disk)) else { return };
    assert_eq!(found(&first), found(&second));
    assert!(first.waiting.iter().all(|ticket| ticket.sequence < first.next_sequence));
}
