//! The connections of a listener by peer, and the choice of the one that makes room when the listener is full.
//!
//! There is no limit per peer: a load balancer is one peer, and so is everybody behind one NAT. When the listener is full,
//! the peer with the most connections loses the connection that has been idle longest among those that never sent an
//! admitted request. So a flood of connections displaces its own.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::activity::Activity;

/// How many connections are examined to find one.
const LOOKS: usize = 40;

/// How many connections of one peer are examined before those of the next peer: a peer whose connections are all busy must
/// not use up [`LOOKS`].
const LOOKS_AT_A_PEER: usize = 8;

/// The connections that never sent an admitted request. One that has is removed when it is next examined.
#[derive(Default)]
pub(crate) struct Guests(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    peers: HashMap<Network, Peer>,
    /// The peers, ordered by their number of connections.
    by_number: BTreeSet<(usize, Network)>,
}

#[derive(Default)]
struct Peer {
    guests: HashMap<u64, Arc<Activity>>,
    /// The guests' ids in order of arrival. Ids of connections that are gone are removed later.
    order: VecDeque<u64>,
}

/// An IPv4 address, or an IPv6 /64: one host can use all addresses of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Keeps a connection among the guests until it is dropped.
pub(crate) struct Place {
    guests: Arc<Mutex<State>>,
    network: Network,
    id: u64,
}

impl Guests {
    pub(crate) fn enter(&self, peer: IpAddr, activity: &Arc<Activity>) -> Place {
        let network = Network::of(peer);
        let mut state = lock(&self.0);
        let id = state.next;
        state.next += 1;
        state.change(network, |peer| {
            peer.guests.insert(id, Arc::clone(activity));
            peer.order.push_back(id);
        });
        Place { guests: Arc::clone(&self.0), network, id }
    }

    /// Ends a connection to make room. Returns whether one was found.
    pub(crate) fn make_room(&self) -> bool {
        let mut state = lock(&self.0);
        let mut looks = LOOKS;
        let mut before = looks;
        let mut below = None;
        while looks > 0 {
            let largest = match below {
                None => state.by_number.last(),
                Some(last) => state.by_number.range(..last).next_back(),
            };
            let Some(&(number, network)) = largest else {
                // Every peer has had its turn. While looks are left, another round begins.
                if looks == before {
                    return false;
                }
                (before, below) = (looks, None);
                continue;
            };
            below = Some((number, network));
            let at_peer = looks.min(LOOKS_AT_A_PEER);
            let mut left = at_peer;
            if let Some(activity) = state.change(network, |peer| peer.longest_idle(&mut left)) {
                activity.task().inspect(|task| task.abort());
                return true;
            }
            looks -= at_peer - left;
        }
        false
    }
}

impl State {
    /// Changes one peer and updates [`by_number`](Self::by_number).
    fn change<T>(&mut self, network: Network, change: impl FnOnce(&mut Peer) -> T) -> T {
        let peer = self.peers.entry(network).or_default();
        let before = peer.guests.len();
        let outcome = change(peer);
        let after = peer.guests.len();
        if before != after {
            self.by_number.remove(&(before, network));
            if after > 0 {
                self.by_number.insert((after, network));
            }
        }
        if after == 0 {
            self.peers.remove(&network);
        }
        outcome
    }
}

impl Peer {
    fn remove(&mut self, id: u64) -> Option<Arc<Activity>> {
        let guest = self.guests.remove(&id);
        if self.order.len() > 2 * self.guests.len() + LOOKS {
            self.order.retain(|id| self.guests.contains_key(id));
        }
        guest
    }

    /// The connection that has been idle longest among the oldest. Busy ones move to the end of the order.
    fn longest_idle(&mut self, looks: &mut usize) -> Option<Arc<Activity>> {
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        while *looks > 0
            && let Some(id) = self.order.pop_front()
        {
            let Some(guest) = self.guests.get(&id) else { continue };
            if guest.is_let_in() {
                self.guests.remove(&id);
                continue;
            }
            *looks -= 1;
            match (guest.idle_since(), guest.task()) {
                (Some(since), Some(_)) => idle.push((since, id)),
                _ => busy.push(id),
            }
        }
        let longest = idle.iter().min_by_key(|(since, _)| *since).map(|(_, id)| *id);
        idle.iter().rev().filter(|(_, id)| Some(*id) != longest).for_each(|(_, id)| self.order.push_front(*id));
        self.order.extend(busy);
        self.remove(longest?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.guests);
        if state.peers.contains_key(&self.network) {
            state.change(self.network, |peer| drop(peer.remove(self.id)));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
