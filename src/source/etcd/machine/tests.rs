use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CLUSTER: u64 = 7;

fn secs(secs: u64) -> Time {
    Duration::from_secs(secs)
}

fn entry(key: &str, revision: Revision) -> Entry {
    Entry { key: key.into(), value: Bytes::from(format!("{key}@{revision}")), revision }
}

fn put(key: &str, revision: Revision, created: bool) -> Event {
    Event { key: key.into(), value: Some(Bytes::from(format!("{key}@{revision}"))), revision, created }
}

fn delete(key: &str, revision: Revision) -> Event {
    Event { key: key.into(), value: None, revision, created: false }
}

fn events(events: &[Event]) -> Input {
    Input::Message(Message { events: events.to_vec(), ..Message::default() })
}

fn fragment(events: &[Event]) -> Input {
    Input::Message(Message { events: events.to_vec(), fragment: true, ..Message::default() })
}

fn canceled(compact_revision: Revision) -> Input {
    let canceled = Some(Canceled { compact_revision, reason: "no more".into() });
    Input::Message(Message { canceled, ..Message::default() })
}

fn fault(kind: FaultKind) -> Input {
    Input::Fault(Fault { kind, reason: "it broke".into() })
}

fn page(revision: Revision, total: i64, entries: &[Entry], more: bool) -> Input {
    Input::Page(Page { revision, total, entries: entries.to_vec(), more })
}

fn proof(after: Revision, revision: Revision, changed: bool, total: i64) -> Input {
    Input::Proof(Proof { revision, changed, total, after, cluster: CLUSTER })
}

fn connected(revision: Revision) -> Input {
    Input::Connected { cluster: CLUSTER, revision }
}

/// A machine that follows a cluster with one key, `a`, at revision 10.
fn live() -> Machine {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    machine.step(secs(0), page(10, 1, &[entry("a", 5)], false));
    assert_eq!(machine.step(secs(0), Input::Opened { revision: 10 }), [Command::Live]);
    machine
}

fn wait_of(commands: &[Command]) -> Duration {
    match commands.last() {
        Some(Command::Wait(wait)) => *wait,
        other => panic!("no wait: {other:?}"),
    }
}

#[test]
fn it_lists_and_then_watches_from_the_next_revision() {
    let mut machine = Machine::new(1, 1);
    assert_eq!(machine.step(secs(0), Input::Start), [Command::Connect(0)]);
    assert_eq!(
        machine.step(secs(1), connected(10)),
        [Command::Begin, Command::List { at: None, after: None, limit: PAGE }]
    );
    assert_eq!(
        machine.step(secs(2), page(10, 2, &[entry("a", 5)], true)),
        [Command::Bring(vec![entry("a", 5)]), Command::List { at: Some(10), after: Some(b"a".to_vec()), limit: PAGE }]
    );
    assert_eq!(
        // The header of a later page tells a newer revision, which the page is not of.
        machine.step(secs(3), page(12, 2, &[entry("b", 6)], false)),
        [
            Command::Bring(vec![entry("b", 6)]),
            Command::Commit(10),
            Command::Proven { asked: secs(1) },
            Command::Watch { from: 11 }
        ]
    );
    assert_eq!(machine.step(secs(3), Input::Opened { revision: 10 }), [Command::Live]);
}

#[test]
fn an_empty_prefix_is_a_configuration_too() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(1));
    let commands = machine.step(secs(0), page(1, 0, &[], false));
    assert!(commands.contains(&Command::Commit(1)), "{commands:?}");
}

#[test]
fn behind_the_store_it_is_live_only_when_a_proof_says_so() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    machine.step(secs(0), page(10, 1, &[entry("a", 5)], false));
    assert_eq!(machine.step(secs(1), Input::Opened { revision: 20 }), [Command::Prove { after: 10 }]);
    assert_eq!(
        machine.step(secs(2), proof(10, 20, false, 1)),
        [Command::Advance(20), Command::Proven { asked: secs(1) }, Command::Live]
    );
}

#[test]
fn events_are_published_and_resumed_behind() {
    let mut machine = live();
    let change = [put("b", 11, true)];
    assert_eq!(machine.step(secs(1), events(&change)), [Command::Apply { revision: 11, events: change.to_vec() }]);
    let commands = machine.step(secs(2), fault(FaultKind::Broken));
    assert_eq!(commands[..2], [Command::Close, Command::Disconnected("it broke".into())]);
    machine.step(secs(3), Input::Woke);
    assert_eq!(machine.step(secs(3), connected(500)), [Command::Watch { from: 12 }]);
}

#[test]
fn what_was_applied_is_not_applied_again() {
    let mut machine = live();
    machine.step(secs(1), events(&[put("a", 12, false)]));
    assert_eq!(machine.step(secs(1), events(&[put("a", 11, false), put("a", 12, false)])), []);
    let newer = put("b", 13, true);
    assert_eq!(
        machine.step(secs(1), events(&[put("a", 12, false), newer.clone()])),
        [Command::Apply { revision: 13, events: vec![newer] }]
    );
}

#[test]
fn a_revision_in_fragments_is_published_whole() {
    let mut machine = live();
    let (one, two) = (put("a", 11, false), put("b", 11, true));
    assert_eq!(machine.step(secs(1), fragment(std::slice::from_ref(&one))), []);
    assert_eq!(
        machine.step(secs(1), events(std::slice::from_ref(&two))),
        [Command::Apply { revision: 11, events: vec![one, two] }]
    );
}

#[test]
fn half_a_revision_is_forgotten_with_its_connection() {
    let mut machine = live();
    machine.step(secs(1), fragment(&[put("a", 11, false)]));
    machine.step(secs(1), fault(FaultKind::Broken));
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(11)), [Command::Watch { from: 11 }]);
}

#[test]
fn a_proof_does_not_pass_by_half_a_revision() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), fragment(&[delete("a", 11)]));
    // `a` was deleted and something else created: the counts agree by chance.
    assert_eq!(machine.step(secs(10), proof(10, 11, false, 1)), []);
    let rest = put("b", 11, true);
    assert_eq!(
        machine.step(secs(10), events(std::slice::from_ref(&rest))),
        [
            Command::Apply { revision: 11, events: vec![delete("a", 11), rest] },
            // Now that it is whole, what is published is what the proof saw.
            Command::Proven { asked: secs(10) }
        ]
    );
}

#[test]
fn each_revision_is_published_by_itself() {
    let mut machine = live();
    let (one, two, three) = (put("a", 11, false), put("b", 12, true), put("c", 12, true));
    assert_eq!(
        machine.step(secs(1), events(&[one.clone(), two.clone(), three.clone()])),
        [Command::Apply { revision: 11, events: vec![one] }, Command::Apply { revision: 12, events: vec![two, three] }]
    );
}

#[test]
fn of_a_fragment_the_complete_revisions_are_published() {
    let mut machine = live();
    let (one, two, three) = (put("a", 11, false), put("b", 12, true), put("c", 12, true));
    assert_eq!(
        machine.step(secs(1), fragment(&[one.clone(), two.clone()])),
        [Command::Apply { revision: 11, events: vec![one] }]
    );
    assert_eq!(
        machine.step(secs(1), events(std::slice::from_ref(&three))),
        [Command::Apply { revision: 12, events: vec![two, three] }]
    );
}

#[test]
fn events_out_of_order_are_not_believed() {
    let mut machine = live();
    let commands = machine.step(secs(1), events(&[put("a", 13, false), put("b", 12, true)]));
    assert!(matches!(&commands[..], [Command::Close, Command::Disconnected(_), Command::Wait(_)]), "{commands:?}");
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(20))[0], Command::Begin);
}

#[test]
fn a_compacted_watch_reads_everything_again() {
    for input in [canceled(99), fault(FaultKind::Compacted), fault(FaultKind::TooLarge)] {
        let mut machine = live();
        let commands = machine.step(secs(1), input);
        assert!(wait_of(&commands) <= MIN_BACKOFF);
        machine.step(secs(2), Input::Woke);
        assert_eq!(machine.step(secs(2), connected(100))[0], Command::Begin);
    }
}

#[test]
fn a_refused_watch_is_opened_again_on_a_new_connection() {
    let mut machine = live();
    assert_eq!(machine.step(secs(1), canceled(0))[0], Command::Close);
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(10)), [Command::Watch { from: 11 }]);
    assert_eq!(machine.step(secs(2), fault(FaultKind::Broken))[0], Command::Close);
}

#[test]
fn a_list_that_is_compacted_begins_again_and_not_for_ever() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    for _ in 0..3 {
        machine.step(secs(0), page(10, 2, &[entry("a", 5)], true));
        let commands = machine.step(secs(0), fault(FaultKind::Compacted));
        assert_eq!(commands, [Command::Begin, Command::List { at: None, after: None, limit: PAGE }]);
    }
    machine.step(secs(0), page(10, 2, &[entry("a", 5)], true));
    assert_eq!(machine.step(secs(0), fault(FaultKind::Compacted))[0], Command::Close);
}

#[test]
fn pages_that_are_too_large_shrink_down_to_one_key() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    let mut commands = machine.step(secs(0), connected(10));
    let mut limits = Vec::new();
    while let Some(Command::List { limit, .. }) = commands.last() {
        limits.push(*limit);
        commands = machine.step(secs(0), fault(FaultKind::TooLarge));
    }
    assert_eq!((limits[0], limits[1], limits.last()), (PAGE, PAGE / 2, Some(&1)));
    assert_eq!(commands[0], Command::Close);
}

#[test]
fn a_history_that_went_back_is_taken_over() {
    for (cluster, revision) in [(CLUSTER, 9), (CLUSTER + 1, 500)] {
        let mut machine = live();
        machine.step(secs(1), fault(FaultKind::Broken));
        machine.step(secs(2), Input::Woke);
        let commands = machine.step(secs(2), Input::Connected { cluster, revision });
        assert_eq!(commands[0], Command::Begin, "{cluster} {revision}");
    }
}

#[test]
fn a_proof_of_another_history_ends_the_connection() {
    for (cluster, revision) in [(CLUSTER, 9), (CLUSTER + 1, 10)] {
        let mut machine = live();
        assert!(machine.step(secs(10), Input::Tick).contains(&Command::Prove { after: 10 }));
        let proof = Proof { revision, changed: false, total: 1, after: 10, cluster };
        assert_eq!(machine.step(secs(10), Input::Proof(proof))[0], Command::Close);
        machine.step(secs(11), Input::Woke);
        let commands = machine.step(secs(11), Input::Connected { cluster, revision });
        assert_eq!(commands[0], Command::Begin);
    }
}

#[test]
fn the_endpoints_take_turns() {
    let mut machine = Machine::new(3, 5);
    let mut commands = machine.step(secs(0), Input::Start);
    let mut asked = Vec::new();
    for _ in 0..6 {
        let [Command::Connect(endpoint)] = commands[..] else { panic!("{commands:?}") };
        asked.push(endpoint);
        machine.step(secs(0), fault(FaultKind::Broken));
        commands = machine.step(secs(0), Input::Woke);
    }
    assert_eq!(asked[..3], asked[3..]);
    asked.truncate(3);
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2]);
}

#[test]
fn waits_grow_up_to_a_bound_and_are_never_nothing() {
    let mut longest = Duration::ZERO;
    for seed in 0..50 {
        let mut machine = Machine::new(1, seed);
        machine.step(secs(0), Input::Start);
        for failure in 0..40 {
            let wait = wait_of(&machine.step(secs(0), fault(FaultKind::Broken)));
            assert!(wait >= LEAST_WAIT && wait <= MAX_BACKOFF);
            assert!(failure > 0 || wait <= MIN_BACKOFF);
            longest = longest.max(wait);
            machine.step(secs(0), Input::Woke);
        }
    }
    assert!(longest > MAX_BACKOFF / 2);
}

#[test]
fn only_a_connection_that_held_makes_the_next_wait_short() {
    let mut machine = live();
    machine.failures = 10;
    machine.step(secs(5), fault(FaultKind::Broken));
    assert_eq!(machine.failures, 11);

    let mut machine = live();
    machine.failures = 10;
    machine.step(GOOD_FOR, fault(FaultKind::Broken));
    assert_eq!(machine.failures, 1);
}

#[test]
fn silence_is_doubted_and_settled_by_a_proof() {
    let mut machine = live();
    machine.step(secs(9), events(&[put("a", 11, false)]));
    assert_eq!(machine.step(secs(10), Input::Tick), [Command::AskProgress, Command::Prove { after: 11 }]);
    assert_eq!(machine.step(secs(10), proof(11, 11, false, 1)), [Command::Proven { asked: secs(10) }]);
    // Nothing at all, not even the answer to the next proof.
    assert_eq!(machine.step(secs(20), Input::Tick), [Command::AskProgress, Command::Prove { after: 11 }]);
    assert_eq!(machine.step(secs(23), Input::Tick), [Command::Stale]);
    assert_eq!(machine.step(secs(24), proof(11, 11, false, 1)), [Command::Proven { asked: secs(20) }, Command::Live]);
}

#[test]
fn a_change_that_the_watch_never_brings_is_found() {
    let mut machine = live();
    let mut now = secs(10);
    for _ in 1..DOUBTS {
        assert!(machine.step(now, Input::Tick).contains(&Command::Prove { after: 10 }));
        assert_eq!(machine.step(now, proof(10, 12, true, 1)), []);
        now += PROVE_AGAIN;
    }
    machine.step(now, Input::Tick);
    let commands = machine.step(now, proof(10, 12, true, 1));
    assert!(matches!(&commands[..], [Command::Close, Command::Disconnected(_), Command::Wait(_)]), "{commands:?}");
    machine.step(now, Input::Woke);
    assert_eq!(machine.step(now, connected(12))[0], Command::Begin);
}

#[test]
fn a_lost_deletion_shows_in_the_count() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), proof(10, 12, false, 0));
    assert!(machine.step(secs(10) + PROVE_AGAIN, Input::Tick).contains(&Command::Prove { after: 10 }));
}

#[test]
fn events_on_their_way_are_no_doubt() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), events(&[put("b", 11, true)]));
    // They have come up to where the proof was made.
    assert_eq!(machine.step(secs(10), proof(10, 11, true, 2)), [Command::Proven { asked: secs(10) }]);

    machine.step(secs(20), Input::Tick);
    machine.step(secs(20), events(&[put("b", 12, false)]));
    // They have not, and do a moment later.
    assert_eq!(machine.step(secs(20), proof(11, 13, true, 2)), []);
    let last = put("a", 13, false);
    assert_eq!(
        machine.step(secs(20), events(std::slice::from_ref(&last))),
        [Command::Apply { revision: 13, events: vec![last] }, Command::Proven { asked: secs(20) }]
    );
}

#[test]
fn events_alone_can_show_that_it_is_live() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    machine.step(secs(0), page(10, 1, &[entry("a", 5)], false));
    assert_eq!(machine.step(secs(0), Input::Opened { revision: 12 }), [Command::Prove { after: 10 }]);
    machine.step(secs(1), events(&[put("a", 11, false)]));
    let commands = machine.step(secs(1), events(&[put("a", 12, false)]));
    assert_eq!(commands.last(), Some(&Command::Live));
}

#[test]
fn a_list_that_fails_after_the_history_went_back_is_not_passed_over() {
    let mut machine = live();
    machine.step(secs(1), fault(FaultKind::Broken));
    machine.step(secs(2), Input::Woke);
    let other = |revision| Input::Connected { cluster: CLUSTER + 1, revision };
    assert_eq!(machine.step(secs(2), other(3))[0], Command::Begin);
    machine.step(secs(3), fault(FaultKind::Broken));
    machine.step(secs(4), Input::Woke);
    // The other history has passed ours meanwhile.
    assert_eq!(machine.step(secs(4), other(500))[0], Command::Begin);
}

#[test]
fn pages_that_are_too_slow_shrink_for_the_next_endpoint() {
    let mut machine = Machine::new(2, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    assert_eq!(machine.step(secs(10), fault(FaultKind::TooSlow))[0], Command::Close);
    machine.step(secs(11), Input::Woke);
    let commands = machine.step(secs(11), connected(10));
    assert_eq!(commands[1], Command::List { at: None, after: None, limit: PAGE / 2 });
}

#[test]
fn answers_of_before_a_break_say_nothing() {
    for input in [
        page(1, 0, &[], false),
        Input::Opened { revision: 1 },
        events(&[put("a", 1, false)]),
        proof(1, 1, false, 0),
        Input::Tick,
    ] {
        let mut machine = live();
        machine.step(secs(1), fault(FaultKind::Broken));
        assert_eq!(machine.step(secs(2), input), []);
    }
}

/// What a scripted etcd does between the machine's questions.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    /// Deliver the next so many pending events to the watch.
    Deliver(usize),
    Break,
    Compact,
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..5).prop_map(Step::Put),
        2 => (0_u8..5).prop_map(Step::Delete),
        4 => (1_usize..4).prop_map(Step::Deliver),
        1 => Just(Step::Break),
        1 => Just(Step::Compact),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec(step, 0..60)
}

/// A tiny etcd: its history, what is compacted, and where the open watch has got to.
#[derive(Default)]
struct Etcd {
    history: Vec<Event>,
    live: BTreeMap<Vec<u8>, Entry>,
    compacted: Revision,
    watch: Option<Revision>,
}

impl Etcd {
    fn revision(&self) -> Revision {
        1 + self.history.len() as Revision
    }

    fn change(&mut self, key: u8, put_it: bool) {
        let name = format!("k{key}");
        let revision = self.revision() + 1;
        let known = self.live.contains_key(name.as_bytes());
        if put_it {
            self.history.push(put(&name, revision, !known));
            self.live.insert(name.clone().into(), entry(&name, revision));
        } else if known {
            self.history.push(delete(&name, revision));
            self.live.remove(name.as_bytes());
        }
    }

    fn since(&self, revision: Revision) -> &[Event] {
        let from = self.history.partition_point(|event| event.revision < revision);
        &self.history[from..]
    }
}

/// What the commands have published.
#[derive(Default)]
struct Published {
    draft: BTreeMap<Vec<u8>, Bytes>,
    keys: BTreeMap<Vec<u8>, Bytes>,
    revision: Revision,
}

fn carry_out(etcd: &mut Etcd, published: &mut Published, command: Command) -> Option<Input> {
    match command {
        Command::Connect(_) => return Some(connected(etcd.revision())),
        Command::List { at: None, .. } => {
            let entries: Vec<_> = etcd.live.values().cloned().collect();
            return Some(page(etcd.revision(), entries.len() as i64, &entries, false));
        }
        Command::List { .. } => unreachable!("every list fits one page"),
        Command::Watch { from } if from <= etcd.compacted => return Some(fault(FaultKind::Compacted)),
        Command::Watch { from } => {
            etcd.watch = Some(from);
            return Some(Input::Opened { revision: etcd.revision() });
        }
        Command::Prove { after } => {
            let changed = etcd.live.values().any(|entry| entry.revision > after);
            return Some(proof(after, etcd.revision(), changed, etcd.live.len() as i64));
        }
        Command::Wait(_) => return Some(Input::Woke),
        Command::Close => etcd.watch = None,
        Command::Begin => {
            etcd.watch = None;
            published.draft.clear();
        }
        Command::Bring(entries) => published.draft.extend(entries.into_iter().map(|entry| (entry.key, entry.value))),
        Command::Commit(revision) => {
            published.keys = std::mem::take(&mut published.draft);
            published.revision = revision;
        }
        Command::Apply { revision, events } => {
            assert!(revision > published.revision);
            for event in events {
                assert!(event.revision > published.revision);
                match event.value {
                    Some(value) => published.keys.insert(event.key, value),
                    None => published.keys.remove(&event.key),
                };
            }
            published.revision = revision;
        }
        Command::Advance(revision) => {
            assert!(revision > published.revision);
            published.revision = revision;
        }
        _ => {}
    }
    None
}

/// The state of `etcd` at `revision`, from its history.
fn state_at(etcd: &Etcd, revision: Revision) -> BTreeMap<Vec<u8>, Bytes> {
    let mut state = BTreeMap::new();
    for event in etcd.history.iter().filter(|event| event.revision <= revision) {
        match &event.value {
            Some(value) => state.insert(event.key.clone(), value.clone()),
            None => state.remove(&event.key),
        };
    }
    state
}

proptest! {
    /// Whatever happens, what is published is what etcd held at the revision that is told; and once nothing more
    /// happens, it is what etcd holds.
    #[test]
    fn what_is_published_is_true_of_its_revision(steps in steps(), seed in any::<u64>()) {
        let (mut etcd, mut published) = (Etcd::default(), Published::default());
        let mut machine = Machine::new(1, seed);
        let mut now = secs(0);
        let settle = |machine: &mut Machine, etcd: &mut Etcd, published: &mut Published, now: Time, input: Input| {
            let mut inputs = vec![input];
            while let Some(input) = inputs.pop() {
                for command in machine.step(now, input) {
                    inputs.extend(carry_out(etcd, published, command));
                }
                assert_eq!(published.keys, state_at(etcd, published.revision));
            }
        };
        settle(&mut machine, &mut etcd, &mut published, now, Input::Start);
        let rest = [Step::Break, Step::Tick].into_iter().chain(vec![Step::Deliver(100), Step::Tick]);
        for step in steps.into_iter().chain(rest) {
            now += secs(11);
            let input = match step {
                Step::Put(key) => { etcd.change(key, true); continue }
                Step::Delete(key) => { etcd.change(key, false); continue }
                Step::Compact => { etcd.compacted = etcd.revision(); continue }
                Step::Break => fault(FaultKind::Broken),
                Step::Tick => Input::Tick,
                Step::Deliver(count) => {
                    let Some(from) = etcd.watch else { continue };
                    let batch: Vec<_> = etcd.since(from).iter().take(count).cloned().collect();
                    let Some(last) = batch.last() else { continue };
                    etcd.watch = Some(last.revision + 1);
                    events(&batch)
                }
            };
            settle(&mut machine, &mut etcd, &mut published, now, input);
        }
        let all: BTreeMap<_, _> = etcd.live.values().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        prop_assert_eq!(published.keys, all);
    }
}
