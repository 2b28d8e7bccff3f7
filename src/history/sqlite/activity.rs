//! The last hour of each webhook, counted in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::number;
use crate::config::WebhookKey;
use crate::history::{Activity, Outcome};

/// The minutes that are counted.
const MINUTES: u64 = 60;

/// The most webhooks that are counted at a time.
const MAX_WEBHOOKS: usize = 50_000;

/// Durations are counted in classes, each a quarter longer than the one before, from 0.1 ms on.
const CLASSES: usize = 64;

/// The effect of a write on the activity of a webhook.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) webhook: WebhookKey,
    pub(super) at: SystemTime,
    /// The outcome that was counted before, if the event is not new.
    pub(super) before: Option<Outcome>,
    pub(super) outcome: Outcome,
    pub(super) duration: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    webhooks: HashMap<WebhookKey, Hour>,
}

/// One webhook. Only minutes with events have a place.
#[derive(Debug, Default)]
struct Hour {
    minutes: VecDeque<Minute>,
    last: Option<SystemTime>,
    last_refused: Option<SystemTime>,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    outcomes: [u32; Outcome::ALL.len()],
    /// The classes of durations that occurred, and how often.
    durations: Vec<(u8, u32)>,
}

impl Counts {
    pub(super) fn change(&mut self, change: &Change) {
        if !self.webhooks.contains_key(&change.webhook) && self.webhooks.len() >= MAX_WEBHOOKS {
            return;
        }
        let hour = self.webhooks.entry(change.webhook.clone()).or_default();
        let minute = hour.minute(minute_of(change.at));
        minute.outcomes[place(change.outcome)] += 1;
        if let Some(before) = change.before {
            let before = &mut minute.outcomes[place(before)];
            *before = before.saturating_sub(1);
            return;
        }
        let class = class(change.duration);
        match minute.durations.iter_mut().find(|(other, _)| *other == class) {
            Some((_, count)) => *count += 1,
            None => minute.durations.push((class, 1)),
        }
        hour.last = hour.last.max(Some(change.at));
        if change.outcome == Outcome::Refused {
            hour.last_refused = hour.last_refused.max(Some(change.at));
        }
    }

    /// Forgets what is older than an hour.
    pub(super) fn prune(&mut self, now: SystemTime) {
        let first = minute_of(now).saturating_sub(MINUTES - 1);
        self.webhooks.retain(|_, hour| {
            while hour.minutes.front().is_some_and(|minute| minute.number < first) {
                hour.minutes.pop_front();
            }
            !hour.minutes.is_empty()
        });
    }

    /// The hour up to `now`, by webhook.
    pub(super) fn report(&self, namespaces: Option<&Arc<[Box<str>]>>, now: SystemTime) -> Vec<Activity> {
        let is_asked = |key: &WebhookKey| {
            namespaces.is_none_or(|namespaces| namespaces.iter().any(|namespace| **namespace == *key.namespace()))
        };
        let asked = self.webhooks.iter().filter(|(key, _)| is_asked(key));
        let mut report: Vec<_> = asked.filter_map(|(key, hour)| hour.report(key, minute_of(now))).collect();
        report.sort_unstable_by(|one, other| one.webhook.cmp(&other.webhook));
        report
    }
}

impl Hour {
    fn minute(&mut self, number: u64) -> &mut Minute {
        // Nearly always the last one.
        let at = self.minutes.iter().rposition(|minute| minute.number <= number);
        let at = match at {
            Some(at) if self.minutes[at].number == number => at,
            other => {
                let at = other.map_or(0, |at| at + 1);
                self.minutes.insert(at, Minute { number, outcomes: [0; Outcome::ALL.len()], durations: Vec::new() });
                at
            }
        };
        &mut self.minutes[at]
    }

    fn report(&self, webhook: &WebhookKey, last: u64) -> Option<Activity> {
        let first = last.saturating_sub(MINUTES - 1);
        let mut minutes = vec![[0; Outcome::ALL.len()]; MINUTES as usize];
        let mut durations = [0_u64; CLASSES];
        let mut is_idle = true;
        for minute in self.minutes.iter().filter(|minute| (first..=last).contains(&minute.number)) {
            is_idle = false;
            minutes[(minute.number - first) as usize] = minute.outcomes.map(u64::from);
            for (class, count) in &minute.durations {
                durations[usize::from(*class)] += u64::from(*count);
            }
        }
        let (p95, last, last_refused) = (p95(&durations), self.last, self.last_refused);
        (!is_idle).then(|| Activity { webhook: webhook.clone(), minutes, p95, last, last_refused })
    }
}

fn minute_of(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}

fn place(outcome: Outcome) -> usize {
    usize::from(super::detail::number(outcome))
}

fn class(duration: Duration) -> u8 {
    (0..CLASSES as u8 - 1).find(|class| duration <= longest(*class)).unwrap_or(CLASSES as u8 - 1)
}

/// The longest duration of a class.
fn longest(class: u8) -> Duration {
    Duration::from_secs_f64(1e-4 * 1.25_f64.powi(class.into()))
}

/// The duration that 95 of 100 do not exceed, as the longest one of its class.
fn p95(durations: &[u64; CLASSES]) -> Duration {
    let all: u64 = durations.iter().sum();
    let mut below = 0;
    let reached = durations.iter().position(|count| {
        below += count;
        below * 100 >= all * 95
    });
    reached.filter(|_| all > 0).map_or(Duration::ZERO, |class| longest(class as u8))
}

/// Counts the last hour from the newest `most` events of a file.
pub(super) fn recount(connection: &rusqlite::Connection, now: SystemTime, most: usize) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut statement = connection.prepare(
        "SELECT h.namespace, h.id, e.at, e.outcome, e.duration FROM events e JOIN hooks h ON h.hook = e.hook
         WHERE e.n >= ? AND e.status != 0 ORDER BY e.n DESC LIMIT ?",
    )?;
    let first = number::first(now - Duration::from_secs(MINUTES * 60));
    let mut rows = statement.query(rusqlite::params![first, most as i64])?;
    while let Some(row) = rows.next()? {
        let (namespace, id): (String, String) = (row.get(0)?, row.get(1)?);
        let Ok(webhook) = WebhookKey::new(&namespace, &id) else { continue };
        counts.change(&Change {
            webhook,
            at: number::from_micros(row.get(2)?),
            before: None,
            outcome: super::detail::from_number(row.get(3)?),
            duration: number::from_span(row.get(4)?),
        });
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(webhook: &str, minutes_ago: u64, before: Option<Outcome>, outcome: Outcome) -> Change {
        let webhook = WebhookKey::new("ns", webhook).unwrap();
        Change {
            webhook,
            at: now() - Duration::from_secs(60 * minutes_ago),
            before,
            outcome,
            duration: Duration::from_millis(3),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_030)
    }

    #[test]
    fn minutes_are_counted_by_outcome_and_an_outcome_may_change() {
        let mut counts = Counts::default();
        for minutes_ago in [0, 59, 3, 3, 60] {
            counts.change(&change("hook", minutes_ago, None, Outcome::Waiting));
        }
        counts.change(&change("hook", 3, Some(Outcome::Waiting), Outcome::Delivered));
        counts.change(&change("hook", 1, None, Outcome::Refused));
        let report = counts.report(None, now());
        let [hour] = &report[..] else { panic!("{report:?}") };
        let minutes: Vec<_> = (0..).zip(&hour.minutes).filter(|(_, minute)| minute.iter().sum::<u64>() > 0).collect();
        let expected = [(0, [0, 1, 0, 0, 0]), (56, [1, 1, 0, 0, 0]), (58, [0, 0, 0, 1, 0]), (59, [0, 1, 0, 0, 0])];
        assert_eq!(minutes, expected.iter().map(|(at, minute)| (*at, minute)).collect::<Vec<_>>());
        assert_eq!((hour.last, hour.last_refused), (Some(now()), Some(now() - Duration::from_secs(60))));
        assert!((Duration::from_millis(3)..Duration::from_millis(4)).contains(&hour.p95), "{:?}", hour.p95);
    }

    #[test]
    fn other_namespaces_and_older_events_are_left_out() {
        let mut counts = Counts::default();
        counts.change(&change("hook", 0, None, Outcome::Delivered));
        counts.change(&change("old", 61, None, Outcome::Delivered));
        let names = |namespaces: Option<&[&str]>| {
            let namespaces = namespaces.map(|names| names.iter().map(|name| Box::from(*name)).collect());
            counts.report(namespaces.as_ref(), now()).iter().map(|hour| hour.webhook.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["ns/hook"]);
        assert_eq!(names(Some(&["ns"])), ["ns/hook"]);
        assert!(names(Some(&["other"])).is_empty() && names(Some(&[])).is_empty());
        counts.prune(now());
        assert_eq!(counts.webhooks.len(), 1);
    }

    #[test]
    fn the_95th_of_100_durations_is_found_within_a_quarter() {
        let mut counts = Counts::default();
        for nth in 1..=100 {
            let duration = Duration::from_millis(nth);
            counts.change(&Change { duration, ..change("hook", 0, None, Outcome::Delivered) });
        }
        let p95 = counts.report(None, now())[0].p95;
        assert!((Duration::from_millis(95)..Duration::from_millis(119)).contains(&p95), "{p95:?}");
        assert_eq!(class(Duration::from_secs(3600)), CLASSES as u8 - 1);
        assert_eq!(p95_of_nothing(), Duration::ZERO);
    }

    fn p95_of_nothing() -> Duration {
        p95(&[0; CLASSES])
    }
}
