//! A persistent hash map: cloning is free, and a change copies only its own path, so a change costs the same among
//! three keys and among a million.
//!
//! The cost of a read among a million keys is the latency of memory. So the tree has few levels, the upper ones are
//! small enough for the processor's caches, and a leaf stores each entry beside its hash: only the leaf, and the text
//! of the one key that is compared, are likely to miss the cache.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::vec::IntoIter;

use foldhash::fast::RandomState;

/// The number of bits of the hash that select the child of a branch, the highest bits first.
const BITS: u32 = 6;

const WIDTH: usize = 1 << BITS;

/// A leaf with more entries becomes a branch.
const FULL: usize = 16;

#[derive(Clone)]
pub(super) struct Map<K, V> {
    root: Node<K, V>,
    len: usize,
    hasher: RandomState,
}

/// A leaf that becomes empty stays in the tree until the map is built again.
enum Node<K, V> {
    Leaf(Arc<[Entry<K, V>]>),
    Branch(Arc<[Node<K, V>; WIDTH]>),
}

#[derive(Clone)]
struct Entry<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Map<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All entries, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut open = vec![std::slice::from_ref(&self.root).iter()];
        let leaves = std::iter::from_fn(move || {
            loop {
                match open.last_mut()?.next() {
                    Some(Node::Leaf(entries)) => return Some(entries),
                    Some(Node::Branch(children)) => open.push(children.iter()),
                    None => drop(open.pop()),
                }
            }
        });
        leaves.flat_map(|entries| entries.iter()).map(|entry| (&entry.key, &entry.value))
    }
}

impl<K: Clone + Ord + Hash, V: Clone> Map<K, V> {
    pub(super) fn get<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let (mut node, mut depth) = (&self.root, 0);
        while let Node::Branch(children) = node {
            node = &children[child(hash, depth)];
            depth += BITS;
        }
        let Node::Leaf(entries) = node else { return None };
        entries.iter().find(|entry| entry.is(hash, key)).map(|entry| &entry.value)
    }

    /// Returns the previous value.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let before = self.root.insert(Entry { hash, key, value }, 0);
        self.len += usize::from(before.is_none());
        before
    }

    /// Returns the previous value.
    pub(super) fn remove<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let before = self.get(key).cloned()?;
        self.root.remove(self.hasher.hash_one(key), key, 0);
        self.len -= 1;
        Some(before)
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), len: 0, hasher: RandomState::default() }
    }
}

/// Builds the map in one go, which costs far less than inserting one by one. The last of equal keys wins.
impl<K: Clone + Ord + Hash, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let hasher = RandomState::default();
        let entries = entries.into_iter().map(|(key, value)| Entry { hash: hasher.hash_one(&key), key, value });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by(|a, b| a.hash.cmp(&b.hash).then_with(|| a.key.cmp(&b.key)));
        entries.dedup_by(|later, kept| {
            let same = later.is(kept.hash, &kept.key);
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let len = entries.len();
        Self { root: Node::of(&mut entries.into_iter(), len, 0), len, hasher }
    }
}

impl<K: Clone + Ord + Hash, V: Clone> Node<K, V> {
    /// Builds a node of the next `count` entries, which are sorted by hash.
    fn of(entries: &mut IntoIter<Entry<K, V>>, mut count: usize, depth: u32) -> Self {
        // All bits are used: the hashes of the remaining entries are equal.
        if count <= FULL || depth >= u64::BITS {
            return Self::Leaf(entries.take(count).collect());
        }
        Self::Branch(Arc::new(std::array::from_fn(|at| {
            let mine = entries.as_slice()[..count].partition_point(|entry| child(entry.hash, depth) == at);
            count -= mine;
            Self::of(entries, mine, depth + BITS)
        })))
    }

    fn insert(&mut self, entry: Entry<K, V>, depth: u32) -> Option<V> {
        let entries = match self {
            Self::Branch(children) => {
                return Arc::make_mut(children)[child(entry.hash, depth)].insert(entry, depth + BITS);
            }
            Self::Leaf(entries) => entries,
        };
        if let Some(at) = entries.iter().position(|known| known.is(entry.hash, &entry.key)) {
            return Some(std::mem::replace(&mut Arc::make_mut(entries)[at].value, entry.value));
        }
        let mut more = Vec::with_capacity(entries.len() + 1);
        more.extend_from_slice(entries);
        more.push(entry);
        more.sort_unstable_by_key(|entry| entry.hash);
        let count = more.len();
        *self = Self::of(&mut more.into_iter(), count, depth);
        None
    }

    fn remove<Q: ?Sized + Eq>(&mut self, hash: u64, key: &Q, depth: u32)
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Branch(children) => Arc::make_mut(children)[child(hash, depth)].remove(hash, key, depth + BITS),
            Self::Leaf(entries) => *entries = entries.iter().filter(|entry| !entry.is(hash, key)).cloned().collect(),
        }
    }
}

impl<K, V> Entry<K, V> {
    fn is<Q: ?Sized + Eq>(&self, hash: u64, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.hash == hash && self.key.borrow() == key
    }
}

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(Arc::clone(entries)),
            Self::Branch(children) => Self::Branch(Arc::clone(children)),
        }
    }
}

fn child(hash: u64, depth: u32) -> usize {
    (hash << depth >> (u64::BITS - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    /// A key with few different hashes, some equal and some with a common beginning.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Colliding(u16);

    impl Hash for Colliding {
        fn hash<H: Hasher>(&self, state: &mut H) {
            (self.0 % 7).hash(state);
        }
    }

    fn sorted<K: Copy + Ord>(map: &Map<K, u16>) -> BTreeMap<K, u16> {
        let entries: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
        assert_eq!(entries.len(), map.len());
        entries.into_iter().collect()
    }

    /// Applies all changes to the map and to a `BTreeMap`, and checks that earlier copies do not change.
    fn check<K: Copy + Ord + Hash + std::fmt::Debug>(begin: &[(K, u16)], changes: &[(K, Option<u16>)]) {
        let mut map: Map<K, u16> = begin.iter().copied().collect();
        let mut model: BTreeMap<K, u16> = begin.iter().copied().collect();
        assert_eq!(sorted(&map), model);
        for (key, change) in changes {
            let (before, was) = (map.clone(), model.clone());
            match change {
                Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
                None => assert_eq!(map.remove(key), model.remove(key)),
            }
            assert_eq!(map.get(key), model.get(key));
            assert_eq!(sorted(&before), was);
        }
        assert_eq!(sorted(&map), model);
        assert!(model.iter().all(|(key, value)| map.get(key) == Some(value)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_behaves_like_a_map_and_copies_do_not_change(
            begin in prop::collection::vec((0..400u16, any::<u16>()), 0..400),
            changes in prop::collection::vec((0..400u16, any::<Option<u16>>()), 0..100),
        ) {
            check(&begin, &changes);
            let begin: Vec<_> = begin.into_iter().map(|(key, value)| (Colliding(key), value)).collect();
            let changes: Vec<_> = changes.into_iter().map(|(key, value)| (Colliding(key), value)).collect();
            check(&begin, &changes);
        }
    }

    #[test]
    fn inserting_one_by_one_gives_the_same_map_as_building_at_once() {
        let mut map = Map::default();
        for n in 0..20_000_u32 {
            assert_eq!(map.insert(n, n), None);
        }
        let built: Map<u32, u32> = (0..20_000).map(|n| (n, n)).collect();
        assert!((0..20_000).all(|n| map.get(&n) == Some(&n) && built.get(&n) == Some(&n)));
        assert!((20_000..40_000).all(|n| map.get(&n).is_none() && built.get(&n).is_none()));
        assert_eq!((map.len(), built.len()), (20_000, 20_000));
        for n in 0..20_000 {
            assert_eq!(map.remove(&n), Some(n));
        }
        assert_eq!((map.len(), map.iter().count(), built.iter().count()), (0, 0, 20_000));
    }
}
