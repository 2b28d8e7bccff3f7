//! A history in memory, in place of a real one: it answers with what was recorded, and knows no filter but the namespace,
//! the webhook and the outcome.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::ready;
use tower_webhook::event::EventId;
use tower_webhook::history::{
    Activity, Backend, BackendFuture, Body, Bucket, Entry, Event, EventQuery, HistoryStatus, Outcome, Page, Row,
    Summary,
};

#[derive(Default)]
pub(super) struct Memory(Mutex<BTreeMap<EventId, Event>>);

impl Memory {
    fn rows(&self, query: &EventQuery) -> Vec<Row> {
        let events = self.0.lock().unwrap();
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        let rows = events.values().rev().map(|event| event.row.clone());
        let rows = rows.filter(|row| {
            let namespace = row.webhook.namespace();
            query.namespaces.as_ref().is_none_or(|all| all.iter().any(|one| &**one == namespace))
                && is(&query.namespace, namespace)
                && is(&query.webhook, row.webhook.id())
                && (query.outcomes.is_empty() || query.outcomes.contains(&row.outcome))
                && query.after.is_none_or(|after| row.id < after)
        });
        rows.collect()
    }

    fn change(&self, id: EventId, change: impl FnOnce(&mut Event)) {
        if let Some(event) = self.0.lock().unwrap().get_mut(&id) {
            change(event);
        }
    }
}

impl Backend for Memory {
    fn record(&self, entry: Entry) {
        match entry {
            Entry::Received(received) => {
                let headers = received.headers.iter();
                let headers =
                    headers.map(|(name, value)| (name.as_str().into(), value.to_str().unwrap().into())).collect();
                let (body, is_exact) = match &received.body {
                    Body::Whole(bytes) => (Some(bytes.to_vec()), !received.headers.contains_key("authorization")),
                    Body::Beginning(bytes, _) => (Some(bytes.to_vec()), false),
                    Body::Left(_) => (None, false),
                };
                let event = Event {
                    row: Row::from(&*received),
                    path: received.path,
                    revision: received.revision,
                    headers,
                    body,
                    is_exact,
                    dedup: received.dedup,
                    secrets: Vec::new(),
                    steps: received.steps,
                    attempts: Vec::new(),
                    actions: Vec::new(),
                    newer: None,
                    older: None,
                };
                self.0.lock().unwrap().insert(received.id, event);
            }
            Entry::Attempt(attempt) => self.change(attempt.event, |event| event.attempts.push(*attempt)),
            Entry::Action(action) => self.change(action.event, |event| event.actions.push(*action)),
        }
    }

    fn events(&self, query: EventQuery) -> BackendFuture<'_, Page> {
        let mut events = self.rows(&query);
        let next = (events.len() > query.limit).then(|| events[query.limit - 1].id);
        events.truncate(query.limit);
        Box::pin(ready(Ok(Page { events, next })))
    }

    fn summary(&self, query: EventQuery) -> BackendFuture<'_, Summary> {
        let rows = self.rows(&query);
        let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count() as u64;
        let outcomes = Outcome::ALL.map(count);
        let buckets = vec![Bucket { at: SystemTime::UNIX_EPOCH, outcomes }; 60];
        let kinds = rows.iter().filter_map(|row| Some((row.kind.clone()?, 1))).collect();
        Box::pin(ready(Ok(Summary { total: rows.len() as u64, is_at_least: false, outcomes, kinds, buckets })))
    }

    fn activity(&self, namespaces: Option<Arc<[Box<str>]>>) -> BackendFuture<'_, Vec<Activity>> {
        let mut activities: BTreeMap<_, Activity> = BTreeMap::new();
        for row in self.rows(&EventQuery { namespaces, ..EventQuery::default() }) {
            let new = || Activity {
                webhook: row.webhook.clone(),
                minutes: vec![[0; Outcome::ALL.len()]; 60],
                p95: Duration::from_millis(1),
                last: Some(row.at),
                last_refused: None,
            };
            let at = Outcome::ALL.iter().position(|outcome| *outcome == row.outcome).unwrap();
            activities.entry(row.webhook.clone()).or_insert_with(new).minutes[59][at] += 1;
        }
        Box::pin(ready(Ok(activities.into_values().collect())))
    }

    fn event(&self, id: EventId) -> BackendFuture<'_, Option<Event>> {
        Box::pin(ready(Ok(self.0.lock().unwrap().get(&id).cloned())))
    }

    fn erase(&self, id: EventId) -> BackendFuture<'_, bool> {
        Box::pin(ready(Ok(self.0.lock().unwrap().remove(&id).is_some())))
    }

    fn status(&self) -> HistoryStatus {
        HistoryStatus { events: self.0.lock().unwrap().len() as u64, ..HistoryStatus::default() }
    }
}
