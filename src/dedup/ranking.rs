//! Counts the entries of each namespace and each webhook, and finds the largest.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::rule::Owner;

/// The shares of a [`Table`](super::table::Table).
///
/// There are no limits: one namespace alone may use all the room. When the room is full, an entry of the largest webhook
/// of the largest namespace is removed. So a namespace with no more than an equal share loses no entry, nor does a webhook
/// with no more than an equal share of its namespace, and a namespace that comes later finds room at once.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    namespaces: Ranking,
    webhooks: HashMap<u16, Ranking, RandomState>,
}

impl Shares {
    pub(crate) fn add(&mut self, owner: Owner) {
        self.namespaces.add(owner.namespace);
        self.webhooks.entry(owner.namespace).or_default().add(owner.webhook);
    }

    pub(crate) fn subtract(&mut self, owner: Owner) {
        self.namespaces.subtract(owner.namespace);
        if let Some(webhooks) = self.webhooks.get_mut(&owner.namespace) {
            webhooks.subtract(owner.webhook);
            if webhooks.largest().is_none() {
                self.webhooks.remove(&owner.namespace);
            }
        }
    }

    /// The largest webhook of the largest namespace.
    pub(crate) fn largest(&self) -> Option<Owner> {
        let namespace = self.namespaces.largest()?;
        let webhook = self.webhooks.get(&namespace)?.largest()?;
        Some(Owner { namespace, webhook })
    }
}

/// Counts in descending order. A count changes by one, so one swap with the first or last of its equals keeps the order.
#[derive(Debug, Default)]
struct Ranking {
    order: Vec<Count>,
    places: HashMap<u16, u32, RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    id: u16,
    count: u32,
}

impl Ranking {
    fn add(&mut self, id: u16) {
        let place = match self.places.get(&id) {
            Some(place) => *place as usize,
            None => {
                self.order.push(Count { id, count: 0 });
                self.order.len() - 1
            }
        };
        let count = self.order[place].count;
        let first = self.order.partition_point(|other| other.count > count);
        self.swap(place, first);
        self.order[first].count += 1;
    }

    fn subtract(&mut self, id: u16) {
        let Some(place) = self.places.get(&id).map(|place| *place as usize) else { return };
        let count = self.order[place].count;
        let last = self.order.partition_point(|other| other.count >= count) - 1;
        self.swap(place, last);
        self.order[last].count -= 1;
        // Counts of one are the last, so a count that drops to zero is at the end.
        if self.order[last].count == 0 {
            self.order.pop();
            self.places.remove(&id);
        }
    }

    fn largest(&self) -> Option<u16> {
        self.order.first().map(|largest| largest.id)
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.order.swap(one, other);
        for place in [one, other] {
            self.places.insert(self.order[place].id, place as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_largest_share_is_always_found(ops in prop::collection::vec((any::<bool>(), 0..4_u16, 0..4_u16), 0..300)) {
            let mut shares = Shares::default();
            let mut plain: BTreeMap<(u16, u16), u32> = BTreeMap::new();
            for (is_added, namespace, webhook) in ops {
                let count = plain.entry((namespace, webhook)).or_default();
                match (is_added, *count) {
                    (false, 0) => continue,
                    (false, _) => {
                        *count -= 1;
                        shares.subtract(Owner { namespace, webhook });
                    }
                    (true, _) => {
                        *count += 1;
                        shares.add(Owner { namespace, webhook });
                    }
                }
                let namespaces = (0..4).map(|n| (0..4).map(|w| plain.get(&(n, w)).copied().unwrap_or(0)).sum::<u32>());
                let namespaces: Vec<_> = namespaces.collect();
                match shares.largest() {
                    None => prop_assert_eq!(namespaces.iter().sum::<u32>(), 0),
                    Some(Owner { namespace, webhook }) => {
                        prop_assert_eq!(namespaces[usize::from(namespace)], *namespaces.iter().max().unwrap());
                        let webhooks = (0..4).map(|w| plain.get(&(namespace, w)).copied().unwrap_or(0));
                        prop_assert_eq!(plain[&(namespace, webhook)], webhooks.max().unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn a_namespace_without_entries_takes_no_memory() {
        let mut shares = Shares::default();
        let owner = Owner { namespace: 1, webhook: 2 };
        shares.add(owner);
        assert_eq!(shares.largest(), Some(owner));
        shares.subtract(owner);
        assert!(
            shares.webhooks.is_empty() && shares.namespaces.order.is_empty() && shares.namespaces.places.is_empty()
        );
    }
}
