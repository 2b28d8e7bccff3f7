//! Which rows a query selects.
//!
//! A query has one or several sources, each of which yields rows newest first: the events of a webhook or of a pool, the
//! matches in a part of the full-text index, or all events. The sources are merged here, since SQLite would sort everything.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::number as numbers;
use super::read::Bound;
use super::{detail, index};
use crate::event::EventId;
use crate::history::{EventQuery, Outcome};

/// How far the time in an id may differ from the time of the event, in milliseconds.
const DRIFT: i64 = 60_000;

/// With more pools or webhooks than this, all events are looked through instead.
const MAX_SOURCES: usize = 16;

/// Which conditions of a query count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    List,
    /// All but the outcomes and the kind, which a summary compares itself.
    Counts,
}

/// Rows newest first.
pub(super) struct Source {
    /// The text between `FROM` and the conditions that all sources have.
    from: String,
    values: Vec<Value>,
}

/// The conditions that every source has.
pub(super) struct Conditions {
    text: String,
    values: Vec<Value>,
}

/// Conditions joined by `AND`.
#[derive(Default)]
struct All {
    text: String,
    values: Vec<Value>,
}

impl All {
    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
        self.values.extend(values);
    }
}

impl Conditions {
    pub(super) fn of(connection: &Connection, query: &EventQuery, scope: Scope) -> rusqlite::Result<Self> {
        let mut all = All::default();
        if let Some(after) = query.after.filter(|_| scope == Scope::List) {
            let place = find(connection, after)?.unwrap_or(*numbers::slots(after).start());
            all.and("e.n < ?", [place.into()]);
        }
        if let Some(since) = query.since {
            all.and("e.n >= ?", [(numbers::first(since).saturating_sub(DRIFT << 15)).into()]);
            all.and("e.at >= ?", [numbers::micros(since).into()]);
        }
        if let Some(until) = query.until {
            all.and("e.n < ?", [(numbers::first(until).saturating_add(DRIFT << 15)).into()]);
            all.and("e.at < ?", [numbers::micros(until).into()]);
        }
        if let Some((first, last)) = query.status {
            all.and("e.status BETWEEN ? AND ?", [i64::from(first).into(), i64::from(last).into()]);
        }
        if scope == Scope::List {
            if !query.outcomes.is_empty() {
                let numbers: Vec<_> =
                    query.outcomes.iter().map(|outcome| detail::number(*outcome).to_string()).collect();
                all.and(&format!("e.outcome IN ({})", numbers.join(",")), []);
            }
            if let Some(kind) = &query.kind {
                all.and("e.kind = ?", [kind.clone().into()]);
            }
        }
        Ok(Self { text: all.text, values: all.values })
    }
}

/// The sources of a query. They may overlap only if a text is searched.
pub(super) fn sources(connection: &Connection, query: &EventQuery, scope: Scope) -> rusqlite::Result<Vec<Source>> {
    let mut owner = All::default();
    let hooks = hooks(connection, query)?;
    if let Some(text) = query.text.as_deref().filter(|text| !text.trim().is_empty()) {
        if let Some(hooks) = &hooks {
            owner.and("e.hook IN (SELECT value FROM json_each(?))", [json(hooks).into()]);
        }
        return texts(connection, text, owner);
    }
    match &hooks {
        Some(hooks) if query.webhook.is_some() && hooks.len() <= MAX_SOURCES => {
            let source = |hook: &i64| Source {
                from: "events e INDEXED BY by_hook WHERE e.hook = ?".to_owned(),
                values: vec![(*hook).into()],
            };
            return Ok(hooks.iter().map(source).collect());
        }
        Some(_) if query.webhook.is_none() => {
            let pools = pools(connection, query)?;
            if pools.len() <= MAX_SOURCES {
                let source = |pool: &i64| Source {
                    from: "events e INDEXED BY by_pool WHERE e.pool = ?".to_owned(),
                    values: vec![(*pool).into()],
                };
                return Ok(pools.iter().map(source).collect());
            }
        }
        _ => {}
    }
    if let Some(hooks) = &hooks {
        owner.and("e.hook IN (SELECT value FROM json_each(?))", [json(hooks).into()]);
    }
    // There are few events in trouble, and an index of them.
    let is_trouble = |outcome: &Outcome| matches!(outcome, Outcome::Waiting | Outcome::Failed);
    if scope == Scope::List && !query.outcomes.is_empty() && query.outcomes.iter().all(is_trouble) {
        let source = |outcome: &Outcome| Source {
            from: format!(
                "events e INDEXED BY by_trouble WHERE e.outcome IN (1, 2) AND e.outcome = {}{}",
                detail::number(*outcome),
                owner.text
            ),
            values: owner.values.clone(),
        };
        let mut outcomes = query.outcomes.clone();
        outcomes.sort_unstable();
        outcomes.dedup();
        return Ok(outcomes.iter().map(source).collect());
    }
    Ok(vec![Source { from: format!("events e NOT INDEXED WHERE 1{}", owner.text), values: owner.values }])
}

/// Where a text is found: in each part of the full-text index, newest first. Without an index, in the columns alone.
fn texts(connection: &Connection, text: &str, owner: All) -> rusqlite::Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Ok(id) = text.trim().parse::<EventId>()
        && let Some(n) = find(connection, id)?
    {
        let from = format!("events e WHERE e.n = ?{}", owner.text);
        return Ok(vec![Source { from, values: [vec![n.into()], owner.values].concat() }]);
    }
    let mut statement = connection.prepare_cached("SELECT gen FROM gens ORDER BY gen DESC")?;
    let gens: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for r#gen in gens {
        // An event that was put into a later part as well is found there.
        let from = format!(
            "text_{gen} CROSS JOIN events e ON e.n = text_{gen}.rowid WHERE text_{gen} MATCH ? AND e.gen = {gen}{}",
            owner.text
        );
        sources.push(Source { from, values: [vec![index::expression(text).into()], owner.values.clone()].concat() });
    }
    if sources.is_empty() {
        let like = format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
        let from = format!(
            "events e NOT INDEXED WHERE (e.reason LIKE ? ESCAPE '\\' OR e.peer = ? OR e.hook IN
             (SELECT hook FROM hooks WHERE namespace || '/' || id LIKE ? ESCAPE '\\')){}",
            owner.text
        );
        let values = vec![like.clone().into(), text.to_owned().into(), like.into()];
        sources.push(Source { from, values: [values, owner.values].concat() });
    }
    Ok(sources)
}

/// Calls `take` for the rows of a source, newest first, until that returns `false`, or after `limit` rows.
pub(super) fn each(
    connection: &Connection,
    source: &Source,
    conditions: &Conditions,
    columns: &str,
    limit: usize,
    bound: &Bound,
    take: &mut dyn FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    bound.check()?;
    let order = match source.from.strip_prefix("text_").and_then(|text| text.split_once(' ')) {
        Some((r#gen, _)) => format!("text_{gen}.rowid"),
        None => "e.n".to_owned(),
    };
    let (from, conditions_text) = (&source.from, &conditions.text);
    let sql = format!("SELECT {columns} FROM {from}{conditions_text} ORDER BY {order} DESC LIMIT {limit}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(source.values.iter().chain(&conditions.values)))?;
    while let Some(row) = rows.next()? {
        if !take(row)? {
            break;
        }
    }
    Ok(())
}

/// The number of an event.
pub(super) fn find(connection: &Connection, id: EventId) -> rusqlite::Result<Option<i64>> {
    let slots = numbers::slots(id);
    let mut statement = connection.prepare_cached("SELECT n FROM events WHERE n BETWEEN ? AND ? AND id = ?")?;
    statement.query_row((slots.start(), slots.end(), numbers::bytes(id)), |row| row.get(0)).optional()
}

/// The numbers of the webhooks that a query is about; `None` if of all.
fn hooks(connection: &Connection, query: &EventQuery) -> rusqlite::Result<Option<Vec<i64>>> {
    let mut all = All::default();
    if let Some(namespaces) = &query.namespaces {
        all.and("namespace IN (SELECT value FROM json_each(?))", [names(namespaces).into()]);
    }
    if let Some(namespace) = &query.namespace {
        all.and("namespace = ?", [namespace.clone().into()]);
    }
    if let Some(webhook) = &query.webhook {
        all.and("id = ?", [webhook.clone().into()]);
    }
    if all.values.is_empty() {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(&format!("SELECT hook FROM hooks WHERE 1{}", all.text))?;
    let found = statement.query_map(params_from_iter(all.values), |row| row.get(0))?;
    found.collect::<Result<_, _>>().map(Some)
}

/// The pools of the namespaces that a query is about.
fn pools(connection: &Connection, query: &EventQuery) -> rusqlite::Result<Vec<i64>> {
    let mut all = All::default();
    if let Some(namespaces) = &query.namespaces {
        all.and("namespace IN (SELECT value FROM json_each(?))", [names(namespaces).into()]);
    }
    if let Some(namespace) = &query.namespace {
        all.and("namespace = ?", [namespace.clone().into()]);
    }
    let mut statement = connection.prepare_cached(&format!("SELECT pool FROM pools WHERE 1{}", all.text))?;
    statement.query_map(params_from_iter(all.values), |row| row.get(0))?.collect()
}

fn names(names: &[Box<str>]) -> String {
    serde_json::to_string(names).unwrap_or_else(|_| "[]".to_owned())
}

fn json(numbers: &[i64]) -> String {
    serde_json::to_string(numbers).unwrap_or_else(|_| "[]".to_owned())
}
