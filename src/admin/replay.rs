//! Replays one event: the original in the queue, or else the copy that the history keeps.

use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Problem, with_status};
use super::events::{InQueue, WAITS, find, headers, in_queue, serving, why_not};
use super::send::send;
use super::state::Ask;
use crate::history::Outcome;

pub(super) async fn replay(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let event = find(ask).await?;
    let (id, key) = (event.row.id, &event.row.webhook);
    match in_queue(ask, &event).await? {
        Some(InQueue::DeadLetter) if ask.queue()?.replay(vec![id]).await? > 0 => {
            ask.did("replay", id, key, Some(Outcome::Waiting));
            return Ok(with_status(StatusCode::ACCEPTED, &json!({"id": id.to_string()})));
        }
        Some(InQueue::Waiting) => return Err(Problem::conflict(WAITS)),
        Some(InQueue::DeadLetter) | None => {}
    }
    let webhook = serving(ask, key);
    if let Some(reason) = why_not(&event, webhook.as_deref()) {
        return Err(Problem::conflict(reason));
    }
    let unusable = || Problem::conflict("what is kept of its head is not valid");
    let (Some(webhook), Some(headers)) = (webhook, headers(&event)) else { return Err(unusable()) };
    let body = event.body.unwrap_or_default();
    let sent = send(ask.state, &webhook, headers, body.into(), &event.path).await;
    ask.did("replay", id, key, None);
    ask.note("replayed", sent.id, None);
    match sent.outcome {
        Outcome::Delivered | Outcome::Waiting => {
            Ok(with_status(StatusCode::ACCEPTED, &json!({"id": sent.id.to_string()})))
        }
        _ => {
            let (kind, reason) = (sent.kind.unwrap_or("failed"), sent.reason.unwrap_or_default());
            Err(Problem::new(
                sent.status,
                format!("the event was sent again as {}, and failed: {kind}: {reason}", sent.id),
            ))
        }
    }
}
