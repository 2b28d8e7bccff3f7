//! Who must make room.
//!
//! Events lie in pools: one for each namespace, and one for its refused requests. When there is no room, the oldest event
//! of the largest pool goes. So a namespace that writes a lot removes its own events, and one that writes little keeps
//! everything. Refused requests, which anybody can send, have an eighth of the room, divided in the same way.

use std::collections::HashMap;

use rusqlite::{Connection, params};

/// A pool of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) number: i64,
    pub(super) is_refused: bool,
    /// The estimated bytes of its events.
    pub(super) bytes: u64,
    pub(super) events: u64,
}

/// All pools that have events. They are written with the events.
#[derive(Debug, Default)]
pub(super) struct Pools {
    numbers: HashMap<(Box<str>, bool), i64>,
    pools: HashMap<i64, Pool>,
    changed: Vec<i64>,
    next: i64,
}

impl Pools {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut pools = Self { next: 1, ..Self::default() };
        let mut statement = connection.prepare("SELECT pool, namespace, is_refused, bytes, events FROM pools")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, namespace, is_refused) = (row.get(0)?, row.get::<_, String>(1)?, row.get(2)?);
            let (bytes, events) = (row.get::<_, i64>(3)?.max(0) as u64, row.get::<_, i64>(4)?.max(0) as u64);
            pools.numbers.insert((namespace.into(), is_refused), number);
            pools.pools.insert(number, Pool { number, is_refused, bytes, events });
            pools.next = pools.next.max(number + 1);
        }
        Ok(pools)
    }

    /// The number of a pool, which is created if it is missing.
    pub(super) fn number(
        &mut self,
        connection: &Connection,
        namespace: &str,
        is_refused: bool,
    ) -> rusqlite::Result<i64> {
        // A lookup by a borrowed pair would need a key of its own type; the text is short.
        let key = (Box::from(namespace), is_refused);
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let number = self.next;
        connection
            .prepare_cached("INSERT INTO pools(pool, namespace, is_refused, bytes, events) VALUES(?, ?, ?, 0, 0)")?
            .execute(params![number, namespace, is_refused])?;
        self.next += 1;
        self.numbers.insert(key, number);
        self.pools.insert(number, Pool { number, is_refused, ..Pool::default() });
        Ok(number)
    }

    pub(super) fn add(&mut self, number: i64, bytes: u64) {
        self.change(number, |pool| {
            pool.bytes += bytes;
            pool.events += 1;
        });
    }

    pub(super) fn remove(&mut self, number: i64, bytes: u64) {
        self.change(number, |pool| {
            pool.bytes = pool.bytes.saturating_sub(bytes);
            pool.events = pool.events.saturating_sub(1);
        });
    }

    fn change(&mut self, number: i64, change: impl FnOnce(&mut Pool)) {
        if let Some(pool) = self.pools.get_mut(&number) {
            change(pool);
            if self.changed.last() != Some(&number) {
                self.changed.push(number);
            }
        }
    }

    /// Writes the pools that have changed, and forgets the empty ones.
    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.changed.sort_unstable();
        self.changed.dedup();
        for number in std::mem::take(&mut self.changed) {
            let Some(pool) = self.pools.get(&number) else { continue };
            if pool.events == 0 {
                connection.prepare_cached("DELETE FROM pools WHERE pool = ?")?.execute([number])?;
                self.pools.remove(&number);
                self.numbers.retain(|_, other| *other != number);
            } else {
                connection
                    .prepare_cached("UPDATE pools SET bytes = ?, events = ? WHERE pool = ?")?
                    .execute(params![pool.bytes as i64, pool.events as i64, number])?;
            }
        }
        Ok(())
    }

    pub(super) fn events(&self) -> u64 {
        self.pools.values().map(|pool| pool.events).sum()
    }

    /// The pool whose oldest events must go, if `used` bytes are taken of `room`.
    pub(super) fn victim(&self, used: u64, room: u64) -> Option<i64> {
        victim(self.pools.values(), used, room)
    }
}

/// The pool whose oldest events must go. The estimates of bytes are scaled to what is really used, but not by more than
/// two: some of that belongs to no event.
fn victim<'a>(pools: impl Iterator<Item = &'a Pool> + Clone, used: u64, room: u64) -> Option<i64> {
    let bytes =
        |is_refused: bool| pools.clone().filter(|pool| pool.is_refused == is_refused).map(|pool| pool.bytes).sum();
    let largest = |is_refused: bool| {
        let pools = pools.clone().filter(|pool| pool.is_refused == is_refused && pool.events > 0);
        pools.max_by_key(|pool| (pool.bytes, pool.number)).map(|pool| pool.number)
    };
    let (refused, others): (u64, u64) = (bytes(true), bytes(false));
    let all = u128::from((refused + others).max(1));
    let scaled = u128::from(used).clamp(all, 2 * all);
    let refused = u128::from(refused) * scaled / all;
    if refused > u128::from(room / 8) {
        return largest(true);
    }
    if used > room { largest(false).or_else(|| largest(true)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pools: &[(i64, bool, u64)], used: u64) -> Option<i64> {
        let pool = |(number, is_refused, bytes): &(i64, bool, u64)| Pool {
            number: *number,
            is_refused: *is_refused,
            bytes: *bytes,
            events: 1,
        };
        let pools: Vec<_> = pools.iter().map(pool).collect();
        victim(pools.iter(), used, 800)
    }

    #[test]
    fn the_largest_pool_makes_room() {
        assert_eq!(found(&[(1, false, 500), (2, false, 300)], 800), None);
        assert_eq!(found(&[(1, false, 500), (2, false, 301)], 801), Some(1));
        assert_eq!(found(&[(1, false, 300), (2, false, 501), (3, true, 90)], 891), Some(2));
    }

    #[test]
    fn refused_requests_have_an_eighth_whether_or_not_the_rest_is_used() {
        assert_eq!(found(&[(1, false, 10), (3, true, 60), (4, true, 40)], 110), None);
        assert_eq!(found(&[(1, false, 10), (3, true, 60), (4, true, 41)], 111), Some(3));
        assert_eq!(found(&[(1, false, 100), (3, true, 60)], 320), Some(3), "really it is twice as much");
    }

    #[test]
    fn nothing_is_no_victim() {
        assert_eq!(found(&[], 1000), None);
        assert_eq!(found(&[(3, true, 50)], 801), Some(3));
    }
}
