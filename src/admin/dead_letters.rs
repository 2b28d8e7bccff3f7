//! Dead letters: the list, one of them, and what an operator does with one or with many.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Problem, no_content, ok, with_field, with_status};
use super::body::Part;
use super::events::serving;
use super::query::{Query, shown as shown_value, wrong};
use super::state::Ask;
use super::views::{head, named, readable, time};
use crate::event::{DeliverErrorKind, Stamp};
use crate::history::Outcome;
use crate::queue::{DeadLetter, DeadLetterQuery, StoredEvent};

/// Dead letters that are worked on at a time: requests that arrive meanwhile need not wait.
const BATCH: usize = 500;

/// The largest age that may be asked for, in seconds: ten years.
pub(super) const MAX_AGE: u64 = 10 * 366 * 24 * 3600;

pub(super) async fn list(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (queue, limit) = (ask.queue()?, ask.query.limit()?);
    let (query, has_filter) = query(ask)?;
    let after = ask.query.event("after")?;
    // One more tells whether there is another page.
    let mut page = queue.dead_letters(DeadLetterQuery { after, limit: limit + 1, ..query.clone() }).await?;
    let next = if page.len() > limit { page.get(limit - 1).map(|letter| letter.id.to_string()) } else { None };
    page.truncate(limit);
    let total = match has_filter || !ask.operator.sees_all() {
        true => queue.count_dead_letters(query).await?,
        false => queue.status().dead_letters as u64,
    };
    Ok(ok(&json!({"total": total, "dead_letters": page.iter().map(shown).collect::<Vec<_>>(), "next": next})))
}

pub(super) async fn groups(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let found = ask.queue()?.dead_letter_groups(query(ask)?.0).await?;
    let groups = found.groups.into_iter().map(|group| {
        let object = json!({
            "kind": group.kind.label(),
            "reason": group.reason,
            "count": group.count,
            "oldest": time(group.oldest),
            "newest": time(group.newest),
        });
        named(object, &group.webhook)
    });
    Ok(ok(&json!({"groups": groups.collect::<Vec<_>>(), "others": found.others})))
}

pub(super) async fn show(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (letter, event) = find(ask).await?;
    let mut object = shown(&letter);
    object["received_at"] = json!(time(event.received_at));
    object["headers"] = head(&event.headers, serving(ask, &letter.webhook).as_deref());
    let (name, part) = match readable(&event.body, false) {
        Some(_) => ("body", Part::Text(event.body)),
        None => ("body_base64", Part::Base64(event.body)),
    };
    Ok(with_field(&object, name, vec![Part::Plain("\"".into()), part, Part::Plain("\"".into())]))
}

pub(super) async fn replay(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (letter, _) = find(ask).await?;
    match ask.queue()?.replay(vec![letter.id]).await? {
        0 => Err(unknown()),
        _ => {
            ask.did("replay", letter.id, &letter.webhook, Some(Outcome::Waiting));
            Ok(with_status(StatusCode::ACCEPTED, &json!({"replayed": 1})))
        }
    }
}

pub(super) async fn delete(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (letter, _) = find(ask).await?;
    match ask.queue()?.remove_dead_letters(vec![letter.id]).await? {
        0 => Err(unknown()),
        _ => {
            ask.did("delete", letter.id, &letter.webhook, None);
            Ok(no_content())
        }
    }
}

/// What is done with each of many dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Replay,
    Delete,
}

/// Replays or deletes the selected dead letters, or counts them. Each action is recorded in the history of its event.
pub(super) async fn many(ask: &Ask<'_>, work: Work) -> Result<Answer, Problem> {
    let (queue, dry_run) = (ask.queue()?, ask.query.flag("dry_run")?);
    let (mut query, has_filter) = query(ask)?;
    if !has_filter {
        let filters = "`namespace`, `webhook`, `kind`, `older_than` or `q`";
        return Err(Problem::bad_request(format!("found no filter, expected at least one of {filters}")));
    }
    if dry_run {
        return Ok(ok(&json!({"matched": queue.count_dead_letters(query).await?, "done": 0})));
    }
    let (what, outcome) = match work {
        Work::Replay => ("replay", Some(Outcome::Waiting)),
        Work::Delete => ("delete", None),
    };
    let (mut matched, mut done) = (0, 0);
    // Those that come meanwhile are left out, or there might be no end.
    let last = Stamp::now().id;
    query.limit = BATCH;
    loop {
        let mut batch = queue.dead_letters(query.clone()).await?;
        let is_full = batch.len() == BATCH;
        batch.retain(|letter| letter.id <= last);
        let ids: Vec<_> = batch.iter().map(|letter| letter.id).collect();
        matched += ids.len();
        query.after = ids.last().copied().or(query.after);
        let is_over = !is_full || ids.len() < BATCH;
        done += match work {
            Work::Replay => queue.replay(ids.clone()).await?,
            Work::Delete => queue.remove_dead_letters(ids.clone()).await?,
        };
        ids.into_iter().for_each(|id| ask.note(what, id, outcome));
        if is_over {
            break;
        }
        tokio::task::yield_now().await;
    }
    ask.tell_many(what, matched, done);
    Ok(ok(&json!({"matched": matched, "done": done})))
}

async fn find(ask: &Ask<'_>) -> Result<(DeadLetter, StoredEvent), Problem> {
    let found = ask.queue()?.dead_letter(ask.id()?).await?;
    found.filter(|(letter, _)| ask.operator.sees(letter.webhook.namespace())).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::not_found("there is no such dead letter")
}

fn shown(letter: &DeadLetter) -> Value {
    let object = json!({
        "id": letter.id.to_string(),
        "attempts": letter.attempts,
        "died_at": time(letter.died_at),
        "kind": letter.kind.label(),
        "reason": letter.reason,
        "size": letter.size,
    });
    named(object, &letter.webhook)
}

/// Which dead letters a request is about, as far as its operator sees them, and whether the request has a filter.
fn query(ask: &Ask<'_>) -> Result<(DeadLetterQuery, bool), Problem> {
    let query = &ask.query;
    let selected = DeadLetterQuery {
        namespace: query.name("namespace")?,
        namespaces: ask.operator.namespace_list(),
        webhook: query.name("webhook")?,
        kind: kind(query)?,
        older_than: query.number("older_than", 0..=MAX_AGE)?.map(Duration::from_secs),
        reason: query.text("q").map(str::to_owned),
        ..DeadLetterQuery::first(usize::MAX)
    };
    let filters = ["namespace", "webhook", "kind", "older_than", "q"];
    Ok((selected, filters.iter().any(|name| query.text(name).is_some())))
}

fn kind(query: &Query) -> Result<Option<DeliverErrorKind>, Problem> {
    let Some(label) = query.text("kind") else { return Ok(None) };
    let kind = DeliverErrorKind::ALL.into_iter().find(|kind| kind.label() == label);
    let labels = || format!("one of {}", DeliverErrorKind::ALL.map(DeliverErrorKind::label).join(", "));
    kind.map(Some).ok_or_else(|| wrong("kind", shown_value(label), labels()))
}
