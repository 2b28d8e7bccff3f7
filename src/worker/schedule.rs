//! Chooses the next event, fairly among namespaces and webhooks. Pure.
//!
//! Namespaces take turns by deficit round robin (Shreedhar and Varghese, 1995), so that each gets the same share of the
//! bytes. Within a namespace the webhooks take turns, and the events of a webhook are started in the order in which they
//! came. A webhook or namespace that has reached its limit is skipped until one of its events ends.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::config::WebhookKey;
use crate::queue::Ticket;

/// The limits on running events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) webhook: usize,
    pub(super) namespace: usize,
    pub(super) total: usize,
    /// Bytes of all running events; a namespace may have a quarter. A single event may always run.
    pub(super) bytes: u64,
}

/// Bytes that a namespace may start in one turn.
const QUANTUM: u64 = 64 << 10;

/// The cost of an event besides its bytes.
const COST: u64 = 1 << 10;

pub(super) struct Schedule {
    limits: Limits,
    namespaces: HashMap<Box<str>, Namespace, foldhash::fast::RandomState>,
    /// The namespaces that wait for their turn.
    turns: VecDeque<Box<str>>,
    running: usize,
    bytes: u64,
}

#[derive(Default)]
struct Namespace {
    lanes: HashMap<WebhookKey, Lane, foldhash::fast::RandomState>,
    /// The webhooks that wait for their turn.
    turns: VecDeque<WebhookKey>,
    running: usize,
    bytes: u64,
    deficit: u64,
    has_turn: bool,
}

impl Namespace {
    fn has_capacity(&self, limits: Limits) -> bool {
        self.running == 0 || (self.running < limits.namespace && self.bytes < limits.bytes / 4)
    }
}

/// The ready events of a webhook.
#[derive(Default)]
struct Lane {
    ready: VecDeque<Ticket>,
    running: usize,
    has_turn: bool,
}

impl Schedule {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, namespaces: HashMap::default(), turns: VecDeque::new(), running: 0, bytes: 0 }
    }

    /// Adds an event that is ready.
    pub(super) fn push(&mut self, ticket: Ticket) {
        let name = ticket.webhook.namespace();
        if !self.namespaces.contains_key(name) {
            self.namespaces.insert(name.into(), Namespace::default());
        }
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        let key = ticket.webhook.clone();
        let lane = namespace.lanes.entry(key.clone()).or_default();
        lane.ready.push_back(ticket);
        Self::give_turns(self.limits, namespace, &key, &mut self.turns);
    }

    /// The next event to start. It counts as running until [`ended`](Self::ended) is called for it.
    pub(super) fn next(&mut self) -> Option<Ticket> {
        if self.running >= self.limits.total || (self.running > 0 && self.bytes >= self.limits.bytes) {
            return None;
        }
        loop {
            let name = self.turns.front()?;
            let namespace = self.namespaces.get_mut(name)?;
            let next =
                namespace.turns.front().and_then(|key| Some((key.clone(), namespace.lanes.get(key)?.ready.front()?)));
            let Some((key, ticket)) = next.filter(|_| namespace.has_capacity(self.limits)) else {
                namespace.has_turn = false;
                namespace.deficit = 0;
                self.turns.pop_front();
                continue;
            };
            let cost = COST + u64::from(ticket.bytes);
            if namespace.deficit < cost {
                namespace.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            namespace.deficit -= cost;
            namespace.turns.pop_front();
            let lane = namespace.lanes.get_mut(&key)?;
            lane.has_turn = false;
            let ticket = lane.ready.pop_front()?;
            lane.running += 1;
            namespace.running += 1;
            namespace.bytes += u64::from(ticket.bytes);
            self.running += 1;
            self.bytes += u64::from(ticket.bytes);
            Self::give_turns(self.limits, namespace, &key, &mut self.turns);
            return Some(ticket);
        }
    }

    /// Ends a running event, whatever its outcome.
    pub(super) fn ended(&mut self, ticket: &Ticket) {
        self.running -= 1;
        self.bytes -= u64::from(ticket.bytes);
        let name = ticket.webhook.namespace();
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        namespace.running -= 1;
        namespace.bytes -= u64::from(ticket.bytes);
        if let Some(lane) = namespace.lanes.get_mut(&ticket.webhook) {
            lane.running -= 1;
            if lane.running == 0 && lane.ready.is_empty() {
                namespace.lanes.remove(&ticket.webhook);
            }
        }
        Self::give_turns(self.limits, namespace, &ticket.webhook, &mut self.turns);
        if namespace.lanes.is_empty() && !namespace.has_turn {
            self.namespaces.remove(name);
        }
    }

    /// Removes those of these events that are ready and not started.
    pub(super) fn forget(&mut self, tickets: &[Ticket]) {
        let gone: HashSet<u64> = tickets.iter().map(|ticket| ticket.sequence).collect();
        let webhooks: HashSet<&WebhookKey> = tickets.iter().map(|ticket| &ticket.webhook).collect();
        for key in webhooks {
            let Some(namespace) = self.namespaces.get_mut(key.namespace()) else { continue };
            let Some(lane) = namespace.lanes.get_mut(key) else { continue };
            lane.ready.retain(|ticket| !gone.contains(&ticket.sequence));
            if !lane.ready.is_empty() {
                continue;
            }
            // A webhook or namespace has a turn only while it has a ready event.
            lane.has_turn = false;
            if lane.running == 0 {
                namespace.lanes.remove(key);
            }
            namespace.turns.retain(|turn| turn != key);
            if namespace.turns.is_empty() && namespace.has_turn {
                namespace.has_turn = false;
                namespace.deficit = 0;
                self.turns.retain(|turn| **turn != *key.namespace());
            }
            if namespace.lanes.is_empty() && !namespace.has_turn {
                self.namespaces.remove(key.namespace());
            }
        }
    }

    /// Queues a webhook and its namespace for a turn, if they can use one.
    fn give_turns(limits: Limits, namespace: &mut Namespace, key: &WebhookKey, turns: &mut VecDeque<Box<str>>) {
        if let Some(lane) = namespace.lanes.get_mut(key)
            && !lane.has_turn
            && !lane.ready.is_empty()
            && lane.running < limits.webhook
        {
            lane.has_turn = true;
            namespace.turns.push_back(key.clone());
        }
        if !namespace.has_turn && !namespace.turns.is_empty() && namespace.has_capacity(limits) {
            namespace.has_turn = true;
            turns.push_back(key.namespace().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { webhook: 2, namespace: 3, total: 5, bytes: 1 << 40 };

    fn ticket(namespace: &str, id: &str, sequence: u64, bytes: u32) -> Ticket {
        Ticket { sequence, webhook: WebhookKey::new(namespace, id).unwrap(), bytes }
    }

    #[test]
    fn the_events_of_a_webhook_start_in_order_up_to_its_limit() {
        let mut schedule = Schedule::new(LIMITS);
        (1..=4).for_each(|n| schedule.push(ticket("a", "x", n, 100)));
        let first = schedule.next().unwrap();
        assert_eq!((first.sequence, schedule.next().unwrap().sequence), (1, 2));
        assert!(schedule.next().is_none());
        schedule.ended(&first);
        assert_eq!(schedule.next().unwrap().sequence, 3);
        assert!(schedule.next().is_none());
    }

    #[test]
    fn a_stuck_webhook_does_not_stop_the_others() {
        let mut schedule = Schedule::new(LIMITS);
        (1..=100).for_each(|n| schedule.push(ticket("a", "stuck", n, 100)));
        schedule.push(ticket("a", "y", 101, 100));
        schedule.push(ticket("b", "z", 102, 100));
        let mut started: Vec<_> = std::iter::from_fn(|| schedule.next()).map(|ticket| ticket.sequence).collect();
        started.sort_unstable();
        assert_eq!(started, [1, 2, 101, 102]);
    }

    #[test]
    fn namespaces_get_equal_shares_of_the_bytes() {
        let limits = Limits { webhook: 1, namespace: 1, total: 1, bytes: 1 << 40 };
        let mut schedule = Schedule::new(limits);
        (0..1000).for_each(|n| schedule.push(ticket("large", "x", n, 63 << 10)));
        (0..10_000).for_each(|n| schedule.push(ticket("small", "x", n, 1 << 10)));
        let mut bytes = HashMap::<String, u64>::new();
        for _ in 0..2000 {
            let ticket = schedule.next().unwrap();
            *bytes.entry(ticket.webhook.namespace().to_owned()).or_default() += COST + u64::from(ticket.bytes);
            schedule.ended(&ticket);
        }
        let (large, small) = (bytes["large"], bytes["small"]);
        assert!(large.abs_diff(small) <= 2 * QUANTUM, "{large} {small}");
    }

    #[test]
    fn running_bytes_are_bounded_and_a_larger_event_still_runs_alone() {
        let mut schedule = Schedule::new(Limits { bytes: 1000, ..LIMITS });
        schedule.push(ticket("a", "x", 1, 1 << 30));
        schedule.push(ticket("b", "x", 2, 1));
        let large = schedule.next().unwrap();
        let (first, second) = match large.sequence {
            1 => (large, None),
            _ => (schedule.next().unwrap(), Some(large)),
        };
        assert_eq!(first.sequence, 1);
        assert!(schedule.next().is_none());
        schedule.ended(&first);
        assert!(second.is_some() || schedule.next().is_some());
    }

    #[test]
    fn a_forgotten_event_is_not_started_and_nothing_stays_of_it() {
        let mut schedule = Schedule::new(LIMITS);
        let gone = [ticket("a", "x", 1, 100), ticket("a", "x", 3, 100), ticket("b", "x", 4, 100)];
        gone.iter().for_each(|ticket| schedule.push(ticket.clone()));
        [ticket("a", "x", 2, 100), ticket("a", "y", 5, 100)].into_iter().for_each(|ticket| schedule.push(ticket));
        schedule.forget(&gone);
        let mut started: Vec<_> = std::iter::from_fn(|| schedule.next()).collect();
        started.sort_unstable();
        assert_eq!(started.iter().map(|ticket| ticket.sequence).collect::<Vec<_>>(), [2, 5]);
        schedule.forget(&started);
        started.iter().for_each(|ticket| schedule.ended(ticket));
        assert!(schedule.namespaces.is_empty() && schedule.running == 0);
    }

    proptest! {
        /// Every event is started once, in order for each webhook and within the limits, whatever is pushed and ended when.
        #[test]
        fn every_event_is_started_exactly_once(steps in prop::collection::vec((0..4u8, 0..3u8, 0..200_000u32, any::<bool>(), any::<bool>()), 1..200)) {
            let mut schedule = Schedule::new(LIMITS);
            let mut running = Vec::<Ticket>::new();
            let mut last = HashMap::<WebhookKey, u64>::new();
            let mut started = 0;
            let mut start = |schedule: &mut Schedule, running: &mut Vec<Ticket>| {
                while let Some(ticket) = schedule.next() {
                    let before = last.insert(ticket.webhook.clone(), ticket.sequence);
                    assert!(before < Some(ticket.sequence) || before.is_none());
                    running.push(ticket);
                    started += 1;
                    for one in running.iter() {
                        let of = |same: &dyn Fn(&Ticket) -> bool| running.iter().filter(|other| same(other)).count();
                        assert!(of(&|other| other.webhook == one.webhook) <= LIMITS.webhook);
                        assert!(of(&|other| other.webhook.namespace() == one.webhook.namespace()) <= LIMITS.namespace);
                    }
                    assert!(running.len() <= LIMITS.total);
                }
            };
            let mut forgotten = 0;
            for (n, (namespace, id, bytes, end, forget)) in steps.iter().enumerate() {
                let next = ticket(&format!("n{namespace}"), &format!("w{id}"), n as u64, *bytes);
                schedule.push(next.clone());
                if *forget {
                    schedule.forget(&[next]);
                    forgotten += 1;
                }
                start(&mut schedule, &mut running);
                if *end && !running.is_empty() {
                    schedule.ended(&running.swap_remove(n % running.len()));
                    start(&mut schedule, &mut running);
                }
            }
            while let Some(ticket) = running.pop() {
                schedule.ended(&ticket);
                start(&mut schedule, &mut running);
            }
            prop_assert_eq!(started + forgotten, steps.len());
            prop_assert_eq!((schedule.running, schedule.bytes), (0, 0));
            prop_assert!(schedule.namespaces.values().all(|namespace| namespace.lanes.is_empty()));
        }
    }
}
