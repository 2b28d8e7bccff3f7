//! The rows of an event: read and written.

use rusqlite::{Connection, OptionalExtension, params};

use super::detail::Detail;
use super::number as numbers;
use crate::config::WebhookKey;
use crate::event::EventId;

/// The row of an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    pub(super) n: i64,
    pub(super) pool: i64,
    pub(super) hook: i64,
    pub(super) at: i64,
    pub(super) outcome: u8,
    pub(super) status: u16,
    pub(super) duration: i64,
    pub(super) size: i64,
    pub(super) attempts: u32,
    pub(super) is_accepted: bool,
    pub(super) cost: u64,
    pub(super) r#gen: i64,
    /// The bytes of its text in the index.
    pub(super) indexed: u64,
    pub(super) method: String,
    pub(super) module: String,
    pub(super) peer: Option<String>,
    pub(super) next: Option<i64>,
    pub(super) kind: Option<String>,
    pub(super) reason: Option<String>,
}

/// An event's rows as they are on disk.
pub(super) struct Stored {
    pub(super) columns: Columns,
    pub(super) detail: Detail,
    pub(super) body_length: usize,
}

/// The columns that are needed to remove an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) n: i64,
    pub(super) pool: i64,
    pub(super) cost: u64,
    pub(super) r#gen: i64,
    pub(super) indexed: u64,
}

/// The columns of a [`Mark`].
pub(super) const MARK: &str = "n, pool, cost, gen, indexed";

impl Mark {
    pub(super) fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let count = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.max(0) as u64);
        Ok(Self { n: row.get(0)?, pool: row.get(1)?, cost: count(2)?, r#gen: row.get(3)?, indexed: count(4)? })
    }
}

/// Whether the body is a form, as far as that is known.
pub(super) fn is_form(detail: &Detail) -> bool {
    detail.request.as_ref().is_some_and(|request| request.is_form)
}

/// The bytes that an event takes, roughly: rows, indexes, and its text in the full-text index.
pub(super) fn cost(detail: usize, body: usize, reason: Option<&str>) -> u64 {
    let fixed = 400 + detail + 2 * reason.map_or(0, str::len);
    fixed as u64 + body_cost(body)
}

pub(super) fn body_cost(body: usize) -> u64 {
    (body + body.min(4096) * 6 / 10) as u64
}

pub(super) fn find(connection: &Connection, id: EventId) -> rusqlite::Result<Option<Stored>> {
    let slots = numbers::slots(id);
    let mut statement = connection.prepare_cached(
        "SELECT e.n, e.pool, e.hook, e.at, e.outcome, e.status, e.duration, e.size, e.attempts, e.accepted, e.cost, e.gen,
             e.method, e.module, e.peer, e.next, e.kind, e.reason, e.indexed, d.detail, length(b.body)
         FROM events e LEFT JOIN details d ON d.n = e.n LEFT JOIN bodies b ON b.n = e.n
         WHERE e.n BETWEEN ? AND ? AND e.id = ?",
    )?;
    let found = statement.query_row(params![slots.start(), slots.end(), numbers::bytes(id)], |row| {
        let columns = Columns {
            n: row.get(0)?,
            pool: row.get(1)?,
            hook: row.get(2)?,
            at: row.get(3)?,
            outcome: row.get(4)?,
            status: row.get(5)?,
            duration: row.get(6)?,
            size: row.get(7)?,
            attempts: row.get(8)?,
            is_accepted: row.get(9)?,
            cost: row.get::<_, i64>(10)?.max(0) as u64,
            r#gen: row.get(11)?,
            method: row.get(12)?,
            module: row.get(13)?,
            peer: row.get(14)?,
            next: row.get(15)?,
            kind: row.get(16)?,
            reason: row.get(17)?,
            indexed: row.get::<_, i64>(18)?.max(0) as u64,
        };
        let detail: Option<String> = row.get(19)?;
        let detail = detail.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(Stored { columns, detail, body_length: row.get::<_, Option<i64>>(20)?.unwrap_or(0).max(0) as usize })
    });
    found.optional()
}

/// A free slot for a new event.
pub(super) fn free(connection: &Connection, id: EventId) -> rusqlite::Result<Option<i64>> {
    let mut slots = numbers::slots(id);
    let mut statement = connection.prepare_cached("SELECT n FROM events WHERE n BETWEEN ? AND ? ORDER BY n")?;
    let taken: Vec<i64> =
        statement.query_map([slots.start(), slots.end()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(slots.find(|slot| !taken.contains(slot)))
}

pub(super) fn key_of(connection: &Connection, hook: i64) -> rusqlite::Result<WebhookKey> {
    let mut statement = connection.prepare_cached("SELECT namespace, id FROM hooks WHERE hook = ?")?;
    let (namespace, id): (String, String) = statement.query_row([hook], |row| Ok((row.get(0)?, row.get(1)?)))?;
    WebhookKey::new(&namespace, &id).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn body_of(connection: &Connection, n: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.prepare_cached("SELECT body FROM bodies WHERE n = ?")?.query_row([n], |row| row.get(0)).optional()
}

pub(super) fn write_body(connection: &Connection, n: i64, is_old: bool, body: Option<&[u8]>) -> rusqlite::Result<()> {
    match body {
        Some(body) => {
            connection
                .prepare_cached("INSERT OR REPLACE INTO bodies(n, body) VALUES(?, ?)")?
                .execute(params![n, body])?;
        }
        None if is_old => {
            connection.prepare_cached("DELETE FROM bodies WHERE n = ?")?.execute([n])?;
        }
        None => {}
    }
    Ok(())
}

pub(super) fn write(
    connection: &Connection,
    id: EventId,
    row: &Columns,
    detail: &str,
    is_old: bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(if is_old {
        "UPDATE events SET id = ?2, pool = ?3, hook = ?4, at = ?5, outcome = ?6, status = ?7, duration = ?8, size = ?9,
             attempts = ?10, accepted = ?11, cost = ?12, gen = ?13, method = ?14, module = ?15, peer = ?16, next = ?17,
             kind = ?18, reason = ?19, indexed = ?20
         WHERE n = ?1"
    } else {
        "INSERT INTO events(n, id, pool, hook, at, outcome, status, duration, size, attempts, accepted, cost, gen, method,
             module, peer, next, kind, reason, indexed)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)"
    })?;
    statement.execute(params![
        row.n,
        numbers::bytes(id),
        row.pool,
        row.hook,
        row.at,
        row.outcome,
        row.status,
        row.duration,
        row.size,
        row.attempts,
        row.is_accepted,
        row.cost as i64,
        row.r#gen,
        row.method,
        row.module,
        row.peer,
        row.next,
        row.kind,
        row.reason,
        row.indexed as i64,
    ])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO details(n, detail) VALUES(?, ?)")?
        .execute(params![row.n, detail])?;
    Ok(())
}
