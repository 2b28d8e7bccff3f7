//! Writes the entries of one event into its rows.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::activity::Change;
use super::clean;
use super::detail::{Detail, from_number, number};
use super::index::{self, Gens};
use super::number as numbers;
use super::room::Pools;
use super::rows::{Columns, body_of, cost, find, free, is_form, key_of, write, write_body};
use super::waiting::{Head, Waiting};
use crate::config::WebhookKey;
use crate::event::EventId;
use crate::history::{Outcome, Received};

/// The most webhooks whose numbers are remembered.
const MAX_HOOKS: usize = 20_000;

/// The tables besides the events, in memory. They are read again after a transaction that failed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) pools: Pools,
    pub(super) gens: Gens,
    hooks: HashMap<WebhookKey, i64>,
}

impl Ledger {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { pools: Pools::read(connection)?, gens: Gens::read(connection)?, hooks: HashMap::new() })
    }

    /// Writes the changes of these tables.
    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.pools.write(connection)?;
        self.gens.write(connection)
    }

    /// Adds entries to their event. Returns the effect on the activity of the webhook.
    pub(super) fn save(
        &mut self,
        connection: &Connection,
        id: EventId,
        entries: &[Waiting],
    ) -> rusqlite::Result<Option<Change>> {
        let stored = find(connection, id)?;
        let key = match (entries.iter().find_map(webhook), &stored) {
            (Some(key), _) => key.clone(),
            (None, Some(stored)) => key_of(connection, stored.columns.hook)?,
            // An action for an event that is no longer kept.
            (None, None) => return Ok(None),
        };
        let old = stored.as_ref().map(|stored| stored.columns.clone());
        let was_received = stored.as_ref().is_some_and(|stored| stored.detail.request.is_some());
        let old_is_form = stored.as_ref().is_some_and(|stored| is_form(&stored.detail));
        let (mut columns, mut detail, mut body_length) = match stored {
            Some(stored) => (stored.columns, stored.detail, stored.body_length),
            None => match self.new_columns(connection, id, &key)? {
                Some(columns) => (columns, Detail::default(), 0),
                None => return Ok(None),
            },
        };
        let mut body = None;
        for entry in entries {
            match entry {
                Waiting::Received(received, head) => {
                    if let Some(kept) = receive(&mut columns, &mut detail, received, head) {
                        body = Some(kept);
                    }
                }
                Waiting::Attempt(attempt) => {
                    detail.attempt(attempt);
                    if columns.module.is_empty() {
                        columns.module = attempt.module.to_string();
                    }
                }
                Waiting::Action(action) => detail.act(action),
            }
        }
        let derived = detail.derive();
        (columns.outcome, columns.attempts, columns.next) = (number(derived.outcome), derived.attempts, derived.next);
        (columns.kind, columns.reason) = (derived.kind, derived.reason);
        columns.pool = self.pools.number(connection, key.namespace(), derived.outcome == Outcome::Refused)?;
        let text =
            serde_json::to_string(&detail).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        if let Some(body) = &body {
            body_length = body.as_ref().map_or(0, Vec::len);
        }
        columns.cost = cost(text.len(), body_length, columns.reason.as_deref());

        self.index(connection, id, &key, old.as_ref(), old_is_form, &mut columns, is_form(&detail), body.as_ref())?;
        if let Some(body) = body {
            write_body(connection, columns.n, old.is_some(), body.as_deref())?;
        }
        write(connection, id, &columns, &text, old.is_some())?;
        if let Some(old) = &old {
            self.pools.remove(old.pool, old.cost);
        }
        self.pools.add(columns.pool, columns.cost);
        Ok(detail.request.is_some().then(|| Change {
            webhook: key,
            at: numbers::from_micros(columns.at),
            before: old.filter(|_| was_received).map(|old| from_number(old.outcome)),
            outcome: derived.outcome,
            duration: numbers::from_span(columns.duration),
        }))
    }

    /// Puts the event's text into the full-text index, unless the same text is there.
    #[allow(clippy::too_many_arguments)]
    fn index(
        &mut self,
        connection: &Connection,
        id: EventId,
        key: &WebhookKey,
        old: Option<&Columns>,
        old_is_form: bool,
        columns: &mut Columns,
        is_form: bool,
        body: Option<&Option<Vec<u8>>>,
    ) -> rusqlite::Result<()> {
        let (id, key) = (id.to_string(), key.to_string());
        let is_same =
            old.is_some_and(|old| old.reason == columns.reason && old.peer == columns.peer && old_is_form == is_form);
        if is_same && body.is_none() && columns.r#gen != 0 {
            return Ok(());
        }
        let stored = match old {
            Some(old) => body_of(connection, old.n)?,
            None => None,
        };
        if let Some(old) = old {
            let text =
                index::text(&id, &key, old.reason.as_deref(), old.peer.as_deref(), stored.as_deref(), old_is_form);
            self.gens.remove(connection, old.r#gen, old.n, &text)?;
        }
        let body = body.map_or(stored.as_deref(), |body| body.as_deref());
        let text = index::text(&id, &key, columns.reason.as_deref(), columns.peer.as_deref(), body, is_form);
        columns.r#gen = self.gens.insert(connection, columns.n, &text)?;
        columns.indexed = text.len() as u64;
        Ok(())
    }

    /// The row of an event of which nothing is known yet. `None` if eight events came within 0.24 us, which no machine takes.
    fn new_columns(
        &mut self,
        connection: &Connection,
        id: EventId,
        key: &WebhookKey,
    ) -> rusqlite::Result<Option<Columns>> {
        let Some(n) = free(connection, id)? else { return Ok(None) };
        let hook = self.hook(connection, key)?;
        let at = numbers::micros(numbers::time(n));
        Ok(Some(Columns { n, hook, at, method: "POST".to_owned(), ..Columns::default() }))
    }

    fn hook(&mut self, connection: &Connection, key: &WebhookKey) -> rusqlite::Result<i64> {
        if let Some(hook) = self.hooks.get(key) {
            return Ok(*hook);
        }
        let names = params![key.namespace(), key.id()];
        let found = connection
            .prepare_cached("SELECT hook FROM hooks WHERE namespace = ? AND id = ?")?
            .query_row(names, |row| row.get(0))
            .optional()?;
        let hook = match found {
            Some(hook) => hook,
            None => {
                connection.prepare_cached("INSERT INTO hooks(namespace, id) VALUES(?, ?)")?.execute(names)?;
                connection.last_insert_rowid()
            }
        };
        if self.hooks.len() >= MAX_HOOKS {
            self.hooks.clear();
        }
        self.hooks.insert(key.clone(), hook);
        Ok(hook)
    }
}

/// Takes over the columns of a request. Returns its body as it is kept, unless a later answer is known already.
fn receive(columns: &mut Columns, detail: &mut Detail, received: &Received, head: &Head) -> Option<Option<Vec<u8>>> {
    let kept_head = clean::head(head.fields());
    let kept_body = clean::body(received.data_type, &received.body);
    let is_exact = kept_head.is_exact && !head.is_cut() && kept_body.is_exact;
    if !detail.receive(received, kept_head.value, is_exact) {
        return None;
    }
    columns.at = numbers::micros(received.at);
    columns.status = received.status.as_u16();
    columns.duration = numbers::span(received.duration);
    columns.size = i64::try_from(received.body.size()).unwrap_or(i64::MAX);
    columns.is_accepted = received.is_accepted;
    columns.method = received.method.to_string();
    columns.module = received.module.to_string();
    columns.peer = received.peer.map(|peer| peer.to_string());
    Some(kept_body.value)
}

fn webhook(entry: &Waiting) -> Option<&WebhookKey> {
    match entry {
        Waiting::Received(received, _) => Some(&received.webhook),
        Waiting::Attempt(attempt) => Some(&attempt.webhook),
        Waiting::Action(_) => None,
    }
}
