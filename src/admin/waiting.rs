//! Accepted events that wait or are being tried.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Problem, no_content, ok, with_field, with_status};
use super::events::serving;
use super::state::Ask;
use super::views::{body, head, maybe_time, named, time};
use crate::history::Outcome;
use crate::queue::{StoredEvent, WaitingEvent, WaitingQuery};

pub(super) async fn list(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let limit = ask.query.limit()?;
    let query = WaitingQuery {
        after: ask.query.event("after")?,
        // One more tells whether there is another page.
        limit: limit + 1,
        namespace: ask.query.name("namespace")?,
        namespaces: ask.operator.namespace_list(),
        webhook: ask.query.name("webhook")?,
    };
    let mut page = ask.queue()?.waiting(query).await?;
    let events = &mut page.events;
    let next = if events.len() > limit { events.get(limit - 1).map(|event| event.id.to_string()) } else { None };
    events.truncate(limit);
    Ok(ok(&json!({
        "total": page.total,
        "waiting": page.events.iter().map(shown).collect::<Vec<_>>(),
        "next": next,
    })))
}

pub(super) async fn show(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (waiting, event) = find(ask).await?;
    let mut object = shown(&waiting);
    object["received_at"] = json!(time(event.received_at));
    object["head"] = head(&event.headers, serving(ask, &waiting.webhook).as_deref());
    let content_type = event.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let parts = body(content_type, event.body.len() as u64, false, event.body.clone());
    Ok(with_field(&object, "body", parts))
}

pub(super) async fn retry(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (waiting, _) = find(ask).await?;
    match ask.queue()?.retry_now(vec![waiting.id]).await? {
        0 => Err(unknown()),
        _ => {
            ask.did("retry", waiting.id, &waiting.webhook, None);
            Ok(with_status(StatusCode::ACCEPTED, &json!({"id": waiting.id.to_string()})))
        }
    }
}

pub(super) async fn drop(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let (waiting, _) = find(ask).await?;
    match ask.queue()?.drop_waiting(vec![waiting.id]).await?.events {
        0 => Err(unknown()),
        _ => {
            ask.did("drop", waiting.id, &waiting.webhook, Some(Outcome::Failed));
            Ok(no_content())
        }
    }
}

async fn find(ask: &Ask<'_>) -> Result<(WaitingEvent, StoredEvent), Problem> {
    let found = ask.queue()?.waiting_event(ask.id()?).await?;
    found.filter(|(waiting, _)| ask.operator.sees(waiting.webhook.namespace())).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::not_found("there is no such waiting event")
}

fn shown(waiting: &WaitingEvent) -> Value {
    let object = json!({
        "id": waiting.id.to_string(),
        "attempts": waiting.attempts,
        "size": waiting.size,
        "next_attempt": maybe_time(waiting.next_attempt),
        "under_way": waiting.under_way,
    });
    named(object, &waiting.webhook)
}
