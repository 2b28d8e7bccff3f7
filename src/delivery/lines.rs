//! Log lines about deliveries, with a rate limit for each webhook, because a sender can cause any number of failures.

use std::sync::LazyLock;
use std::time::Duration;

use crate::base::log_limit::LogLimit;
use crate::config::WebhookKey;
use crate::event::DeliverErrorKind;

/// The lines that could be logged for each event or attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// An event was not delivered, and its sender got an error.
    NotDelivered(DeliverErrorKind),
    /// Another attempt follows.
    Again(DeliverErrorKind),
    /// An item of a chain failed.
    Item(usize),
    /// No other attempt follows.
    Dead(DeliverErrorKind),
    /// An event cannot be read from the queue now.
    Unreadable,
    /// An event can never be read from the queue.
    Lost,
}

static LINES: LazyLock<LogLimit<(WebhookKey, Line)>> = LazyLock::new(LogLimit::default);

/// Whether this line may be logged now. If so, the inner value is the number of lines suppressed before it, if any: the
/// field `left_out`.
pub(crate) fn admit(webhook: &WebhookKey, line: Line) -> Option<Option<u64>> {
    LINES.admit((webhook.clone(), line)).map(|left_out| (left_out > 0).then_some(left_out))
}

/// The limit for events of removed webhooks, which all become dead letters at about the same time.
static ORPHANS: LazyLock<LogLimit<WebhookKey>> = LazyLock::new(|| LogLimit::new(1, Duration::from_secs(60)));

/// Logs that an event was given up because its webhook is not configured any more.
pub(crate) fn orphan(webhook: &WebhookKey) {
    if let Some(left_out) = ORPHANS.admit(webhook.clone()) {
        let events = left_out.saturating_add(1);
        tracing::error!(%webhook, events, "not delivered: the webhook is not configured any more, and its events are dead letters now");
    }
}

/// Logs how many lines were left out at the end of a flood, once the flood is over.
pub(crate) fn log_rest() {
    for (webhook, events) in ORPHANS.take_rest(Duration::from_secs(2)) {
        let webhook = webhook.as_ref().map(tracing::field::display);
        tracing::error!(
            webhook,
            events,
            "more events of a webhook that is not configured any more are dead letters now"
        );
    }
    for (about, left_out) in LINES.take_rest(Duration::from_secs(5)) {
        let (webhook, line) = about.unzip();
        let webhook = webhook.as_ref().map(tracing::field::display);
        tracing::warn!(
            webhook,
            about = line.map(tracing::field::debug),
            left_out,
            "lines about deliveries were left out"
        );
    }
}
