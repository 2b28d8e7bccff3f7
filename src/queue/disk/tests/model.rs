//! The spool behaves like a plain queue, whatever happens to the process and the disk.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Accept { webhook: u8, bytes: u16 },
    Finish(prop::sample::Index),
    Try(prop::sample::Index),
    Bury(prop::sample::Index),
    Replay(prop::sample::Index),
    Drop(prop::sample::Index),
    Fail { append: bool, sync: bool },
    Kill,
    PowerCut(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        8 => (0..3u8, 0..9000u16).prop_map(|(webhook, bytes)| Step::Accept { webhook, bytes }),
        6 => index().prop_map(Step::Finish),
        2 => index().prop_map(Step::Try),
        1 => index().prop_map(Step::Bury),
        1 => index().prop_map(Step::Replay),
        1 => index().prop_map(Step::Drop),
        1 => any::<(bool, bool)>().prop_map(|(append, sync)| Step::Fail { append, sync }),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..120)
}

/// The plain queue that the spool must behave like: the events that were accepted and are not finished, in order.
#[derive(Default)]
struct Model {
    events: BTreeMap<EventId, Known>,
    /// Events that were refused because the disk failed. After a crash they may be in the spool all the same.
    maybe: BTreeSet<EventId>,
}

#[derive(Clone)]
struct Known {
    ticket: Ticket,
    body: Bytes,
    state: StoredState,
    is_finished: bool,
}

impl Model {
    fn pick(&self, index: prop::sample::Index, dead: bool) -> Option<EventId> {
        let fit = |known: &Known| !known.is_finished && known.state.dead.is_some() == dead;
        let fitting: Vec<_> = self.events.iter().filter(|(_, known)| fit(known)).map(|(id, _)| *id).collect();
        (!fitting.is_empty()).then(|| *index.get(&fitting))
    }
}

fn is_failing(disk: &Faulty) -> bool {
    let contents = disk.lock();
    contents.fail_append || contents.fail_sync
}

async fn run(steps: Vec<Step>) {
    const MAX: u64 = 256 << 10;
    let webhooks = ["a", "b", "c"].map(webhook);
    let mut disk = Faulty::default();
    let (mut spool, mut tickets) = open(&disk, MAX);
    let mut model = Model::default();
    for step in steps {
        let fails = is_failing(&disk);
        match step {
            Step::Accept { webhook, bytes } => {
                let delivery = Delivery::new(
                    Arc::clone(&webhooks[usize::from(webhook)]),
                    HeaderMap::new(),
                    vec![webhook; bytes.into()],
                );
                match accept(&spool, &delivery).await {
                    Ok(()) => {
                        assert!(!fails);
                        let ticket = receive(&mut tickets).pop().unwrap();
                        let known = Known {
                            ticket,
                            body: delivery.body().clone(),
                            state: StoredState::default(),
                            is_finished: false,
                        };
                        model.events.insert(delivery.id(), known);
                    }
                    Err(QueueError::Full) => {}
                    Err(QueueError::TooLarge) => panic!("no event here is too large"),
                    Err(QueueError::Failed) => {
                        assert!(fails);
                        model.maybe.insert(delivery.id());
                    }
                }
            }
            Step::Finish(index) => {
                if let Some(id) = model.pick(index, false) {
                    let known = model.events.get_mut(&id).unwrap();
                    spool.finish(std::slice::from_ref(&known.ticket));
                    known.is_finished = true;
                }
            }
            Step::Try(index) => {
                if let Some(id) = model.pick(index, false) {
                    let known = model.events.get_mut(&id).unwrap();
                    known.state =
                        StoredState { attempts: known.state.attempts + 1, done: done(1), ..StoredState::default() };
                    note(&spool, &known.ticket, known.state.clone());
                }
            }
            Step::Bury(index) => {
                if let Some(id) = model.pick(index, false) {
                    let known = model.events.get_mut(&id).unwrap();
                    known.state = death();
                    bury(&spool, id, known.ticket.clone());
                }
            }
            Step::Replay(index) => {
                if let Some(id) = model.pick(index, true) {
                    let known = model.events.get_mut(&id).unwrap();
                    assert!(spool.replay_one(id));
                    known.state = StoredState { done: done(1), ..StoredState::default() };
                    receive(&mut tickets);
                }
            }
            Step::Drop(index) => {
                if let Some(id) = model.pick(index, false) {
                    match spool.drop_waiting(vec![id]).await {
                        Ok(dropped) => {
                            assert!(!fails && dropped == [id]);
                            model.events.remove(&id);
                        }
                        // Gone, but after a crash it may be back.
                        Err(_) => {
                            assert!(fails);
                            model.events.get_mut(&id).unwrap().is_finished = true;
                        }
                    }
                }
            }
            Step::Fail { append, sync } => {
                let mut contents = disk.lock();
                (contents.fail_append, contents.fail_sync) = (append, sync);
            }
            Step::Kill | Step::PowerCut(_) => {
                let is_power_cut = matches!(step, Step::PowerCut(_));
                {
                    let mut contents = disk.lock();
                    (contents.fail_append, contents.fail_sync) = (false, false);
                }
                if !is_power_cut {
                    // Notes linger for some milliseconds before they are written. The kill shall lose none of them.
                    spool.end().await;
                }
                disk = match step {
                    Step::PowerCut(seed) => disk.after_power_cut(&mut fastrand::Rng::with_seed(seed)),
                    _ => disk.after_kill(),
                };
                (spool, tickets) = open(&disk, MAX);
                check_after(&spool, receive(&mut tickets), &mut model, is_power_cut);
            }
        }
        let fails = is_failing(&disk);
        // Now and then everything is synced, as it is in a running system after a second.
        if !fails && !matches!(step, Step::Kill | Step::PowerCut(_)) && fastrand::u8(..8) == 0 {
            spool.end().await;
            model.events.retain(|_, known| !known.is_finished);
        }
        let waiting = model.events.values().filter(|known| !known.is_finished && known.state.dead.is_none()).count();
        assert_eq!(spool.status().waiting, waiting);
        let mut left = model.events.iter().filter(|(_, known)| !known.is_finished && known.state.dead.is_none());
        // Events that were put into the spool in one moment may have their ids in another order.
        let first = left.next().map(|(id, _)| *id);
        assert_eq!(
            spool.list_waiting(&crate::queue::WaitingQuery::first(1)).events.first().map(|event| event.id),
            first
        );
        assert_eq!(spool.status().oldest.map(|_| ()), first.map(|_| ()));
        assert!(disk.bytes() as u64 <= MAX + MAX / 8, "{}", disk.bytes());
        for known in model.events.values().filter(|known| !known.is_finished) {
            let (event, state) = read(&spool, &known.ticket).unwrap().unwrap();
            assert_eq!((event.body, &state), (known.body.clone(), &known.state));
        }
    }
}

/// Checks the events that a new process finds: none is missing, none is unknown, all are in order.
fn check_after(spool: &Spool, tickets: Vec<Ticket>, model: &mut Model, is_power_cut: bool) {
    assert!(tickets.is_sorted_by_key(|ticket| ticket.sequence));
    let mut found = BTreeMap::new();
    for ticket in tickets {
        let (event, state) = read(spool, &ticket).unwrap().unwrap();
        found.insert(event.id, (ticket, event.body, state));
    }
    for letter in spool.list(&DeadLetterQuery::first(usize::MAX)) {
        let ticket = spool.shared().ledger().dead()[&letter.id].clone();
        let (event, state) = read(spool, &ticket).unwrap().unwrap();
        found.insert(event.id, (ticket, event.body, state));
    }
    let mut events = BTreeMap::new();
    for (id, known) in &model.events {
        match found.remove(id) {
            Some((ticket, body, state)) => {
                assert!(!known.is_finished || is_power_cut, "a finished event came back");
                assert_eq!(body, known.body);
                assert!(state == known.state || is_power_cut, "{state:?} {:?}", known.state);
                let known = Known { ticket, body, state, is_finished: false };
                events.insert(*id, known);
            }
            None => assert!(known.is_finished, "an accepted event is lost"),
        }
    }
    for (id, (ticket, body, state)) in found {
        assert!(model.maybe.contains(&id), "an event from nowhere");
        events.insert(id, Known { ticket, body, state, is_finished: false });
    }
    model.events = events;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Through crashes, power cuts and disk failures.
    #[test]
    fn the_spool_behaves_like_a_plain_queue(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
