//! Reads what an earlier process has left.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::event::decode_name;
use super::frame::{self, FRAME_HEAD, Kind, Record};
use super::ledger::{Ledger, Place};
use super::state;
use super::{Ticket, measure};
use crate::key::WebhookKey;
use crate::module::EventId;

pub(super) struct Recovered {
    pub(super) ledger: Ledger,
    /// In the order of their receipt.
    pub(super) waiting: Vec<Ticket>,
    pub(super) next_sequence: u64,
    pub(super) next_segment: u32,
}

/// What is needed of the events that are still there.
type Names = HashMap<u64, (EventId, WebhookKey, u32)>;

pub(super) fn read(disk: &dyn Disk) -> io::Result<Recovered> {
    let mut numbers = disk.list()?;
    numbers.sort_unstable();
    let mut ledger = Ledger::default();
    let mut names = Names::default();
    let mut newest = 0;
    for (nth, number) in numbers.iter().enumerate() {
        let is_last = nth + 1 == numbers.len();
        newest = newest.max(read_segment(disk, *number, is_last, &mut ledger, &mut names)?);
    }
    let mut waiting = Vec::new();
    for (sequence, (id, webhook, bytes)) in names.into_iter().collect::<BTreeMap<_, _>>() {
        ledger.take_share(&webhook, u64::from(bytes));
        let ticket = Ticket { sequence, webhook, bytes };
        match ledger.death(&ticket) {
            Some(_) => ledger.bury(id, ticket),
            None => waiting.push(ticket),
        }
    }
    if !numbers.is_empty() {
        tracing::info!(waiting = waiting.len(), dead = ledger.dead().len(), bytes = ledger.taken(), "spool read");
    }
    let next_segment = numbers.last().map_or(1, |number| number + 1);
    Ok(Recovered { ledger, waiting, next_sequence: newest + 1, next_segment })
}

/// Returns the newest sequence number in it.
fn read_segment(
    disk: &dyn Disk,
    number: u32,
    is_last: bool,
    ledger: &mut Ledger,
    names: &mut Names,
) -> io::Result<u64> {
    let segment = disk.open(number)?;
    let bytes = segment.read()?;
    let salt = match frame::read_salt(&bytes) {
        Some(salt) => salt,
        // It was made, and the power went before anything in it was accepted.
        None if bytes.iter().all(|byte| *byte == 0) || bytes.len() < frame::SEGMENT_HEAD => 0,
        None => {
            let reason = format!("segment {number} is none, or damaged at its head: move it away to go on without it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    };
    ledger.add_room(number, Arc::clone(&segment), salt, bytes.len() as u64);
    let mut newest = 0;
    let mut end = 0;
    let damaged = frame::scan(salt, &bytes, |offset, record| {
        newest = newest.max(record.sequence);
        end = offset as usize + FRAME_HEAD + record.payload.len();
        take_over(number, offset, &record, ledger, names);
    });
    let torn = bytes.len().saturating_sub(end.max(frame::SEGMENT_HEAD)) as u64;
    // What is torn at the very end had not been accepted; zeros are what a file system leaves there.
    let damaged = if is_last { damaged.saturating_sub(torn) } else { damaged };
    if is_last && torn > 0 {
        // Or the next start, for which this is not the last segment, would take it for damage.
        tracing::warn!(segment = number, bytes = torn, "the end of the spool is torn: it had not been accepted");
        segment.truncate(bytes.len() as u64 - torn)?;
        ledger.shrink(number, torn);
    }
    // What was read may be no more than in the cache: an older copy of it must not go before it is on the disk.
    segment.sync()?;
    if damaged > 0 {
        tracing::error!(segment = number, bytes = damaged, "a part of the spool is damaged: the events in it are lost");
        measure::damaged(damaged);
    }
    Ok(newest)
}

fn take_over(segment: u32, offset: u32, record: &Record<'_>, ledger: &mut Ledger, names: &mut Names) {
    match record.kind {
        Kind::Event => {
            let Some((id, webhook)) = decode_name(record.payload) else {
                tracing::error!(segment, offset, "an accepted event cannot be understood: it is lost");
                return measure::lost(1);
            };
            // It was read from a segment, so it is no longer than one.
            let length = (FRAME_HEAD + record.payload.len()) as u32;
            names.insert(record.sequence, (id, webhook, length));
            ledger.insert(record.sequence, Place { segment, offset, length });
        }
        Kind::State => {
            if let Some(state) = state::decode(record.payload) {
                ledger.note(record.sequence, state);
            }
        }
        Kind::Done => {
            for sequence in record.done() {
                names.remove(&sequence);
                ledger.remove(sequence);
            }
        }
    }
}
