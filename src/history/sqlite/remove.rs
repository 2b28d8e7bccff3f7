//! Removes events, or parts of them.

use rusqlite::{Connection, OptionalExtension, params};

use super::index;
use super::number as numbers;
use super::rows::{Mark, Stored, body_cost, body_of, find, is_form, key_of};
use super::save::Ledger;
use crate::event::EventId;

impl Ledger {
    /// Erases an event, its text in the index included. Returns whether it was there.
    pub(super) fn erase(&mut self, connection: &Connection, id: EventId) -> rusqlite::Result<bool> {
        let Some(stored) = find(connection, id)? else { return Ok(false) };
        let text = text_of(connection, id, &stored, true)?;
        let (n, pool, cost, r#gen) = (stored.columns.n, stored.columns.pool, stored.columns.cost, stored.columns.r#gen);
        self.gens.remove(connection, r#gen, n, &text)?;
        self.remove(connection, &Mark { n, pool, cost, r#gen: 0, indexed: 0 })?;
        Ok(true)
    }

    /// Removes the body of an event, and its text from the index.
    pub(super) fn expire_body(&mut self, connection: &Connection, n: i64) -> rusqlite::Result<()> {
        if let Some((id, stored)) = at(connection, n)? {
            let (mut r#gen, mut indexed) = (0, 0);
            if stored.columns.r#gen != 0 {
                self.gens.remove(connection, stored.columns.r#gen, n, &text_of(connection, id, &stored, true)?)?;
                let text = text_of(connection, id, &stored, false)?;
                (r#gen, indexed) = (self.gens.insert(connection, n, &text)?, text.len());
            }
            let cost = stored.columns.cost.saturating_sub(body_cost(stored.body_length));
            connection
                .prepare_cached("UPDATE events SET gen = ?, indexed = ?, cost = ? WHERE n = ?")?
                .execute(params![r#gen, indexed as i64, cost as i64, n])?;
            self.pools.remove(stored.columns.pool, stored.columns.cost);
            self.pools.add(stored.columns.pool, cost);
        }
        connection.prepare_cached("DELETE FROM bodies WHERE n = ?")?.execute([n])?;
        Ok(())
    }

    /// Puts the text of an event that is in an old part of the index into the current one as well. The old part goes soon.
    pub(super) fn index_again(&mut self, connection: &Connection, n: i64) -> rusqlite::Result<()> {
        let Some((id, stored)) = at(connection, n)? else { return Ok(()) };
        let text = text_of(connection, id, &stored, true)?;
        self.gens.forget(stored.columns.r#gen, stored.columns.indexed);
        let r#gen = self.gens.insert(connection, n, &text)?;
        connection.prepare_cached("UPDATE events SET gen = ?, indexed = ? WHERE n = ?")?.execute(params![
            r#gen,
            text.len() as i64,
            n
        ])?;
        Ok(())
    }

    /// Removes the rows of an event. Its text goes with its part of the index.
    pub(super) fn remove(&mut self, connection: &Connection, mark: &Mark) -> rusqlite::Result<()> {
        for table in ["events", "details", "bodies"] {
            connection.prepare_cached(&format!("DELETE FROM {table} WHERE n = ?"))?.execute([mark.n])?;
        }
        self.pools.remove(mark.pool, mark.cost);
        self.gens.forget(mark.r#gen, mark.indexed);
        Ok(())
    }
}

fn at(connection: &Connection, n: i64) -> rusqlite::Result<Option<(EventId, Stored)>> {
    let mut statement = connection.prepare_cached("SELECT id FROM events WHERE n = ?")?;
    let id: Option<Vec<u8>> = statement.query_row([n], |row| row.get(0)).optional()?;
    let Some(id) = id.map(|id| numbers::id(&id)) else { return Ok(None) };
    Ok(find(connection, id)?.map(|stored| (id, stored)))
}

/// The text of a stored event in the index, with or without its body.
fn text_of(connection: &Connection, id: EventId, stored: &Stored, with_body: bool) -> rusqlite::Result<String> {
    let columns = &stored.columns;
    let body = if with_body { body_of(connection, columns.n)? } else { None };
    let key = key_of(connection, columns.hook)?.to_string();
    let (reason, peer) = (columns.reason.as_deref(), columns.peer.as_deref());
    Ok(index::text(&id.to_string(), &key, reason, peer, body.as_deref(), is_form(&stored.detail)))
}
