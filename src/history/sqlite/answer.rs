//! Answers of queries, from rows.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::detail::{self, Detail};
use super::number as numbers;
use super::read::Bound;
use super::search::{Conditions, Scope, each, find, sources};
use crate::base::lock::lock;
use crate::config::WebhookKey;
use crate::event::{Answer, DeliverErrorKind, EventId};
use crate::history::{Action, Attempt, Bucket, Dedup, Event, EventQuery, Outcome, Page, Row, Step, Summary};

/// The most events of a page.
const MAX_PAGE: usize = 1000;

/// The most events that a summary counts.
const MAX_COUNTED: u64 = 250_000;

/// How long a summary counts.
const COUNTING: Duration = Duration::from_secs(1);

/// The intervals of a summary.
const BUCKETS: usize = 60;

const HOUR: Duration = Duration::from_secs(3600);

const COLUMNS: &str =
    "e.n, e.id, e.hook, e.at, e.outcome, e.status, e.duration, e.size, e.attempts, e.accepted, e.method,
    e.module, e.peer, e.next, e.kind, e.reason";

pub(super) fn page(connection: &Connection, query: &EventQuery, bound: &Bound) -> rusqlite::Result<Page> {
    let limit = query.limit.clamp(1, MAX_PAGE);
    let conditions = Conditions::of(connection, query, Scope::List)?;
    let mut keys = Keys::default();
    let mut found: Vec<(i64, Row)> = Vec::new();
    for source in sources(connection, query, Scope::List)? {
        // The rows of one source do not reach further down than the page that the sources before it have filled.
        let last = (found.len() > limit).then(|| found[limit].0);
        each(connection, &source, &conditions, COLUMNS, limit + 1, bound, &mut |row| {
            let n: i64 = row.get(0)?;
            if last.is_some_and(|last| n < last) {
                return Ok(false);
            }
            found.push((n, row_of(connection, row, &mut keys)?));
            Ok(true)
        })?;
        found.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
        found.dedup_by_key(|(n, _)| *n);
        found.truncate(limit + 1);
    }
    let is_more = found.len() > limit;
    found.truncate(limit);
    let events: Vec<Row> = found.into_iter().map(|(_, row)| row).collect();
    Ok(Page { next: events.last().filter(|_| is_more).map(|row| row.id), events })
}

pub(super) fn event(connection: &Connection, id: EventId) -> rusqlite::Result<Option<Event>> {
    let Some(n) = find(connection, id)? else { return Ok(None) };
    let mut keys = Keys::default();
    let sql = format!("SELECT {COLUMNS} FROM events e WHERE e.n = ?");
    let (row, hook) = connection
        .prepare_cached(&sql)?
        .query_row([n], |row| Ok((row_of(connection, row, &mut keys)?, row.get::<_, i64>(2)?)))?;
    let text = |table: &str, column: &str| format!("SELECT {column} FROM {table} WHERE n = ?");
    let detail: Option<String> =
        connection.prepare_cached(&text("details", "detail"))?.query_row([n], |row| row.get(0)).optional()?;
    let detail: Detail = detail.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let body: Option<Vec<u8>> =
        connection.prepare_cached(&text("bodies", "body"))?.query_row([n], |row| row.get(0)).optional()?;
    let beside = |sql: &str| {
        let id = connection.prepare_cached(sql)?.query_row([hook, n], |row| row.get::<_, Vec<u8>>(0)).optional();
        id.map(|id| id.map(|id| numbers::id(&id)))
    };
    let newer = beside("SELECT id FROM events INDEXED BY by_hook WHERE hook = ? AND n > ? ORDER BY n LIMIT 1")?;
    let older = beside("SELECT id FROM events INDEXED BY by_hook WHERE hook = ? AND n < ? ORDER BY n DESC LIMIT 1")?;

    let attempts = detail.attempts.into_iter().map(|attempt| attempt_of(&row, attempt)).collect();
    let actions = detail.actions.into_iter().map(|act| Action {
        event: id,
        at: numbers::from_micros(act.at),
        what: intern(&act.what),
        by: act.by.into(),
        outcome: act.outcome.map(detail::from_number),
    });
    let actions = actions.collect();
    let request = detail.request.unwrap_or_default();
    let steps = request.steps.into_iter().map(|(name, at, duration)| Step {
        name: intern(&name),
        at: numbers::from_span(at),
        duration: numbers::from_span(duration),
    });
    Ok(Some(Event {
        path: request.path.into(),
        revision: request.revision,
        headers: request.head.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        // The body may have expired since.
        is_exact: request.is_exact && body.is_some(),
        body,
        dedup: request.is_first.map(|is_first| if is_first { Dedup::First } else { Dedup::Duplicate }),
        secrets: request.secrets.into_iter().map(|(guard, position)| (guard.into(), position)).collect(),
        steps: steps.collect(),
        attempts,
        actions,
        newer,
        older,
        row,
    }))
}

pub(super) fn summary(
    connection: &Connection,
    query: &EventQuery,
    now: SystemTime,
    bound: &Bound,
) -> rusqlite::Result<Summary> {
    let conditions = Conditions::of(connection, query, Scope::Counts)?;
    let until = query.until.unwrap_or(now);
    let since = query.since.unwrap_or_else(|| until.checked_sub(HOUR).unwrap_or(until)).min(until);
    let width =
        until.duration_since(since).unwrap_or_default().max(Duration::from_millis(BUCKETS as u64)) / BUCKETS as u32;
    let mut summary = Summary { buckets: buckets(since, width), ..Summary::default() };
    let mut kinds: HashMap<Box<str>, u64> = HashMap::new();
    let (mut counted, counting) = (0, Bound::lasting(COUNTING));
    for source in sources(connection, query, Scope::Counts)? {
        let columns = "e.n, e.outcome, e.kind";
        each(connection, &source, &conditions, columns, MAX_COUNTED as usize, bound, &mut |row| {
            counted += 1;
            if counted > MAX_COUNTED || (counted % 1000 == 0 && counting.is_over()) {
                summary.is_at_least = true;
                return Ok(false);
            }
            let outcome = detail::from_number(row.get(1)?);
            let kind = row.get_ref(2)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            let is_asked = query.outcomes.is_empty() || query.outcomes.contains(&outcome);
            let is_kind = query.kind.is_none() || query.kind.as_deref() == kind;
            summary.total += u64::from(is_asked && is_kind);
            summary.outcomes[usize::from(detail::number(outcome))] += 1;
            if let (true, Some(kind)) = (is_asked, kind) {
                match kinds.get_mut(kind) {
                    Some(count) => *count += 1,
                    None => drop(kinds.insert(kind.into(), 1)),
                }
            }
            let at = numbers::time(row.get(0)?);
            if let Ok(passed) = at.duration_since(since) {
                let place = usize::try_from(passed.as_nanos() / width.as_nanos()).unwrap_or(BUCKETS);
                if let Some(bucket) = summary.buckets.get_mut(place) {
                    bucket.outcomes[usize::from(detail::number(outcome))] += 1;
                }
            }
            Ok(true)
        })?;
        if summary.is_at_least {
            break;
        }
    }
    summary.kinds = kinds.into_iter().collect();
    summary.kinds.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    Ok(summary)
}

fn buckets(since: SystemTime, width: Duration) -> Vec<Bucket> {
    (0..BUCKETS as u32).map(|nth| Bucket { at: since + width * nth, outcomes: [0; Outcome::ALL.len()] }).collect()
}

/// The names of webhooks that were looked up.
#[derive(Default)]
struct Keys(HashMap<i64, WebhookKey>);

impl Keys {
    fn of(&mut self, connection: &Connection, hook: i64) -> rusqlite::Result<WebhookKey> {
        if let Some(key) = self.0.get(&hook) {
            return Ok(key.clone());
        }
        let mut statement = connection.prepare_cached("SELECT namespace, id FROM hooks WHERE hook = ?")?;
        let (namespace, id): (String, String) = statement.query_row([hook], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let key =
            WebhookKey::new(&namespace, &id).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.0.insert(hook, key.clone());
        Ok(key)
    }
}

fn row_of(connection: &Connection, row: &SqlRow<'_>, keys: &mut Keys) -> rusqlite::Result<Row> {
    Ok(Row {
        id: numbers::id(&row.get::<_, Vec<u8>>(1)?),
        webhook: keys.of(connection, row.get(2)?)?,
        at: numbers::from_micros(row.get(3)?),
        outcome: detail::from_number(row.get(4)?),
        status: row.get(5)?,
        duration: numbers::from_span(row.get(6)?),
        size: row.get::<_, i64>(7)?.max(0) as u64,
        attempts: row.get(8)?,
        is_accepted: row.get(9)?,
        method: row.get::<_, String>(10)?.parse().unwrap_or_default(),
        module: row.get::<_, String>(11)?.into(),
        peer: row.get::<_, Option<String>>(12)?.and_then(|peer| peer.parse().ok()),
        next: row.get::<_, Option<i64>>(13)?.map(numbers::from_micros),
        kind: row.get::<_, Option<String>>(14)?.map(Box::from),
        reason: row.get::<_, Option<String>>(15)?.map(Box::from),
    })
}

fn attempt_of(row: &Row, attempt: detail::Try) -> Attempt {
    let kind = |label: &str| {
        let named = DeliverErrorKind::ALL.into_iter().find(|kind| kind.label() == label);
        named.unwrap_or(DeliverErrorKind::Permanent)
    };
    Attempt {
        event: row.id,
        webhook: row.webhook.clone(),
        number: attempt.number,
        at: numbers::from_micros(attempt.at),
        duration: numbers::from_span(attempt.duration),
        module: attempt.module.into(),
        item: attempt.item,
        error: attempt.error.map(|(label, reason)| (kind(&label), reason.into())),
        answer: attempt.answer.map(|(status, body)| Answer { status, body: body.into() }),
        outcome: detail::from_number(attempt.outcome),
        next: attempt.next.map(numbers::from_micros),
    }
}

/// The most names that are interned. There are some tens of them.
const MAX_NAMES: usize = 256;

/// A name of a step or an action, which lives as long as the process.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = lock(&NAMES);
    if let Some(known) = names.iter().find(|known| **known == name) {
        return known;
    }
    if names.len() >= MAX_NAMES {
        return "other";
    }
    let name: &'static str = Box::leak(Box::from(name));
    names.push(name);
    name
}
