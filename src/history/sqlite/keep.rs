//! Keeps the file within its room, and events for their time.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};

use super::number;
use super::rows::{MARK, Mark};
use super::save::Ledger;
use super::schema::{PAGE, Room};
use crate::base::clock::Clock;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The most events that are removed, or bodies, or texts that are indexed again, in one go.
const SLICE: usize = 1000;

/// The most events of one pool that are removed before the pools are compared again.
const STEP: usize = 100;

/// The most pages that are given back to the file system in one go.
const VACUUM: u64 = 2000;

/// A part of the full-text index of which at most one in this many bytes is left goes at once when room is needed.
const NEARLY_EMPTY: u64 = 8;

/// A part of which at most one in this many is left goes when there is time.
pub(super) const SPARSE: u64 = 2;

/// How long a part of the full-text index takes texts.
const MAX_GEN_AGE: Duration = DAY;

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) room: Room,
    pub(super) days: u32,
    pub(super) body_days: u32,
    pub(super) full_text: bool,
}

/// The clock by which events expire.
pub(super) enum Expiry {
    /// The machine's clock; no time is given while that may be wrong.
    Clock(Clock),
    #[cfg(test)]
    At(std::sync::Arc<std::sync::Mutex<SystemTime>>),
}

impl Expiry {
    pub(super) fn now(&self) -> Option<SystemTime> {
        match self {
            Self::Clock(clock) => clock.for_expiry(),
            #[cfg(test)]
            Self::At(at) => Some(*at.lock().unwrap()),
        }
    }
}

/// Makes the full-text index ready for texts.
pub(super) fn begin(connection: &Connection, ledger: &mut Ledger, limits: &Limits) -> rusqlite::Result<()> {
    if !limits.full_text {
        return Ok(());
    }
    let age = MAX_GEN_AGE.min(DAY * limits.body_days / 8);
    let now = number::micros(SystemTime::now());
    ledger.gens.begin(connection, now, limits.room.gen_bytes, number::span(age))
}

/// Removes the oldest events of the largest pools until the others fit. Returns how many.
pub(super) fn make_room(connection: &Connection, ledger: &mut Ledger, room: u64) -> rusqlite::Result<usize> {
    let mut removed = 0;
    while let Some(pool) = ledger.pools.victim(used(connection)?, room) {
        let oldest = format!("SELECT {MARK} FROM events WHERE pool = ? ORDER BY n LIMIT ?");
        let mut statement = connection.prepare_cached(&oldest)?;
        let oldest: Vec<Mark> = statement.query_map(params![pool, STEP as i64], Mark::of)?.collect::<Result<_, _>>()?;
        if oldest.is_empty() {
            break;
        }
        let over = used(connection)?.saturating_sub(room);
        let mut freed = 0;
        for mark in oldest {
            ledger.remove(connection, &mark)?;
            removed += 1;
            freed += mark.cost;
            // A refused pool may be a victim though nothing is over: a few at a time then.
            if freed > over.max(room / 500) {
                break;
            }
        }
        while compact(connection, ledger, NEARLY_EMPTY)? {}
    }
    Ok(removed)
}

/// Removes events and bodies that are too old. Returns how much was removed, and whether there may be more.
pub(super) fn expire(
    connection: &Connection,
    ledger: &mut Ledger,
    limits: &Limits,
    now: SystemTime,
) -> rusqlite::Result<(usize, bool)> {
    let before = |days: u32| number::first(now.checked_sub(DAY * days).unwrap_or(SystemTime::UNIX_EPOCH));
    let mut statement =
        connection.prepare_cached(&format!("SELECT {MARK} FROM events WHERE n < ? ORDER BY n LIMIT ?"))?;
    let old = statement.query_map(params![before(limits.days), SLICE as i64], Mark::of)?;
    let old: Vec<Mark> = old.collect::<Result<_, _>>()?;
    let (mut removed, mut is_more) = (old.len(), old.len() == SLICE);
    for mark in old {
        ledger.remove(connection, &mark)?;
    }
    if limits.body_days < limits.days {
        let mut statement = connection.prepare_cached("SELECT n FROM bodies WHERE n < ? ORDER BY n LIMIT ?")?;
        let old = statement.query_map(params![before(limits.body_days), SLICE as i64 / 4], |row| row.get(0))?;
        let old: Vec<i64> = old.collect::<Result<_, _>>()?;
        (removed, is_more) = (removed + old.len(), is_more || old.len() == SLICE / 4);
        for n in old {
            ledger.expire_body(connection, n)?;
        }
    }
    Ok((removed, is_more))
}

/// Puts events of a part of the full-text index, of which at most one in `of` is left, into the current one. When none is
/// left, the part is dropped. Returns whether there is more to do.
pub(super) fn compact(connection: &Connection, ledger: &mut Ledger, of: u64) -> rusqlite::Result<bool> {
    let Some(r#gen) = ledger.gens.sparse(of) else { return Ok(false) };
    let mut statement = connection.prepare_cached("SELECT n FROM events WHERE gen = ? ORDER BY n LIMIT ?")?;
    let left: Vec<i64> =
        statement.query_map(params![r#gen, SLICE as i64], |row| row.get(0))?.collect::<Result<_, _>>()?;
    drop(statement);
    let is_rest = left.len() < SLICE;
    for n in left {
        ledger.index_again(connection, n)?;
    }
    if is_rest {
        ledger.gens.drop(connection, r#gen)?;
    }
    Ok(true)
}

/// Gives pages back to the file system, if the file is larger than it may be. Returns whether there is more to do.
pub(super) fn shrink(connection: &Connection, room: Room) -> rusqlite::Result<bool> {
    let over = pages(connection, "page_count")?.saturating_sub(room.file / PAGE);
    if over == 0 || pages(connection, "freelist_count")? == 0 {
        return Ok(false);
    }
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({})", over.min(VACUUM)))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(over > VACUUM)
}

/// The bytes of the pages that are in use.
pub(super) fn used(connection: &Connection) -> rusqlite::Result<u64> {
    Ok((pages(connection, "page_count")?.saturating_sub(pages(connection, "freelist_count")?)) * PAGE)
}

/// Whether the file nearly is as large as it may be: a write that found no room then is not the disk's fault. The write was
/// rolled back, so its own pages do not count any more.
pub(super) fn is_at_limit(connection: &Connection, room: Room) -> bool {
    pages(connection, "page_count").is_ok_and(|pages| pages * PAGE >= room.file / 10 * 8)
}

fn pages(connection: &Connection, what: &str) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA {what}"))?;
    statement.query_row([], |row| row.get::<_, i64>(0)).map(|pages| pages.max(0) as u64)
}
