//! The taken events of each webhook, in the order in which they are forgotten.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::ranking::Shares;
use super::rule::{EventDigest, MAX_TTL, Owner};

/// The taken events of each webhook, in one queue for each order of magnitude of their `ttl`, the oldest at the head. An
/// event at the head that is not expired delays an expired event behind it, but at most by about that event's own `ttl`.
///
/// All queues are linked lists in one vector, so that a webhook with few events takes little memory.
#[derive(Debug)]
pub(crate) struct Queues {
    nodes: Vec<Node>,
    /// The first free node.
    spare_node: u32,
    queues: Vec<Queue>,
    spare_queues: Vec<u32>,
    /// The first queue of each owner.
    owners: HashMap<Owner, u32, RandomState>,
    shares: Shares,
    len: usize,
    /// The queue at which the next call of [`expired`](Self::expired) continues.
    hand: usize,
}

/// An event with the times at which it was taken and expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) event: EventDigest,
    pub(crate) at: u32,
    pub(crate) until: u32,
}

/// A [`Due`] in a queue; the owner is stored in the queue.
#[derive(Clone, Copy, Debug)]
struct Node {
    digest: [u8; 12],
    at: u32,
    until: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    owner: Owner,
    kind: Kind,
    head: u32,
    tail: u32,
    /// The next queue of the same owner.
    sibling: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    is_recovered: bool,
    magnitude: u8,
}

/// The index that means "no node" or "no queue".
const NONE: u32 = u32::MAX;

const MAX_MAGNITUDE: u32 = MAX_TTL.as_secs().ilog2();

impl Queues {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            spare_node: NONE,
            queues: Vec::new(),
            spare_queues: Vec::new(),
            owners: HashMap::default(),
            shares: Shares::default(),
            len: 0,
            hand: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds an event. A recovered event is from an earlier process, so it counts as older than all others.
    pub(crate) fn push(&mut self, due: Due, is_recovered: bool) {
        let owner = due.event.owner();
        let magnitude = due.until.saturating_sub(due.at).max(1).ilog2().min(MAX_MAGNITUDE) as u8;
        let queue = self.queue(owner, Kind { is_recovered, magnitude });
        let node = self.node(Node { digest: due.event.digest(), at: due.at, until: due.until, next: NONE });
        let queue = &mut self.queues[queue as usize];
        match queue.tail {
            NONE => queue.head = node,
            tail => self.nodes[tail as usize].next = node,
        }
        queue.tail = node;
        self.shares.add(owner);
        self.len += 1;
    }

    /// Removes the oldest event of the largest webhook of the largest namespace.
    pub(crate) fn pop_from_largest(&mut self) -> Option<Due> {
        let mut queue = *self.owners.get(&self.shares.largest()?)?;
        let (mut oldest, mut age) = (NONE, (true, u32::MAX));
        while let Some(Queue { kind, head, sibling, .. }) = self.queues.get(queue as usize).copied() {
            let at = self.nodes.get(head as usize).map_or(u32::MAX, |node| node.at);
            if oldest == NONE || (!kind.is_recovered, at) < age {
                (oldest, age) = (queue, (!kind.is_recovered, at));
            }
            queue = sibling;
        }
        self.pop(oldest)
    }

    /// Removes an expired event from the head of one of the next few queues, if there is one. `looks` is the number of
    /// queues that may be visited, and counts down. Recovered events are left alone unless `with_recovered` is set.
    pub(crate) fn expired(&mut self, now: u32, with_recovered: bool, looks: &mut usize) -> Option<Due> {
        while *looks > 0 && !self.queues.is_empty() {
            *looks -= 1;
            self.hand %= self.queues.len();
            let queue = self.queues[self.hand];
            let is_over = self.nodes.get(queue.head as usize).is_some_and(|node| node.until < now);
            if is_over && (with_recovered || !queue.kind.is_recovered) {
                return self.pop(self.hand as u32);
            }
            self.hand += 1;
        }
        None
    }

    /// Replaces the expiry of each recovered event.
    pub(crate) fn date(&mut self, mut until: impl FnMut(Due) -> u32) {
        for queue in self.queues.iter().filter(|queue| queue.kind.is_recovered) {
            let mut node = queue.head;
            while let Some(found) = self.nodes.get_mut(node as usize) {
                found.until = until(found.due(queue.owner));
                node = found.next;
            }
        }
    }

    fn pop(&mut self, queue: u32) -> Option<Due> {
        let found = self.queues.get_mut(queue as usize)?;
        let (owner, head) = (found.owner, found.head);
        let node = self.nodes.get_mut(head as usize)?;
        let due = node.due(owner);
        found.head = std::mem::replace(&mut node.next, self.spare_node);
        self.spare_node = head;
        if found.head == NONE {
            self.remove_queue(queue);
        }
        self.shares.subtract(owner);
        self.len -= 1;
        Some(due)
    }

    fn node(&mut self, node: Node) -> u32 {
        let place = self.spare_node;
        match self.nodes.get_mut(place as usize) {
            Some(spare) => {
                self.spare_node = spare.next;
                *spare = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    /// The queue of this owner and kind, which is created if it is missing.
    fn queue(&mut self, owner: Owner, kind: Kind) -> u32 {
        let first = self.owners.get(&owner).copied().unwrap_or(NONE);
        let mut place = first;
        while let Some(queue) = self.queues.get(place as usize) {
            if queue.kind == kind {
                return place;
            }
            place = queue.sibling;
        }
        let queue = Queue { owner, kind, head: NONE, tail: NONE, sibling: first };
        let place = match self.spare_queues.pop() {
            Some(spare) => {
                self.queues[spare as usize] = queue;
                spare
            }
            None => {
                self.queues.push(queue);
                self.queues.len() as u32 - 1
            }
        };
        self.owners.insert(owner, place);
        place
    }

    /// Removes an empty queue.
    fn remove_queue(&mut self, queue: u32) {
        let Queue { owner, sibling, .. } = self.queues[queue as usize];
        let mut before = self.owners.get(&owner).copied().unwrap_or(NONE);
        if before == queue {
            match sibling {
                NONE => drop(self.owners.remove(&owner)),
                _ => drop(self.owners.insert(owner, sibling)),
            }
        } else {
            while let Some(found) = self.queues.get_mut(before as usize) {
                if found.sibling == queue {
                    found.sibling = sibling;
                    break;
                }
                before = found.sibling;
            }
        }
        self.queues[queue as usize].tail = NONE;
        self.spare_queues.push(queue);
    }
}

impl Node {
    fn due(&self, owner: Owner) -> Due {
        Due { event: EventDigest::from_parts(owner, self.digest), at: self.at, until: self.until }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_in_a_queue_is_small() {
        assert_eq!(size_of::<Node>(), 24);
    }

    fn due(namespace: u16, webhook: u16, number: u32, at: u32, ttl: u32) -> Due {
        let mut digest = [0; 12];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        Due { event: EventDigest::from_parts(Owner { namespace, webhook }, digest), at, until: at + ttl }
    }

    fn count(plain: &[(Due, bool)], counts: impl Fn(Owner) -> bool) -> usize {
        plain.iter().filter(|(due, _)| counts(due.event.owner())).count()
    }

    proptest! {
        /// Compared with a plain list of all events.
        #[test]
        fn the_oldest_of_the_largest_goes_first(
            ops in prop::collection::vec((0..3_u8, 0..3_u16, 0..3_u16, 1..5000_u32), 0..200),
            recovered in 0..50_usize,
        ) {
            let mut queues = Queues::new();
            let mut plain: Vec<(Due, bool)> = Vec::new();
            for (step, (op, namespace, webhook, ttl)) in ops.into_iter().enumerate() {
                // Each event has its own time. Recovered events come first, with the time of another clock.
                let is_recovered = step < recovered;
                let at = step as u32 + if is_recovered { 1_000_000 } else { 0 };
                if op > 0 {
                    let due = due(namespace, webhook, step as u32, at, ttl);
                    queues.push(due, is_recovered);
                    plain.push((due, is_recovered));
                } else if let Some(popped) = queues.pop_from_largest() {
                    let owner = popped.event.owner();
                    for n in 0..3 {
                        let is_largest = count(&plain, |o| o.namespace == owner.namespace) >= count(&plain, |o| o.namespace == n);
                        prop_assert!(is_largest);
                        let other = Owner { namespace: owner.namespace, webhook: n };
                        prop_assert!(count(&plain, |o| o == owner) >= count(&plain, |o| o == other));
                    }
                    let oldest = plain.iter().position(|(due, _)| due.event.owner() == owner).unwrap();
                    prop_assert_eq!(plain.remove(oldest).0, popped);
                }
                prop_assert_eq!(queues.len(), plain.len());
            }
            let mut looks = usize::MAX;
            while !plain.is_empty() {
                let expired = queues.expired(u32::MAX, true, &mut looks).unwrap();
                let place = plain.iter().position(|(due, _)| *due == expired).unwrap();
                plain.remove(place);
            }
            prop_assert_eq!(queues.expired(u32::MAX, true, &mut 100), None);
            prop_assert!(queues.owners.is_empty() && queues.len() == 0);
            prop_assert_eq!(queues.spare_queues.len(), queues.queues.len());
        }
    }

    #[test]
    fn nodes_and_queues_are_reused() {
        let mut queues = Queues::new();
        for round in 0..100 {
            for number in 0..10 {
                queues.push(due(number, 0, round, round, 10), false);
            }
            for _ in 0..10 {
                queues.pop_from_largest().unwrap();
            }
        }
        assert_eq!((queues.nodes.len(), queues.queues.len()), (10, 10));
    }
}
