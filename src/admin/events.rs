//! Events: pages, counts, one event, and its erasure.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};

use super::answer::{Answer, Problem, no_content, of, ok, with_field};
use super::body::Part;
use super::query::{shown, wrong};
use super::state::Ask;
use super::views::{body, maybe_time, outcomes, row, seconds, time};
use crate::config::WebhookKey;
use crate::history::{Action, Attempt, Dedup, Event, EventQuery, Outcome};
use crate::request::REDACTED;
use crate::webhook::Webhook;

/// The most counts by kind in a summary.
const MAX_KINDS: usize = 100;

pub(super) async fn list(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let history = ask.history()?;
    let query = EventQuery { after: ask.query.event("after")?, limit: ask.query.limit()?, ..query(ask)? };
    let page = history.events(query).await?;
    let events: Vec<_> = page.events.iter().map(row).collect();
    Ok(ok(&json!({"events": events, "next": page.next.map(|id| id.to_string())})))
}

pub(super) async fn summary(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let summary = ask.history()?.summary(query(ask)?).await?;
    let kinds = summary.kinds.iter().take(MAX_KINDS);
    let kinds: Vec<_> = kinds.map(|(kind, count)| json!({"kind": kind, "count": count})).collect();
    let bucket = |at, counts| {
        let mut bucket = outcomes(counts);
        bucket["at"] = json!(time(at));
        bucket
    };
    let buckets: Vec<_> = summary.buckets.iter().map(|one| bucket(one.at, &one.outcomes)).collect();
    Ok(ok(&json!({
        "total": summary.total,
        "total_is_at_least": summary.is_at_least,
        "outcomes": outcomes(&summary.outcomes),
        "kinds": kinds,
        "buckets": buckets,
    })))
}

pub(super) async fn show(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let mut event = find(ask).await?;
    let in_queue = in_queue(ask, &event).await?;
    let note = match in_queue {
        Some(InQueue::DeadLetter) => None,
        Some(InQueue::Waiting) => Some(WAITS.to_owned()),
        None => why_not(&event, serving(ask, &event.row.webhook).as_deref()),
    };
    let mut object = row(&event.row);
    let more = json!({
        "path": event.path,
        "revision": event.revision,
        "head": event.headers,
        "is_exact": event.is_exact,
        "can_replay": note.is_none(),
        "replay_note": note,
        "in_queue": in_queue.map(InQueue::label),
        "dedup": event.dedup.map(|dedup| match dedup {
            Dedup::First => "first",
            Dedup::Duplicate => "duplicate",
        }),
        "secrets": event.secrets.iter().map(|(guard, at)| json!({"guard": guard, "position": at})).collect::<Vec<_>>(),
        "steps": event.steps.iter().map(|step| json!({
            "name": step.name, "at_seconds": seconds(step.at), "seconds": seconds(step.duration),
        })).collect::<Vec<_>>(),
        "attempts_made": event.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "actions": event.actions.iter().map(action).collect::<Vec<_>>(),
        "newer": event.newer.map(|id| id.to_string()),
        "older": event.older.map(|id| id.to_string()),
    });
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    let kept = event.body.take().map(Bytes::from);
    let parts = match kept {
        None => vec![Part::Plain(Bytes::from_static(b"null"))],
        Some(kept) => {
            let is_cut = !event.is_exact && (kept.len() as u64) < event.row.size;
            body(content_type(&event), event.row.size, is_cut, kept)
        }
    };
    Ok(with_field(&object, "body", parts))
}

/// The bytes that are kept, as a file.
pub(super) async fn kept_body(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let event = find(ask).await?;
    let kept = event.body.ok_or_else(|| Problem::not_found("nothing is kept of the body"))?;
    let mut answer = of(StatusCode::OK, HeaderValue::from_static("application/octet-stream"), kept);
    let name = format!("attachment; filename=\"{}.bin\"", event.row.id);
    if let Ok(name) = HeaderValue::from_str(&name) {
        answer.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

pub(super) async fn erase(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let event = find(ask).await?;
    ask.history()?.erase(event.row.id).await?;
    ask.tell("erase", event.row.id, &event.row.webhook);
    Ok(no_content())
}

/// The event of the path, if the operator sees it.
pub(super) async fn find(ask: &Ask<'_>) -> Result<Event, Problem> {
    let found = ask.history()?.event(ask.id()?).await?;
    let found = found.filter(|event| ask.operator.sees(event.row.webhook.namespace()));
    found.ok_or_else(|| Problem::not_found("there is no such event"))
}

/// The place of an event in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InQueue {
    Waiting,
    DeadLetter,
}

impl InQueue {
    fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// Why an event that waits is not replayed.
pub(super) const WAITS: &str = "the event waits for its next attempt; `POST /waiting/{id}/retry` tries it now";

pub(super) async fn in_queue(ask: &Ask<'_>, event: &Event) -> Result<Option<InQueue>, Problem> {
    // Only an accepted event was ever there.
    let Some(queue) = ask.state.queue.as_ref().filter(|_| event.row.is_accepted) else { return Ok(None) };
    if queue.dead_letter(event.row.id).await?.is_some() {
        return Ok(Some(InQueue::DeadLetter));
    }
    Ok(queue.waiting_event(event.row.id).await?.map(|_| InQueue::Waiting))
}

/// The webhook as it is served now.
pub(super) fn serving(ask: &Ask<'_>, key: &WebhookKey) -> Option<std::sync::Arc<Webhook>> {
    ask.state.store.read(|snapshot| snapshot.slot(key).and_then(|slot| slot.serving.clone()))
}

/// The reason not to deliver the kept copy of an event again; `None` if it may be delivered: then the target gets the same bytes
/// as from the queue.
pub(super) fn why_not(event: &Event, webhook: Option<&Webhook>) -> Option<String> {
    let reason = match (event.row.outcome, webhook) {
        (Outcome::Refused, _) => "the request was refused; a replay would deliver an event that no guard has let in",
        (Outcome::Skipped, _) if event.dedup != Some(Dedup::Duplicate) => "there was nothing to deliver",
        _ if event.body.is_none() => "nothing is kept of its body, and the queue does not have the event any more",
        _ if !event.is_exact => {
            "its kept copy is cut, or has secrets removed, and the queue does not have the event any more"
        }
        (_, None) => "its webhook is not served any more",
        (_, Some(webhook)) => {
            let name = used_but_masked(event, webhook)?;
            return Some(format!(
                "its module uses the header field `{name}`, whose value is not kept, and the queue does not have the event \
                 any more"
            ));
        }
    };
    Some(reason.to_owned())
}

/// The first masked header field that changes what the webhook delivers.
fn used_but_masked(event: &Event, webhook: &Webhook) -> Option<HeaderName> {
    let masked = event.headers.iter().filter(|(_, value)| **value == *REDACTED);
    masked.filter_map(|(name, _)| name.parse().ok()).find(|name| webhook.steps().use_header(name))
}

/// The header fields that are kept; `None` if one of them is none.
pub(super) fn headers(event: &Event) -> Option<HeaderMap> {
    let field = |(name, value): &(Box<str>, Box<str>)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
    };
    let fields: Option<Vec<_>> = event.headers.iter().map(field).collect();
    let mut headers = HeaderMap::new();
    for (name, value) in fields? {
        headers.append(name, value);
    }
    Some(headers)
}

fn content_type(event: &Event) -> Option<&str> {
    event.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| &**value)
}

fn attempt(attempt: &Attempt) -> Value {
    let error = attempt.error.as_ref();
    json!({
        "number": attempt.number,
        "at": time(attempt.at),
        "seconds": seconds(attempt.duration),
        "module": &*attempt.module,
        "item": attempt.item,
        "kind": error.map(|(kind, _)| kind.label()),
        "reason": error.map(|(_, reason)| reason),
        "outcome": attempt.outcome.label(),
        "next": maybe_time(attempt.next),
        "answer": attempt.answer.as_ref().map(|answer| json!({
            "status": answer.status, "body": String::from_utf8_lossy(&answer.body),
        })),
    })
}

fn action(action: &Action) -> Value {
    json!({
        "at": time(action.at),
        "what": action.what,
        "by": action.by,
        "outcome": action.outcome.map(Outcome::label),
    })
}

/// The filters of a list or of its counts.
fn query(ask: &Ask<'_>) -> Result<EventQuery, Problem> {
    let query = &ask.query;
    Ok(EventQuery {
        namespaces: ask.operator.shared_namespaces(),
        namespace: query.name("namespace")?,
        webhook: query.name("webhook")?,
        outcomes: query.text("outcome").map_or(Ok(Vec::new()), outcome_list)?,
        kind: query.label("kind")?.map(str::to_owned),
        status: query.text("status").map(statuses).transpose()?,
        text: query.text("q").map(str::to_owned),
        since: query.time("since")?,
        until: query.time("until")?,
        ..EventQuery::default()
    })
}

/// Outcomes with commas between them.
fn outcome_list(text: &str) -> Result<Vec<Outcome>, Problem> {
    let outcome = |label: &str| Outcome::ALL.into_iter().find(|outcome| outcome.label() == label);
    let outcomes: Option<Vec<_>> = text.split(',').map(outcome).collect();
    outcomes.ok_or_else(|| {
        let labels = Outcome::ALL.map(Outcome::label).join(", ");
        wrong("outcome", shown(text), format_args!("{labels}, with commas between them"))
    })
}

/// One status, or a class such as `5xx`: the smallest and the largest.
fn statuses(text: &str) -> Result<(u16, u16), Problem> {
    let class = text.strip_suffix("xx").filter(|class| class.len() == 1).and_then(|class| class.parse::<u16>().ok());
    let class = class.filter(|class| (1..=5).contains(class)).map(|class| (class * 100, class * 100 + 99));
    let is_plain = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    let one = text.parse().ok().filter(|status| is_plain && (100..=599).contains(status)).map(|one: u16| (one, one));
    class.or(one).ok_or_else(|| wrong("status", shown(text), "a status such as 404, or a class such as 5xx"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_or_a_class() {
        for (text, expected) in [("404", (404, 404)), ("5xx", (500, 599)), ("100", (100, 100)), ("599", (599, 599))] {
            assert_eq!(statuses(text).unwrap(), expected, "{text}");
        }
        for text in ["", "xx", "6xx", "0xx", "55xx", "5XX", "40", "4040", "600", "+40", "5xx,404"] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn outcomes_are_a_list() {
        assert_eq!(outcome_list("failed,refused").unwrap(), [Outcome::Failed, Outcome::Refused]);
        for text in ["", "failed,", "failed refused", "Failed"] {
            assert!(outcome_list(text).is_err(), "{text}");
        }
    }
}
