//! Challenges that come by POST like an event, and whose sender has been proven before they are answered.

use http::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answer::{Answer, Answered};
use super::ask::{find, of_body, text};
use super::rule::Rule;
use crate::json::Scalar;
use crate::request::Head;

/// The longest body that is searched for a challenge, in bytes. A longer one is an event.
const LONGEST: usize = 64 << 10;

/// Whether this rule is challenged so.
pub(super) fn is_signed(rule: &Rule) -> bool {
    match rule {
        Rule::Slack | Rule::Twitch | Rule::Discord | Rule::NoEvents => true,
        #[cfg(feature = "signature")]
        Rule::Zoom(_) => true,
        _ => false,
    }
}

/// Answers a request if it is a challenge. `None` if it is an event.
pub(super) fn answer(rule: &Rule, head: Head<'_>, body: &[u8]) -> Option<Answered> {
    if body.len() > LONGEST {
        return None;
    }
    match rule {
        Rule::Slack => is_text(body, "/type", "url_verification").then(|| echo(body, "/challenge")),
        Rule::Twitch => is_verification(head.headers).then(|| echo(body, "/challenge")),
        Rule::Discord => discord(body),
        Rule::NoEvents => has_no_events(body).then(|| Ok(Answer::empty())),
        #[cfg(feature = "signature")]
        Rule::Zoom(keys) => {
            is_text(body, "/event", "endpoint.url_validation").then(|| super::keyed::zoom(head, body, keys))
        }
        _ => None,
    }
}

/// Twitch says in the head what a message is.
fn is_verification(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all("twitch-eventsub-message-type").iter();
    kinds.next().is_some_and(|kind| kind == "webhook_callback_verification") && kinds.next().is_none()
}

/// The ping of an application's interactions, of type 1, and that of its event webhooks, of type 0. An event of these has
/// the type 1, too, and holds an `event`.
fn discord(body: &[u8]) -> Option<Answered> {
    #[derive(Deserialize)]
    struct Message {
        event: Option<IgnoredAny>,
    }
    let Some(Scalar::Number(kind)) = find(body, "/type") else { return None };
    let has_event = || serde_json::from_slice::<Message>(body).is_ok_and(|message| message.event.is_some());
    match kind.as_str() {
        "0" => Some(Ok(Answer::no_content())),
        "1" if !has_event() => Some(Ok(Answer::fixed_json(r#"{"type":1}"#))),
        _ => None,
    }
}

/// Xero and LINE test an address with an empty list of events.
fn has_no_events(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message {
        events: Vec<IgnoredAny>,
    }
    serde_json::from_slice::<Message>(body).is_ok_and(|message| message.events.is_empty())
}

fn echo(body: &[u8], place: &str) -> Answered {
    Answer::echo(&text(body, place)?, &of_body(place))
}

fn is_text(body: &[u8], place: &str, expected: &str) -> bool {
    matches!(find(body, place), Some(Scalar::String(text)) if text == expected)
}
