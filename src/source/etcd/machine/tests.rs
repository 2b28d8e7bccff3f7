use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::audit::FIRST_PAGE;
use super::listing::PAGE;
use super::pace::{DOUBTS, PROVE_AGAIN};
use super::tally::MISSES;
use super::*;

mod late;

const CLUSTER: u64 = 7;
const TERM: u64 = 3;

fn secs(secs: u64) -> Time {
    Duration::from_secs(secs)
}

fn at(revision: Revision) -> Header {
    Header { cluster: CLUSTER, term: TERM, revision }
}

fn entry(key: &str, revision: Revision) -> Entry {
    let meta = Meta { version: 1, created: revision, modified: revision };
    Entry { key: key.into(), value: Bytes::from(format!("{key}@{revision}")), meta }
}

pub(super) fn put(key: &str, revision: Revision, version: i64, created: Revision) -> Event {
    let value = Bytes::from(format!("{key}@{revision}"));
    Event { key: key.into(), revision, put: Some(Put { value, version, created }) }
}

/// The first put of a key.
fn new(key: &str, revision: Revision) -> Event {
    put(key, revision, 1, revision)
}

/// A put of the key in [`live`]'s list, the `n`th after its creation.
fn again(revision: Revision, n: i64) -> Event {
    put("a", revision, 1 + n, 5)
}

pub(super) fn delete(key: &str, revision: Revision) -> Event {
    Event { key: key.into(), revision, put: None }
}

fn events(events: &[Event]) -> Input {
    Input::Message(Message { events: events.to_vec(), ..Message::default() })
}

fn fragment(events: &[Event]) -> Input {
    Input::Message(Message { events: events.to_vec(), fragment: true, ..Message::default() })
}

fn broken(kind: ErrorKind) -> Fault {
    Fault { kind, reason: "it broke".into() }
}

fn canceled(kind: ErrorKind) -> Input {
    Input::Message(Message { canceled: Some(broken(kind)), ..Message::default() })
}

fn fault(kind: ErrorKind) -> Input {
    Input::Fault(broken(kind))
}

fn page(revision: Revision, entries: &[Entry], more: bool) -> Input {
    Input::Page(Page { header: at(revision), entries: entries.to_vec(), more })
}

fn prove(since: Revision, after: Revision) -> Command {
    Command::Prove { since, after }
}

/// `changed` if the proof names a key that was the last to change.
fn proof(after: Revision, revision: Revision, changed: bool, total: i64) -> Input {
    let changed: &[(&str, Revision)] = if changed { &[("z", revision)] } else { &[] };
    proof_of(after, revision, changed, total)
}

/// A proof that names keys, each with the revision that changed it.
fn proof_of(after: Revision, revision: Revision, changed: &[(&str, Revision)], total: i64) -> Input {
    let changed = changed.iter().map(|&(key, modified)| (key.into(), Meta { version: 9, created: 5, modified }));
    let changed = changed.collect();
    Input::Proof(Proof { header: at(revision), changed, more: false, total, since: after, after })
}

fn look(after: Revision, revision: Revision, total: i64) -> Input {
    Input::Looked(Look { header: at(revision), total, after })
}

fn known(entry: &Entry) -> Known {
    Known::new(entry.meta, &entry.value)
}

/// A page of the audit.
fn audited(entries: &[Entry], more: bool) -> Input {
    let keys = entries.iter().map(|entry| (entry.key.clone(), known(entry)));
    Input::Audited(AuditPage::Keys { keys: keys.collect(), bytes: 9, more })
}

/// The first question of an audit.
fn audit(at: Revision) -> Command {
    Command::Audit { at, after: None, limit: FIRST_PAGE }
}

fn connected(revision: Revision) -> Input {
    Input::Connected(at(revision), Past::Unknown)
}

/// A machine that follows a cluster with one key, `a`, at revision 10.
fn live() -> Machine {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    machine.step(secs(0), page(10, &[entry("a", 5)], false));
    assert_eq!(machine.step(secs(0), Input::Opened { revision: 10 }), [Command::Live]);
    machine
}

/// Disconnects the machine and connects it again, to a linearizable read with this header.
fn reconnect(machine: &mut Machine, now: Time, header: Header) -> Vec<Command> {
    machine.step(now, fault(ErrorKind::Unreachable));
    machine.step(now, Input::Woke);
    machine.step(now, Input::Connected(header, Past::Unknown))
}

fn is_closing(commands: &[Command], kind: ErrorKind) -> bool {
    matches!(commands, [Command::Close, Command::Disconnected(fault), Command::Wait(_)] if fault.kind == kind)
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
    assert_eq!(machine.step(secs(0), Input::Start), [Command::Connect { endpoint: 0, memory: None }]);
    assert_eq!(
        machine.step(secs(1), connected(10)),
        [Command::Begin(ListReason::Start), Command::List { at: None, after: None, limit: PAGE }]
    );
    assert_eq!(
        machine.step(secs(2), page(10, &[entry("a", 5)], true)),
        [
            Command::List { at: Some(10), after: Some(b"a".to_vec()), limit: 2 * PAGE },
            Command::Bring(vec![entry("a", 5)])
        ]
    );
    assert_eq!(
        // The header of a later page has a newer revision than the page itself.
        machine.step(secs(3), page(12, &[entry("b", 6)], false)),
        [
            Command::Bring(vec![entry("b", 6)]),
            Command::Commit(at(10)),
            Command::Proven { asked: secs(1) },
            Command::Watch { from: 11 }
        ]
    );
    assert_eq!(machine.step(secs(3), Input::Opened { revision: 10 }), [Command::Live]);
}

#[test]
fn an_empty_prefix_is_a_valid_configuration() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(1));
    let commands = machine.step(secs(0), page(1, &[], false));
    assert!(commands.contains(&Command::Commit(at(1))), "{commands:?}");
}

#[test]
fn a_watch_that_is_behind_etcd_is_live_only_after_a_proof() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    machine.step(secs(0), page(10, &[entry("a", 5)], false));
    assert_eq!(machine.step(secs(1), Input::Opened { revision: 20 }), [prove(10, 10)]);
    assert_eq!(
        machine.step(secs(2), proof(10, 20, false, 1)),
        [Command::Advance(20), Command::Proven { asked: secs(1) }, Command::Live]
    );
}

#[test]
fn events_are_published_and_the_watch_resumes_after_them() {
    let mut machine = live();
    let change = [new("b", 11)];
    assert_eq!(machine.step(secs(1), events(&change)), [Command::Apply { revision: 11, events: change.to_vec() }]);
    let commands = machine.step(secs(2), fault(ErrorKind::Unreachable));
    assert_eq!(commands[..2], [Command::Close, Command::Disconnected(broken(ErrorKind::Unreachable))]);
    machine.step(secs(3), Input::Woke);
    assert_eq!(machine.step(secs(3), connected(500)), [Command::Watch { from: 12 }]);
}

#[test]
fn an_applied_event_is_not_applied_again() {
    let mut machine = live();
    machine.step(secs(1), events(&[again(11, 1), again(12, 2)]));
    assert_eq!(machine.step(secs(1), events(&[again(11, 1), again(12, 2)])), []);
    let newer = new("b", 13);
    assert_eq!(
        machine.step(secs(1), events(&[again(12, 2), newer.clone()])),
        [Command::Apply { revision: 13, events: vec![newer] }]
    );
}

#[test]
fn a_revision_in_fragments_is_published_whole() {
    let mut machine = live();
    let (one, two) = (again(11, 1), new("b", 11));
    assert_eq!(machine.step(secs(1), fragment(std::slice::from_ref(&one))), []);
    assert_eq!(
        machine.step(secs(1), events(std::slice::from_ref(&two))),
        [Command::Apply { revision: 11, events: vec![one, two] }]
    );
}

#[test]
fn an_incomplete_revision_is_forgotten_with_its_connection() {
    let mut machine = live();
    machine.step(secs(1), fragment(&[again(11, 1)]));
    machine.step(secs(1), fault(ErrorKind::Unreachable));
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(11)), [Command::Watch { from: 11 }]);
}

#[test]
fn a_proof_waits_for_an_incomplete_revision() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), fragment(&[delete("a", 11)]));
    // `a` was deleted and something else created: the counts agree by chance.
    assert_eq!(machine.step(secs(10), proof(10, 11, false, 1)), []);
    let rest = new("b", 11);
    assert_eq!(
        machine.step(secs(10), events(std::slice::from_ref(&rest))),
        [
            Command::Apply { revision: 11, events: vec![delete("a", 11), rest] },
            // Now that the revision is complete, the published state is the one that the proof saw.
            Command::Proven { asked: secs(10) }
        ]
    );
}

#[test]
fn each_revision_is_published_separately() {
    let mut machine = live();
    let (one, two, three) = (again(11, 1), new("b", 12), new("c", 12));
    assert_eq!(
        machine.step(secs(1), events(&[one.clone(), two.clone(), three.clone()])),
        [Command::Apply { revision: 11, events: vec![one] }, Command::Apply { revision: 12, events: vec![two, three] }]
    );
}

#[test]
fn the_complete_revisions_of_a_fragment_are_published() {
    let mut machine = live();
    let (one, two, three) = (again(11, 1), new("b", 12), new("c", 12));
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
fn events_out_of_order_are_an_error() {
    let mut machine = live();
    let commands = machine.step(secs(1), events(&[again(13, 1), new("b", 12)]));
    assert!(is_closing(&commands, ErrorKind::Protocol), "{commands:?}");
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(20))[0], Command::Begin(ListReason::LostEvents));
}

#[test]
fn an_event_that_does_not_follow_is_not_published() {
    for wrong in [again(12, 7), new("a", 12), delete("b", 12), put("b", 12, 2, 11)] {
        let mut machine = live();
        let commands = machine.step(secs(1), events(&[again(11, 1), wrong]));
        assert!(is_closing(&commands, ErrorKind::LostEvents), "{commands:?}");
        machine.step(secs(2), Input::Woke);
        assert_eq!(machine.step(secs(2), connected(20))[0], Command::Begin(ListReason::LostEvents));
    }
}

#[test]
fn a_compacted_watch_reads_everything_again() {
    for (kind, reason) in [(ErrorKind::Compacted, ListReason::Compacted), (ErrorKind::TooLarge, ListReason::TooLarge)] {
        for input in [canceled(kind), fault(kind)] {
            let mut machine = live();
            machine.step(secs(1), input);
            machine.step(secs(2), Input::Woke);
            assert_eq!(machine.step(secs(2), connected(100))[0], Command::Begin(reason));
        }
    }
}

#[test]
fn receivers_that_must_list_at_the_same_time_spread_out() {
    let waits = |input: fn() -> Input| -> Vec<_> {
        let wait = |seed| {
            let mut machine = live();
            machine.random = fastrand::Rng::with_seed(seed);
            wait_of(&machine.step(secs(1), input()))
        };
        (0..100).map(wait).collect()
    };
    let lost = || events(&[again(12, 7)]);
    for input in [|| canceled(ErrorKind::Compacted), || fault(ErrorKind::TooLarge), lost] {
        let waits = waits(input);
        let quarters = [0, 1, 2, 3].map(|n| waits.iter().filter(|wait| wait.as_millis() / 500 == n).count());
        assert!(quarters.iter().all(|count| *count > 10), "{quarters:?}");
        assert!(waits.iter().all(|wait| *wait <= SPREAD + Duration::from_millis(100)));
    }
    // An error of one connection is retried at once, and there was no list.
    assert!(waits(|| fault(ErrorKind::Unreachable)).iter().all(|wait| *wait <= Duration::from_millis(100)));
}

#[test]
fn a_connection_to_an_unchanged_etcd_is_a_proof() {
    let again = |revision, past| {
        let mut machine = live();
        machine.step(secs(20), fault(ErrorKind::Unreachable));
        machine.step(secs(21), Input::Woke);
        let commands = machine.step(secs(23), Input::Connected(at(revision), past));
        (machine, commands)
    };
    let known = Past::Known { keys: 1, changed: Some((b"a".to_vec(), entry("a", 5).meta)) };
    let watch = Command::Watch { from: 11 };
    let (mut machine, commands) = again(10, known.clone());
    assert_eq!(commands, [watch]);
    assert_eq!(machine.step(secs(24), Input::Opened { revision: 10 }), [Command::Live, audit(10)]);
    // The proof dates from the start of the connection, which is before the read was sent; and it waits for the values.
    let held = [Command::AuditHeld, Command::Proven { asked: secs(21) }];
    assert_eq!(machine.step(secs(25), audited(&[entry("a", 5)], false)), held);
    // The change was outside of the prefix, or not: nothing is reported before the proof.
    let (mut machine, commands) = again(12, known);
    assert_eq!(commands, [Command::Watch { from: 11 }]);
    assert_eq!(machine.step(secs(24), Input::Opened { revision: 12 }), [prove(10, 10)]);
    // The number of keys was not reported.
    assert_eq!(again(10, Past::Unknown).1, [Command::Watch { from: 11 }]);
}

#[test]
fn a_watch_of_a_member_that_is_behind_is_not_live() {
    let mut machine = live();
    reconnect(&mut machine, secs(1), at(12));
    assert_eq!(machine.step(secs(1), Input::Opened { revision: 10 }), [prove(10, 10)]);
    assert_eq!(machine.step(secs(1), events(&[again(11, 1)])).len(), 1);
    assert_eq!(machine.step(secs(1), events(&[again(12, 2)])).last(), Some(&Command::Live));
}

#[test]
fn a_reader_that_asks_before_the_watch_is_open_gets_a_proof() {
    for wanted_at in 0..3 {
        let mut machine = live();
        machine.step(secs(1), fault(ErrorKind::Unreachable));
        let rest = [Input::Woke, connected(10), Input::Opened { revision: 10 }];
        let mut commands = Vec::new();
        for (n, input) in rest.into_iter().enumerate() {
            if n == wanted_at {
                assert_eq!(machine.step(secs(2), Input::Wanted), []);
            }
            commands = machine.step(secs(2), input);
        }
        assert_eq!(commands, [Command::Live, Command::Look { after: 10 }]);
        assert_eq!(machine.step(secs(2), look(10, 10, 1)), [audit(10)]);
        let held = [Command::AuditHeld, Command::Proven { asked: secs(2) }];
        assert_eq!(machine.step(secs(2), audited(&[entry("a", 5)], false)), held);
        // The request is answered only once.
        reconnect(&mut machine, secs(3), at(10));
        assert_eq!(machine.step(secs(3), Input::Opened { revision: 10 }), [Command::Live, audit(10)]);
    }
}

#[test]
fn a_refused_watch_is_opened_again_on_a_new_connection() {
    let mut machine = live();
    assert!(is_closing(&machine.step(secs(1), canceled(ErrorKind::PermissionDenied)), ErrorKind::PermissionDenied));
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(10)), [Command::Watch { from: 11 }]);
    assert!(is_closing(&machine.step(secs(2), fault(ErrorKind::Unreachable)), ErrorKind::Unreachable));
}

#[test]
fn a_compacted_list_starts_again_a_limited_number_of_times() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    for _ in 0..3 {
        machine.step(secs(0), page(10, &[entry("a", 5)], true));
        let commands = machine.step(secs(0), fault(ErrorKind::Compacted));
        assert_eq!(commands, [Command::Begin(ListReason::Start), Command::List { at: None, after: None, limit: PAGE }]);
    }
    machine.step(secs(0), page(10, &[entry("a", 5)], true));
    assert_eq!(machine.step(secs(0), fault(ErrorKind::Compacted))[0], Command::Close);
}

#[test]
fn pages_that_are_too_large_shrink_down_to_one_key() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    let mut commands = machine.step(secs(0), connected(10));
    let mut limits = Vec::new();
    while let Some(Command::List { limit, .. }) = commands.last() {
        limits.push(*limit);
        commands = machine.step(secs(0), fault(ErrorKind::TooLarge));
    }
    assert_eq!((limits[0], limits[1], limits.last()), (PAGE, PAGE / 2, Some(&1)));
    assert_eq!(commands[0], Command::Close);
}

#[test]
fn pages_with_few_bytes_grow_up_to_a_limit() {
    let limits = |most: i64, bytes: usize| {
        let mut machine = Machine::new(1, 1);
        machine.page = most;
        machine.step(secs(0), Input::Start);
        let mut commands = machine.step(secs(0), connected(10));
        let mut limits = Vec::new();
        let limit = |commands: &[Command]| match commands {
            [Command::Begin(_), Command::List { limit, .. }] | [Command::List { limit, .. }, Command::Bring(_)] => {
                *limit
            }
            other => panic!("no page is asked for: {other:?}"),
        };
        for _ in 0..8 {
            limits.push(limit(&commands));
            let value = Bytes::from(vec![b'x'; bytes]);
            commands = machine.step(secs(0), page(10, &[Entry { value, ..entry("a", 5) }], true));
        }
        limits
    };
    assert_eq!(limits(LARGEST_PAGE, 1000), [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 64_000]);
    assert_eq!(limits(3000, 1000), [1000, 2000, 3000, 3000, 3000, 3000, 3000, 3000]);
    assert_eq!(limits(500, 1000), [500; 8]);
    assert_eq!(limits(LARGEST_PAGE, 8 << 20), [1000; 8]);
}

#[test]
fn a_page_size_that_was_too_large_is_not_used_again() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    for _ in 0..3 {
        machine.step(secs(0), page(10, &[entry("a", 5)], true));
    }
    machine.step(secs(0), fault(ErrorKind::TooLarge));
    for _ in 0..5 {
        let commands = machine.step(secs(0), page(10, &[entry("a", 5)], true));
        assert!(matches!(commands[0], Command::List { limit: ..=4000, .. }), "{commands:?}");
    }
}

/// Headers that cannot follow [`live`]'s.
fn other_histories() -> [Header; 3] {
    [
        Header { revision: 9, ..at(0) },
        Header { cluster: CLUSTER + 1, revision: 500, ..at(0) },
        Header { term: TERM - 1, revision: 500, ..at(0) },
    ]
}

#[test]
fn another_history_must_be_seen_twice_and_is_then_taken_over() {
    for header in other_histories() {
        let mut machine = live();
        let commands = reconnect(&mut machine, secs(1), header);
        assert!(is_closing(&commands, ErrorKind::HistoryChanged) && wait_of(&commands) == LOOK_AGAIN, "{commands:?}");
        machine.step(secs(2), Input::Woke);
        let commands = machine.step(secs(2), Input::Connected(header, Past::Unknown));
        assert_eq!(commands[0], Command::Begin(ListReason::HistoryChanged));
        let list = Page { header, entries: vec![entry("b", 2)], more: false };
        assert_eq!(
            machine.step(secs(3), Input::Page(list)),
            [
                Command::Bring(vec![entry("b", 2)]),
                Command::NewEpoch,
                Command::Commit(header),
                Command::Proven { asked: secs(2) },
                Command::Watch { from: header.revision + 1 }
            ]
        );
    }
}

#[test]
fn a_past_that_disagrees_with_the_index_is_another_history() {
    let known =
        |keys, changed: Option<Entry>| Past::Known { keys, changed: changed.map(|entry| (entry.key, entry.meta)) };
    let again = |past: &Past| {
        let mut machine = live();
        machine.step(secs(1), fault(ErrorKind::Unreachable));
        let connect = machine.step(secs(1), Input::Woke);
        assert_eq!(connect, [Command::Connect { endpoint: 0, memory: Some(Memory { at: 10, newest: 5, keys: 1 }) }]);
        let commands = machine.step(secs(1), Input::Connected(at(500), past.clone()));
        (machine, commands)
    };
    for past in [Past::Unknown, known(1, Some(entry("a", 5)))] {
        assert_eq!(again(&past).1, [Command::Watch { from: 11 }]);
    }
    for past in
        [known(0, None), known(2, Some(entry("a", 5))), known(1, Some(entry("b", 5))), known(1, Some(entry("a", 6)))]
    {
        let (mut machine, commands) = again(&past);
        assert!(is_closing(&commands, ErrorKind::HistoryChanged), "{past:?}");
        machine.step(secs(2), Input::Woke);
        let commands = machine.step(secs(2), Input::Connected(at(500), past));
        assert_eq!(commands[0], Command::Begin(ListReason::HistoryChanged));
        let commands = machine.step(secs(2), page(500, &[entry("b", 6)], false));
        assert_eq!(commands[1], Command::NewEpoch);
    }
}

#[test]
fn a_lost_change_causes_a_list_and_is_not_another_history() {
    let doubted = |machine: &mut Machine| {
        for n in 0..u64::from(DOUBTS) {
            machine.step(secs(10 * n + 10), Input::Tick);
            machine.step(secs(10 * n + 10), proof(10, 12, true, 1));
        }
    };
    let unfollowed = |machine: &mut Machine| drop(machine.step(secs(1), events(&[delete("a", 11), delete("b", 12)])));
    // etcd's view of revision 10: `a` as it was known, which the event has removed, and another key, which was missed.
    let known = Past::Known { keys: 2, changed: Some((b"a".to_vec(), entry("a", 5).meta)) };
    for lose in [&doubted as &dyn Fn(&mut Machine), &unfollowed] {
        for past in [Past::Unknown, known.clone()] {
            let mut machine = live();
            lose(&mut machine);
            assert_eq!(machine.must_list, Some(ListReason::LostEvents));
            machine.step(secs(60), Input::Woke);
            let commands = machine.step(secs(61), Input::Connected(at(12), past));
            assert_eq!(commands[0], Command::Begin(ListReason::LostEvents));
            let commands = machine.step(secs(61), page(12, &[entry("b", 6)], false));
            assert!(!commands.contains(&Command::NewEpoch), "{commands:?}");
        }
    }
    // Other evidence of another history still counts.
    let others = other_histories().map(|header| (header, Past::Unknown));
    for (header, past) in others.into_iter().chain([(at(12), Past::Future)]) {
        let mut machine = live();
        unfollowed(&mut machine);
        machine.step(secs(60), Input::Woke);
        let commands = machine.step(secs(61), Input::Connected(header, past));
        assert!(is_closing(&commands, ErrorKind::HistoryChanged), "{header:?}");
    }
}

#[test]
fn a_single_member_that_is_wrong_is_not_believed() {
    let mut machine = live();
    reconnect(&mut machine, secs(1), Header { revision: 9, ..at(0) });
    machine.step(secs(2), Input::Woke);
    assert_eq!(machine.step(secs(2), connected(10)), [Command::Watch { from: 11 }]);
}

#[test]
fn a_list_that_failed_after_the_history_changed_is_repeated() {
    let mut machine = live();
    let other = |revision| Header { cluster: CLUSTER + 1, ..at(revision) };
    reconnect(&mut machine, secs(1), other(3));
    machine.step(secs(2), Input::Woke);
    assert_eq!(
        machine.step(secs(2), Input::Connected(other(3), Past::Unknown))[0],
        Command::Begin(ListReason::HistoryChanged)
    );
    // The other history has overtaken ours meanwhile.
    assert_eq!(reconnect(&mut machine, secs(4), other(500))[0], Command::Begin(ListReason::HistoryChanged));
}

#[test]
fn a_proof_of_another_history_ends_the_connection() {
    for header in other_histories() {
        let mut machine = live();
        assert!(machine.step(secs(10), Input::Tick).contains(&prove(10, 10)));
        let proof = Proof { header, changed: Vec::new(), more: false, total: 1, since: 10, after: 10 };
        assert!(is_closing(&machine.step(secs(10), Input::Proof(proof)), ErrorKind::HistoryChanged));
    }
}

#[test]
fn an_empty_list_must_be_seen_twice() {
    let mut machine = live();
    machine.step(secs(1), fault(ErrorKind::Compacted));
    machine.step(secs(2), Input::Woke);
    machine.step(secs(2), connected(20));
    assert_eq!(machine.step(secs(2), page(20, &[], false)), [Command::Wait(CONFIRM_EMPTY)]);
    let again = machine.step(secs(7), Input::Woke);
    assert_eq!(again[1], Command::List { at: None, after: None, limit: PAGE });
    assert!(machine.step(secs(7), page(21, &[], false)).contains(&Command::Commit(at(21))));
}

#[test]
fn an_empty_list_that_is_not_confirmed_empties_nothing() {
    let mut machine = live();
    machine.step(secs(1), fault(ErrorKind::Compacted));
    machine.step(secs(2), Input::Woke);
    machine.step(secs(2), connected(20));
    machine.step(secs(2), page(20, &[], false));
    machine.step(secs(7), Input::Woke);
    let commands = machine.step(secs(7), page(21, &[entry("a", 5)], false));
    assert_eq!(commands[..2], [Command::Bring(vec![entry("a", 5)]), Command::Commit(at(21))]);
}

/// A machine that resumes with these keys at revision 10, with the commands for its watch, which was opened at
/// `revision`.
fn resumed(keys: &[Entry], revision: Revision) -> (Machine, Vec<Command>) {
    let mut machine = Machine::new(1, 1);
    machine.resume(at(10), keys.iter().map(|entry| (entry.key.as_slice(), known(entry))));
    machine.step(secs(0), Input::Start);
    assert_eq!(machine.step(secs(0), connected(revision)), [Command::Watch { from: 11 }]);
    let commands = machine.step(secs(0), Input::Opened { revision });
    (machine, commands)
}

#[test]
fn the_state_of_an_earlier_process_is_resumed() {
    let (mut machine, commands) = resumed(&[entry("a", 5)], 20);
    // A proof is needed before it is live, and the comparison of the values before the proof is published.
    assert_eq!(commands, [prove(10, 10)]);
    assert_eq!(machine.step(secs(0), proof(10, 20, false, 1)), [Command::Advance(20), Command::Live, audit(20)]);
    assert_eq!(
        machine.step(secs(1), audited(&[entry("a", 5)], false)),
        [Command::AuditHeld, Command::Proven { asked: secs(0) }]
    );
}

#[test]
fn a_value_that_differs_is_another_history() {
    // The revisions are equal; only the value differs.
    let other = Entry { value: "other".into(), ..entry("a", 5) };
    for wrong in [vec![], vec![other], vec![entry("a", 4)], vec![entry("a", 5), entry("b", 6)]] {
        let (mut machine, commands) = resumed(&[entry("a", 5)], 10);
        assert_eq!(commands, [Command::Live, audit(10)]);
        let commands = machine.step(secs(3), audited(&wrong, false));
        assert_eq!(commands[0], Command::AuditDiffers);
        assert!(is_closing(&commands[1..], ErrorKind::HistoryChanged), "{wrong:?}");
        machine.step(secs(4), Input::Woke);
        assert_eq!(machine.step(secs(4), connected(11))[0], Command::Begin(ListReason::HistoryChanged));
        assert_eq!(
            machine.step(secs(4), page(11, &wrong, false)).iter().find(|command| **command == Command::NewEpoch),
            (!wrong.is_empty()).then_some(&Command::NewEpoch),
            "an empty list is asked for twice"
        );
    }
}

#[test]
fn a_list_proves_the_values_and_each_later_connection_compares_them() {
    let mut machine = live();
    machine.step(secs(1), Input::Wanted);
    assert_eq!(machine.step(secs(1), look(10, 10, 1)), [Command::Proven { asked: secs(1) }]);
    for n in 1..4 {
        let now = secs(100 * n);
        reconnect(&mut machine, now, at(10));
        assert_eq!(machine.step(now, Input::Opened { revision: 10 }), [Command::Live, audit(10)]);
        // Since the disconnection nothing but the audit has read what etcd holds.
        assert_eq!(
            machine.step(now, audited(&[entry("a", 5)], false)),
            [Command::AuditHeld, Command::Look { after: 10 }]
        );
        assert_eq!(machine.step(now, look(10, 10, 1)), [Command::Proven { asked: now }]);
    }
}

#[test]
fn no_proof_is_published_before_the_values_are_compared() {
    let (mut machine, commands) = resumed(&[entry("a", 5), entry("b", 6)], 10);
    assert_eq!(commands, [Command::Live, audit(10)]);
    // The pause is as long as the page took, because a reader may wait for the proof.
    assert_eq!(machine.step(secs(6), audited(&[entry("a", 5)], true)), [Command::Wait(secs(6))]);
    assert_eq!(machine.step(secs(7), Input::Wanted), [Command::Look { after: 10 }]);
    // The rest of the pause is waited for.
    assert_eq!(machine.step(secs(8), look(10, 10, 2)), [Command::Wait(secs(4))]);
    let next = Command::Audit { at: 10, after: Some(b"a".to_vec()), limit: 2 * FIRST_PAGE };
    let commands = machine.step(secs(10), Input::Woke);
    assert_eq!(commands, [prove(10, 10)], "the proof that is due comes first");
    assert_eq!(machine.step(secs(12), proof(10, 10, false, 2)), [next]);
    assert_eq!(
        machine.step(secs(13), audited(&[entry("b", 6)], false)),
        [Command::AuditHeld, Command::Proven { asked: secs(10) }]
    );
}

#[test]
fn a_successful_audit_is_reported_and_repeated() {
    let (mut machine, _) = resumed(&[entry("a", 5)], 10);
    machine.step(secs(1), audited(&[entry("a", 5)], false));
    machine.step(secs(1), look(10, 10, 1));
    machine.step(secs(400), Input::Tick);
    assert!(!machine.step(secs(400), proof(10, 10, false, 1)).contains(&audit(10)));
    machine.step(secs(800), Input::Tick);
    let commands = machine.step(secs(800), proof(10, 10, false, 1));
    assert_eq!(commands.last(), Some(&audit(10)));
    // No reader waits for this one: a page of one second causes a pause of nine.
    assert_eq!(machine.step(secs(801), audited(&[entry("a", 5)], true)), [Command::Wait(secs(9))]);
}

#[test]
fn a_page_that_was_compacted_or_too_large_is_requested_again() {
    let (mut machine, _) = resumed(&[entry("a", 5)], 10);
    assert_eq!(machine.step(secs(1), events(&[again(11, 1)])).len(), 1);
    let wait = [Command::Wait(Duration::from_millis(500))];
    assert_eq!(machine.step(secs(1), Input::Audited(AuditPage::Compacted)), wait);
    assert_eq!(machine.step(secs(2), Input::Woke), [audit(11)]);
    let mut limit = FIRST_PAGE;
    let mut now = secs(2);
    while limit > 1 {
        let unwieldy = Input::Audited(AuditPage::Unwieldy(broken(ErrorKind::TooLarge)));
        now += Duration::from_millis(50);
        assert_eq!(machine.step(now, unwieldy), [Command::Wait(Duration::from_millis(50))]);
        limit /= 2;
        now += Duration::from_millis(50);
        assert_eq!(machine.step(now, Input::Woke), [Command::Audit { at: 11, after: None, limit }]);
    }
    let unwieldy = Input::Audited(AuditPage::Unwieldy(broken(ErrorKind::TooLarge)));
    assert!(is_closing(&machine.step(now, unwieldy), ErrorKind::TooLarge));
}

#[test]
fn changes_during_an_audit_are_not_a_difference() {
    let keys = ["a", "b", "c", "d"].map(|name| entry(name, 5));
    for changes in [
        vec![put("a", 11, 2, 5)],
        vec![delete("a", 11)],
        vec![delete("a", 11), new("a", 12)],
        vec![new("aa", 11)],
        vec![put("c", 11, 2, 5), delete("d", 12), new("e", 13), delete("e", 14)],
    ] {
        let (mut machine, _) = resumed(&keys, 10);
        assert_eq!(machine.step(secs(0), audited(&keys[..2], true)).len(), 1);
        machine.step(secs(0), events(&changes));
        let commands = machine.step(secs(1), audited(&keys[2..], false));
        assert_eq!(commands[0], Command::AuditHeld, "{changes:?}");
    }
}

#[test]
fn one_look_serves_all_waiting_readers_and_the_next_begins_later() {
    let mut machine = live();
    let ms = Duration::from_millis;
    assert_eq!(machine.step(secs(1), Input::Wanted), [Command::Look { after: 10 }]);
    // More readers want a proof while the look is on its way: its answer may be too old for them.
    for _ in 0..100 {
        assert_eq!(machine.step(secs(1), Input::Wanted), []);
    }
    // The look took 5 ms: the next one begins 100 ms after its start.
    assert_eq!(
        machine.step(secs(1) + ms(5), look(10, 10, 1)),
        [Command::Proven { asked: secs(1) }, Command::Wait(ms(95))]
    );
    assert_eq!(machine.step(secs(1) + ms(50), Input::Wanted), [Command::Wait(ms(50))]);
    assert_eq!(machine.step(secs(1) + ms(100), Input::Woke), [Command::Look { after: 10 }]);
    // The look took 30 ms: etcd has 270 ms for other work.
    assert_eq!(machine.step(secs(1) + ms(130), look(10, 10, 1)), [Command::Proven { asked: secs(1) + ms(100) }]);
    assert_eq!(machine.step(secs(1) + ms(150), Input::Wanted), [Command::Wait(ms(250))]);
    assert_eq!(machine.step(secs(1) + ms(400), Input::Woke), [Command::Look { after: 10 }]);
}

#[test]
fn every_key_is_read_only_when_etcd_has_advanced_and_rarely() {
    let mut machine = live();
    let ms = Duration::from_millis;
    machine.step(secs(1), Input::Wanted);
    assert_eq!(machine.step(secs(1), look(10, 12, 1)), [prove(10, 10)]);
    // The proof took 100 ms: the next one that a reader asks for begins 900 ms later.
    assert_eq!(
        machine.step(secs(1) + ms(100), proof(10, 12, false, 1)),
        [Command::Advance(12), Command::Proven { asked: secs(1) }]
    );
    assert_eq!(machine.step(secs(1) + ms(200), Input::Wanted), [Command::Look { after: 12 }]);
    assert_eq!(machine.step(secs(1) + ms(200), look(12, 14, 1)), [Command::Wait(ms(800))]);
    assert_eq!(machine.step(secs(2), Input::Woke), [prove(12, 12)]);
    machine.step(secs(2), proof(12, 14, false, 1));
    // A proof that waits for the watch is complete once the watch has delivered the change.
    machine.step(secs(3), Input::Wanted);
    assert_eq!(machine.step(secs(3), look(14, 15, 1)), [prove(14, 14)]);
    machine.step(secs(4), proof(14, 15, true, 1));
    let commands = machine.step(secs(4), events(&[again(15, 1)]));
    assert_eq!(commands.last(), Some(&Command::Proven { asked: secs(3) }));
}

#[test]
fn a_look_with_another_count_is_followed_by_a_proof() {
    let mut machine = live();
    machine.step(secs(1), Input::Wanted);
    assert_eq!(machine.step(secs(1), look(10, 10, 2)), [prove(10, 10)]);
    // Events have arrived since: their count belongs to another revision.
    machine.step(secs(1), proof(10, 10, false, 1));
    machine.step(secs(2), Input::Wanted);
    machine.step(secs(2), events(&[new("b", 11)]));
    assert_eq!(machine.step(secs(2), look(10, 10, 1)), [Command::Proven { asked: secs(2) }]);
}

#[test]
fn a_look_at_another_history_ends_the_connection() {
    for header in other_histories() {
        let mut machine = live();
        machine.step(secs(1), Input::Wanted);
        let look = Input::Looked(Look { header, total: 1, after: 10 });
        assert!(is_closing(&machine.step(secs(1), look), ErrorKind::HistoryChanged));
    }
}

#[test]
fn refused_credentials_are_retried_less_often() {
    let mut longest = Duration::ZERO;
    let mut machine = Machine::new(1, 1);
    for _ in 0..40 {
        machine.step(secs(0), Input::Woke);
        longest = longest.max(wait_of(&machine.step(secs(0), fault(ErrorKind::Unauthenticated))));
    }
    assert!(longest > secs(10) && longest <= secs(60), "{longest:?}");
}

#[test]
fn each_attempt_uses_the_next_endpoint() {
    let mut machine = Machine::new(3, 5);
    let mut commands = machine.step(secs(0), Input::Start);
    let mut asked = Vec::new();
    for _ in 0..6 {
        let [Command::Connect { endpoint, .. }] = commands[..] else { panic!("{commands:?}") };
        asked.push(endpoint);
        machine.step(secs(0), fault(ErrorKind::Unreachable));
        commands = machine.step(secs(0), Input::Woke);
    }
    assert_eq!(asked[..3], asked[3..]);
    asked.truncate(3);
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2]);
}

#[test]
fn only_a_connection_that_lasted_resets_the_backoff() {
    let longest_wait = |held: Time| {
        (0..50)
            .map(|seed| {
                let mut machine = live();
                machine.random = fastrand::Rng::with_seed(seed);
                (0..10).for_each(|_| {
                    machine.backoff.next(&mut machine.random);
                });
                wait_of(&machine.step(held, fault(ErrorKind::Unreachable)))
            })
            .max()
    };
    assert!(longest_wait(secs(5)) > Some(secs(1)));
    assert!(longest_wait(GOOD_FOR) <= Some(Duration::from_millis(100)));
}

#[test]
fn silence_causes_a_proof() {
    let mut machine = live();
    machine.step(secs(9), events(&[again(11, 1)]));
    assert_eq!(machine.step(secs(10), Input::Tick), [Command::AskProgress, prove(10, 11)]);
    assert_eq!(machine.step(secs(10), proof(11, 11, false, 1)), [Command::Proven { asked: secs(10) }]);
    // Complete silence: even the next proof is not answered.
    assert_eq!(machine.step(secs(20), Input::Tick), [Command::AskProgress, prove(11, 11)]);
    assert_eq!(machine.step(secs(23), Input::Tick), [Command::Stale]);
    assert_eq!(machine.step(secs(24), proof(11, 11, false, 1)), [Command::Proven { asked: secs(20) }, Command::Live]);
}

#[test]
fn a_change_that_the_watch_never_delivers_is_found() {
    let mut machine = live();
    let mut now = secs(10);
    for _ in 1..DOUBTS {
        assert!(machine.step(now, Input::Tick).contains(&prove(10, 10)));
        assert_eq!(machine.step(now, proof(10, 12, true, 1)), []);
        now += PROVE_AGAIN;
    }
    machine.step(now, Input::Tick);
    assert!(is_closing(&machine.step(now, proof(10, 12, true, 1)), ErrorKind::LostEvents));
    machine.step(now, Input::Woke);
    assert_eq!(machine.step(now, connected(12))[0], Command::Begin(ListReason::LostEvents));
}

#[test]
fn a_lost_deletion_is_found_by_the_count() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), proof(10, 12, false, 0));
    assert!(machine.step(secs(10) + PROVE_AGAIN, Input::Tick).contains(&prove(10, 10)));
}

/// The position of the watch when an answer arrives, relative to the answer's revision.
#[derive(Clone, Copy, Debug)]
enum Watch {
    Behind,
    There,
    Ahead,
}

#[test]
fn a_surplus_key_is_found_while_keys_change_all_the_time() {
    for watch in [Watch::Behind, Watch::There, Watch::Ahead] {
        let mut machine = live();
        // The deletion of `b` is lost. `a` changes all the time.
        machine.step(secs(1), events(&[new("b", 11)]));
        let (mut now, mut n) = (secs(10), 1);
        let mut change = |machine: &mut Machine, now: Time| {
            n += 1;
            machine.step(now, events(&[again(20 + n, n - 1)]))
        };
        for miss in 1..=MISSES {
            now += secs(10);
            assert!(machine.step(now, Input::Tick).iter().any(|it| matches!(it, Command::Prove { .. })));
            let after = machine.applied();
            let mut commands = match watch {
                Watch::Behind => machine.step(now, proof(after, after + 1, true, 1)),
                Watch::There | Watch::Ahead => change(&mut machine, now),
            };
            commands.extend(match watch {
                Watch::There => machine.step(now, proof(after, machine.applied(), true, 1)),
                Watch::Ahead => {
                    change(&mut machine, now);
                    machine.step(now, proof(after, machine.applied() - 1, true, 1))
                }
                Watch::Behind => change(&mut machine, now),
            });
            assert!(!commands.iter().any(|it| matches!(it, Command::Proven { .. })), "{watch:?}: {commands:?}");
            assert_eq!(commands.contains(&Command::Close), miss == MISSES, "{watch:?}: {commands:?}");
        }
        assert_eq!(machine.must_list, Some(ListReason::LostEvents));
    }
}

#[test]
fn a_look_finds_a_surplus_key_too() {
    let mut machine = live();
    machine.step(secs(1), events(&[new("b", 11)]));
    let mut commands = Vec::new();
    for n in 1..=i64::from(MISSES) / 2 {
        let now = secs(2) + n.unsigned_abs() as u32 * Duration::from_millis(200);
        let after = machine.applied();
        assert_eq!(machine.step(now, Input::Wanted), [Command::Look { after }]);
        machine.step(now, events(&[again(20 + n, n)]));
        // The proof that follows is a comparison of its own.
        let asked = machine.step(now, look(after, 20 + n, 1));
        assert!(matches!(asked[..], [Command::Prove { .. }]), "{asked:?}");
        commands = machine.step(now, proof(20 + n, 20 + n, false, 1));
    }
    assert!(is_closing(&commands, ErrorKind::LostEvents), "{commands:?}");
}

#[test]
fn a_lost_update_is_found_while_keys_change_all_the_time() {
    let mut machine = live();
    let mut commands = Vec::new();
    // The change of `a` at 12 is lost, and the watch continues after it.
    machine.step(secs(1), events(&[new("b", 11)]));
    for n in 1..=i64::from(MISSES) / 2 {
        let now = secs(10 * n.unsigned_abs());
        machine.step(now, events(&[put("b", 20 + n, 1 + n, 11)]));
        assert!(machine.step(now, Input::Tick).contains(&prove(10, 20 + n)));
        let names = || proof_of(20 + n, 20 + n, &[("a", 12), ("b", 20 + n)], 2);
        assert_eq!(machine.step(now, names()), []);
        // Equal counts prove nothing about `a`.
        assert_eq!(machine.step(now, Input::Wanted), [Command::Look { after: 20 + n }]);
        assert_eq!(machine.step(now, look(20 + n, 20 + n, 2)), [prove(10, 20 + n)]);
        commands = machine.step(now, names());
    }
    assert!(is_closing(&commands, ErrorKind::LostEvents), "{commands:?}");
}

#[test]
fn changes_that_are_on_their_way_or_too_many_to_name_are_no_loss() {
    let mut machine = live();
    let cut = |since, after| {
        let changed = vec![(b"a".to_vec(), Meta { version: 9, created: 5, modified: 12 })];
        Input::Proof(Proof { header: at(12), changed, more: true, total: 1, since, after })
    };
    machine.step(secs(1), events(&[again(11, 1)]));
    assert!(machine.step(secs(20), Input::Tick).contains(&prove(10, 11)));
    assert_eq!(machine.step(secs(20), cut(10, 11)), []);
    assert!(matches!(&machine.state, State::Watching(watching) if !watching.tally.is_in_doubt()));
    // Changes that were compared are not asked for again.
    assert!(machine.step(secs(21), Input::Tick).contains(&prove(11, 11)));
    machine.step(secs(21), events(&[again(12, 2)]));
    assert_eq!(machine.step(secs(21), cut(11, 11)), [Command::Proven { asked: secs(21) }]);
}

#[test]
fn events_on_their_way_are_not_a_difference() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), events(&[new("b", 11)]));
    // The events have reached the revision of the proof.
    assert_eq!(machine.step(secs(10), proof(10, 11, true, 2)), [Command::Proven { asked: secs(10) }]);

    machine.step(secs(20), Input::Tick);
    machine.step(secs(20), events(&[again(12, 1)]));
    // The events have not, and do so a moment later.
    assert_eq!(machine.step(secs(20), proof(11, 13, true, 2)), []);
    let last = again(13, 2);
    assert_eq!(
        machine.step(secs(20), events(std::slice::from_ref(&last))),
        [Command::Apply { revision: 13, events: vec![last] }, Command::Proven { asked: secs(20) }]
    );
}

#[test]
fn a_later_proof_is_not_taken_back_by_an_earlier_one() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), events(&[again(11, 1)]));
    // The changes after 11 were outside of the prefix: no event will come.
    assert_eq!(machine.step(secs(10), proof(10, 12, true, 1)), []);
    machine.step(secs(11), Input::Tick);
    let commands = machine.step(secs(11), proof(11, 12, false, 1));
    assert_eq!(commands, [Command::Advance(12), Command::Proven { asked: secs(11) }]);
    assert_eq!(machine.step(secs(15), events(&[again(13, 2)])).len(), 1);
}

#[test]
fn a_proof_that_events_have_overtaken_is_not_another_history() {
    let mut machine = live();
    machine.step(secs(10), Input::Tick);
    machine.step(secs(10), events(&[again(11, 1), again(12, 2)]));
    assert_eq!(machine.step(secs(10), proof(10, 11, true, 1)), [Command::Proven { asked: secs(10) }]);
}

#[test]
fn events_alone_can_make_the_configuration_live() {
    let mut machine = Machine::new(1, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    machine.step(secs(0), page(10, &[entry("a", 5)], false));
    assert_eq!(machine.step(secs(0), Input::Opened { revision: 12 }), [prove(10, 10)]);
    machine.step(secs(1), events(&[again(11, 1)]));
    let commands = machine.step(secs(1), events(&[again(12, 2)]));
    assert_eq!(commands.last(), Some(&Command::Live));
}

#[test]
fn a_page_that_is_too_slow_is_smaller_at_the_next_endpoint() {
    let mut machine = Machine::new(2, 1);
    machine.step(secs(0), Input::Start);
    machine.step(secs(0), connected(10));
    assert_eq!(machine.step(secs(10), fault(ErrorKind::Timeout))[0], Command::Close);
    machine.step(secs(11), Input::Woke);
    let commands = machine.step(secs(11), connected(10));
    assert_eq!(commands[1], Command::List { at: None, after: None, limit: PAGE / 2 });
}

#[test]
fn answers_from_before_a_disconnection_are_ignored() {
    for input in
        [page(1, &[], false), Input::Opened { revision: 1 }, events(&[new("a", 1)]), proof(1, 1, false, 0), Input::Tick]
    {
        let mut machine = live();
        machine.step(secs(1), fault(ErrorKind::Unreachable));
        assert_eq!(machine.step(secs(2), input), []);
    }
}

/// The actions of a scripted etcd between the machine's questions.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    /// Deliver up to this many pending events to the watch.
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

/// A tiny etcd: its history, what has been compacted, and the position of the open watch.
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
        let known = self.live.get(name.as_bytes()).map(|entry| entry.meta);
        if put_it {
            let (version, created) = known.map_or((1, revision), |meta| (meta.version + 1, meta.created));
            let event = put(&name, revision, version, created);
            let entry = Entry { meta: event.meta().unwrap(), ..entry(&name, revision) };
            self.history.push(event);
            self.live.insert(name.into(), entry);
        } else if known.is_some() {
            self.history.push(delete(&name, revision));
            self.live.remove(name.as_bytes());
        }
    }

    fn keys_at(&self, revision: Revision) -> BTreeMap<Vec<u8>, Meta> {
        let mut keys = BTreeMap::new();
        for event in self.history.iter().filter(|event| event.revision <= revision) {
            match event.meta() {
                Some(meta) => keys.insert(event.key.clone(), meta),
                None => keys.remove(&event.key),
            };
        }
        keys
    }

    /// Names at most two keys.
    fn prove(&self, since: Revision, after: Revision) -> Input {
        let mut changed: Vec<_> = self.live.values().filter(|entry| entry.meta.modified > since).collect();
        let more = changed.len() > 2;
        changed.truncate(2);
        let changed = changed.into_iter().map(|entry| (entry.key.clone(), entry.meta)).collect();
        let (header, total) = (at(self.revision()), self.live.len() as i64);
        Input::Proof(Proof { header, changed, more, total, since, after })
    }

    fn since(&self, revision: Revision) -> &[Event] {
        let from = self.history.partition_point(|event| event.revision < revision);
        &self.history[from..]
    }
}

/// The state that the commands have published.
#[derive(Default)]
struct Published {
    draft: BTreeMap<Vec<u8>, Bytes>,
    keys: BTreeMap<Vec<u8>, Bytes>,
    revision: Revision,
}

fn carry_out(etcd: &mut Etcd, published: &mut Published, command: Command) -> Option<Input> {
    match command {
        Command::Connect { memory, .. } => {
            let past = memory.map_or(Past::Unknown, |Memory { at, newest, .. }| {
                let then = etcd.keys_at(at);
                let changed = then.iter().find(|(_, meta)| meta.modified >= newest);
                Past::Known { keys: then.len() as i64, changed: changed.map(|(key, meta)| (key.clone(), *meta)) }
            });
            return Some(Input::Connected(at(etcd.revision()), past));
        }
        Command::List { at: None, .. } => {
            let entries: Vec<_> = etcd.live.values().cloned().collect();
            return Some(page(etcd.revision(), &entries, false));
        }
        Command::List { .. } => unreachable!("every list fits one page"),
        Command::Watch { from } if from <= etcd.compacted => return Some(fault(ErrorKind::Compacted)),
        Command::Watch { from } => {
            etcd.watch = Some(from);
            return Some(Input::Opened { revision: etcd.revision() });
        }
        Command::Prove { since, after } => return Some(etcd.prove(since, after)),
        Command::Audit { at, .. } => {
            let keys = etcd.keys_at(at);
            let known = keys.into_iter().map(|(key, meta)| {
                let value = format!("{}@{}", String::from_utf8_lossy(&key), meta.modified);
                (key, Known::new(meta, value.as_bytes()))
            });
            return Some(Input::Audited(AuditPage::Keys { keys: known.collect(), bytes: 9, more: false }));
        }
        Command::Look { after } => return Some(look(after, etcd.revision(), etcd.live.len() as i64)),
        Command::AuditDiffers => panic!("{command:?}"),
        Command::NewEpoch => panic!("{command:?}"),
        Command::Wait(_) => return Some(Input::Woke),
        Command::Close => etcd.watch = None,
        Command::Begin(_) => {
            etcd.watch = None;
            published.draft.clear();
        }
        Command::Bring(entries) => published.draft.extend(entries.into_iter().map(|entry| (entry.key, entry.value))),
        Command::Commit(header) => {
            published.keys = std::mem::take(&mut published.draft);
            published.revision = header.revision;
        }
        Command::Apply { revision, events } => {
            assert!(revision > published.revision);
            for event in events {
                assert!(event.revision > published.revision);
                match event.put {
                    Some(put) => published.keys.insert(event.key, put.value),
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
        match &event.put {
            Some(put) => state.insert(event.key.clone(), put.value.clone()),
            None => state.remove(&event.key),
        };
    }
    state
}

proptest! {
    /// Whatever happens, the published state is what etcd held at the reported revision; and once nothing more happens,
    /// it is what etcd holds.
    #[test]
    fn the_published_state_is_what_etcd_held_at_its_revision(steps in steps(), seed in any::<u64>()) {
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
                Step::Break => fault(ErrorKind::Unreachable),
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
