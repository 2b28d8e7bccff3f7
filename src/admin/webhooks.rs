//! Webhooks with their state, and test events.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Problem, ok};
use super::query::{shown, wrong};
use super::send::send;
use super::state::Ask;
use super::views::{key as shown_key, maybe_time, seconds, time};
use crate::config::{DataType, Key, Target, WebhookKey};
use crate::history::{Activity, Kept, Outcome};
use crate::store::{Slot, Snapshot};
use crate::webhook::{Promise, Webhook};

/// The most webhooks in a page.
const PAGE: usize = 500;

/// The minutes whose failures make a webhook a failing one.
const RECENT: usize = 10;

/// The last hour of each webhook that had an event.
type Hours = HashMap<WebhookKey, Activity, RandomState>;

pub(super) async fn list(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let namespace = ask.query.name("namespace")?;
    let wanted_state = ask.query.text("state").map(State::parse).transpose()?;
    let text = ask.query.text("q").map(str::to_lowercase);
    let after = ask.query.text("after").map(parse_key).transpose()?;
    let hours = hours(ask).await?;
    let snapshot = ask.state.store.snapshot();
    let is_recorded = ask.state.history.is_some();
    let view = View { snapshot: &snapshot, hours: &hours, is_recorded };
    // A webhook that is gone meanwhile had no trouble.
    let after = after
        .map(|key| Place { state: snapshot.slot(&key).map_or(State::Healthy, |slot| view.state(&key, slot)), key });
    let seen = snapshot.slots().filter(|(key, _)| {
        ask.operator.sees(key.namespace()) && namespace.as_deref().is_none_or(|namespace| namespace == key.namespace())
    });
    let places = seen.filter_map(|(key, slot)| {
        let state = view.state(key, slot);
        let is_wanted = wanted_state.is_none_or(|wanted| wanted == state)
            && text.as_deref().is_none_or(|text| has_text(key, slot, text));
        is_wanted.then(|| Place { state, key: key.clone() })
    });
    let mut page = first(PAGE + 1, places.filter(|place| after.as_ref().is_none_or(|after| place > after)));
    let next = (page.len() > PAGE).then(|| page.get(PAGE - 1).map(|place| shown_key(&place.key))).flatten();
    page.truncate(PAGE);
    let webhooks: Vec<_> =
        page.iter().filter_map(|place| Some(view.show(&place.key, snapshot.slot(&place.key)?))).collect();
    Ok(ok(&json!({"webhooks": webhooks, "next": next})))
}

pub(super) async fn show(ask: &Ask<'_>) -> Result<Answer, Problem> {
    let key = named(ask)?;
    let hours = hours(ask).await?;
    let snapshot = ask.state.store.snapshot();
    let view = View { snapshot: &snapshot, hours: &hours, is_recorded: ask.state.history.is_some() };
    let slot = snapshot.slot(&key).ok_or_else(unknown)?;
    Ok(ok(&view.show(&key, slot)))
}

/// The body of a request for a test event.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with `body` and `headers`")]
struct Test {
    body: Option<String>,
    headers: HashMap<String, String>,
}

impl Test {
    fn read(request: &[u8]) -> Result<Self, Problem> {
        let wrong = |found: String| Problem::bad_request(format!("the body is no description of an event: {found}"));
        match request.trim_ascii_start().first() {
            None => Ok(Self::default()),
            // serde would take an array for an object.
            Some(b'{') => serde_json::from_slice(request).map_err(|error| wrong(error.to_string())),
            Some(_) => Err(wrong("expected an object with `body` and `headers`".to_owned())),
        }
    }
}

pub(super) async fn test(ask: &Ask<'_>, request: Bytes) -> Result<Answer, Problem> {
    let key = named(ask)?;
    let slot = ask.state.store.read(|snapshot| snapshot.slot(&key).cloned()).ok_or_else(unknown)?;
    let fenced = || Problem::conflict("the webhook has no valid configuration, so nothing can be delivered to it");
    let webhook = slot.serving.ok_or_else(fenced)?;
    let Test { body, headers } = Test::read(&request)?;
    let (content_type, default) = match webhook.data_type() {
        DataType::Json => ("application/json", r#"{"test": true}"#),
        DataType::Form => ("application/x-www-form-urlencoded", "test=true"),
        DataType::Blob => ("application/octet-stream", "test"),
    };
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in &headers {
        let wrong = || Problem::bad_request(format!("the header field {} is not valid", shown(name)));
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        let is_plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        fields.insert(name, HeaderValue::from_str(value).ok().filter(|_| is_plain).ok_or_else(wrong)?);
    }
    let body = body.unwrap_or_else(|| default.to_owned());
    let path = format!("/webhooks/{}/test", shown_key(&key));
    let sent = send(ask.state, &webhook, fields, body.into(), &path).await;
    ask.did("test", sent.id, &key, None);
    Ok(ok(&json!({
        "id": sent.id.to_string(),
        "outcome": sent.outcome.label(),
        "status": sent.status.as_u16(),
        "kind": sent.kind,
        "reason": sent.reason,
    })))
}

/// The webhook of the path, if the operator sees its namespace.
fn named(ask: &Ask<'_>) -> Result<WebhookKey, Problem> {
    let [namespace, id] = ask.pieces[..] else { return Err(unknown()) };
    let key = WebhookKey::new(namespace, id).map_err(|_| unknown())?;
    if ask.operator.sees(namespace) { Ok(key) } else { Err(unknown()) }
}

fn unknown() -> Problem {
    Problem::not_found("there is no such webhook")
}

fn parse_key(text: &str) -> Result<WebhookKey, Problem> {
    let key = text.split_once('/').and_then(|(namespace, id)| Target::new(namespace, id).ok());
    key.map(WebhookKey::from).ok_or_else(|| wrong("after", shown(text), "the key of a webhook, such as default/orders"))
}

async fn hours(ask: &Ask<'_>) -> Result<Hours, Problem> {
    let Some(history) = &ask.state.history else { return Ok(Hours::default()) };
    let hours = history.activity(ask.operator.shared_namespaces()).await?;
    Ok(hours.into_iter().map(|hour| (hour.webhook.clone(), hour)).collect())
}

/// The state of a webhook. Those that need somebody come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Fenced,
    Failing,
    Stale,
    Open,
    Silent,
    Healthy,
}

impl State {
    const ALL: [Self; 6] = [Self::Fenced, Self::Failing, Self::Stale, Self::Open, Self::Silent, Self::Healthy];

    fn label(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Failing => "failing",
            Self::Stale => "stale",
            Self::Open => "open",
            Self::Silent => "silent",
            Self::Healthy => "healthy",
        }
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let state = Self::ALL.into_iter().find(|state| state.label() == text);
        state.ok_or_else(|| wrong("state", shown(text), Self::ALL.map(Self::label).join(", ")))
    }
}

/// The place of a webhook in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    state: State,
    key: WebhookKey,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        // Only trouble comes first; all others are sorted by key.
        let rank = |place: &Self| place.state.min(State::Open);
        rank(self).cmp(&rank(other)).then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first `count` places in their order. There may be a million: they are not sorted, and few are kept.
fn first(count: usize, places: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut heap = BinaryHeap::with_capacity(count + 1);
    for place in places {
        if heap.len() < count || heap.peek().is_some_and(|last| place < *last) {
            heap.push(place);
            if heap.len() > count {
                heap.pop();
            }
        }
    }
    heap.into_sorted_vec()
}

/// Whether the text, in lower case, is in the key, the module or a guard.
fn has_text(key: &WebhookKey, slot: &Slot, text: &str) -> bool {
    let has = |name: &str| name.to_lowercase().contains(text);
    let webhook = slot.serving.as_deref();
    has(&shown_key(key))
        || webhook.is_some_and(|webhook| {
            webhook.guards().described().any(|guard| has(&guard))
                || webhook
                    .steps()
                    .targets()
                    .any(|(module, target)| has(module) || target.is_some_and(|target| has(&target)))
        })
}

/// One state of the configuration, with the activity of its webhooks.
struct View<'a> {
    snapshot: &'a Snapshot,
    hours: &'a Hours,
    is_recorded: bool,
}

impl View<'_> {
    fn state(&self, key: &WebhookKey, slot: &Slot) -> State {
        let Some(webhook) = &slot.serving else { return State::Fenced };
        let hour = self.hours.get(key);
        if hour.is_some_and(|hour| is_failing(&hour.minutes)) {
            return State::Failing;
        }
        match () {
            () if self.snapshot.refusal(&Key::Webhook(key.clone())).is_some() => State::Stale,
            () if webhook.is_open() => State::Open,
            () if self.is_recorded && hour.is_none() => State::Silent,
            () => State::Healthy,
        }
    }

    fn show(&self, key: &WebhookKey, slot: &Slot) -> Value {
        let (state, hour, webhook) = (self.state(key, slot), self.hours.get(key), slot.serving.as_deref());
        let refusal = self.snapshot.refusal(&Key::Webhook(key.clone()));
        let refused = refusal.map(|refusal| {
            json!({
                "revision": refusal.revision(),
                "at": time(refusal.at()),
                "reason": refusal.reason(),
                "serving_last_good": refusal.is_serving_last_good(),
                "last_good_revision": webhook.map(|_| slot.revision),
            })
        });
        json!({
            "key": shown_key(key),
            "namespace": key.namespace(),
            "id": key.id(),
            "state": state.label(),
            "note": note(state, hour),
            "module": webhook.map(Webhook::module_name),
            "targets": webhook.map(|webhook| webhook.steps().targets().map(shown_target).collect::<Vec<_>>()).unwrap_or_default(),
            "guards": webhook.map(|webhook| webhook.guards().described().collect::<Vec<_>>()).unwrap_or_default(),
            "ack": webhook.map(|webhook| match webhook.promise() {
                Promise::Delivered => "delivered",
                Promise::Accepted => "accepted",
            }),
            "dedup": webhook.is_some_and(|webhook| webhook.dedup().is_some()),
            "history": webhook.map(|webhook| match webhook.history() {
                Kept::Full => "full",
                Kept::Metadata => "metadata",
                Kept::None => "none",
            }),
            "revision": webhook.map(|_| slot.revision),
            "refused": refused,
            "warnings": webhook.map(|webhook| webhook.warnings().collect::<Vec<_>>()).unwrap_or_default(),
            "hour": hour.map(|hour| json!({"minutes": hour.minutes, "p95_seconds": seconds(hour.p95)})),
            "last_event": maybe_time(hour.and_then(|hour| hour.last)),
            "last_refused": maybe_time(hour.and_then(|hour| hour.last_refused)),
        })
    }
}

/// A module, and the place that it delivers to.
fn shown_target((module, target): (&str, Option<String>)) -> Value {
    json!({"module": module, "target": target})
}

/// The events of the last minutes: those that failed, and all that were delivered or failed.
fn recent(minutes: &[[u64; Outcome::ALL.len()]]) -> (u64, u64) {
    let position = |wanted: Outcome| Outcome::ALL.iter().position(|outcome| *outcome == wanted).unwrap_or_default();
    let last = minutes.get(minutes.len().saturating_sub(RECENT)..).unwrap_or_default();
    let sum = |outcome: Outcome| last.iter().filter_map(|minute| minute.get(position(outcome))).sum::<u64>();
    let failed = sum(Outcome::Failed);
    (failed, failed + sum(Outcome::Delivered))
}

/// At least half of the last events failed.
fn is_failing(minutes: &[[u64; Outcome::ALL.len()]]) -> bool {
    let (failed, all) = recent(minutes);
    failed > 0 && failed * 2 >= all
}

/// A sentence about the state, if it needs one.
fn note(state: State, hour: Option<&Activity>) -> Option<String> {
    Some(match state {
        State::Fenced => "It has no valid configuration, and answers 503".to_owned(),
        State::Failing => {
            let (failed, all) = hour.map(|hour| recent(&hour.minutes)).unwrap_or_default();
            format!("{failed} of {all} events failed in the last {RECENT} minutes")
        }
        State::Stale => "Its newest configuration is refused; the one before is served".to_owned(),
        State::Open => "It has no guard: anybody may send".to_owned(),
        State::Silent => "It had no event in the last hour".to_owned(),
        State::Healthy => return None,
    })
}
