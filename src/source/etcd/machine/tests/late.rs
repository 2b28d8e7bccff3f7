//! Late answers, late events, and events that never arrive.

use proptest::prelude::*;

use super::*;

/// A step of etcd, of the watch or of an answer.
#[derive(Clone, Debug)]
enum Late {
    Put(u8),
    Delete(u8),
    Deliver(usize),
    /// The next pending event is lost.
    Lose,
    Tick,
    Wanted,
    /// etcd answers the open question, with its current state.
    Answer,
    /// The answer arrives.
    Arrive,
}

fn late() -> impl Strategy<Value = Vec<Late>> {
    let step = prop_oneof![
        4 => (0_u8..5).prop_map(Late::Put),
        2 => (0_u8..5).prop_map(Late::Delete),
        4 => (1_usize..4).prop_map(Late::Deliver),
        2 => Just(Late::Tick),
        2 => Just(Late::Wanted),
        3 => Just(Late::Answer),
        3 => Just(Late::Arrive),
    ];
    prop::collection::vec(step, 0..120)
}

/// A machine and an etcd whose answers to looks and proofs are late.
struct Slow {
    machine: Machine,
    etcd: Etcd,
    published: Published,
    now: Time,
    open: Option<Command>,
    answered: Option<Input>,
    lost: bool,
}

impl Slow {
    fn new(seed: u64) -> Self {
        let (etcd, published) = (Etcd::default(), Published::default());
        let machine = Machine::new(1, seed);
        let mut slow = Self { machine, etcd, published, now: secs(0), open: None, answered: None, lost: false };
        slow.take(Input::Start);
        slow
    }

    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for command in self.machine.step(self.now, input) {
                match command {
                    Command::Prove { .. } | Command::Look { .. } => self.open = Some(command),
                    // The next tick comes first.
                    Command::Wait(_) if matches!(self.machine.state, State::Watching(_)) => {}
                    Command::Disconnected(fault) => self.lost |= fault.kind == ErrorKind::LostEvents,
                    command => {
                        if command == Command::Close {
                            (self.open, self.answered) = (None, None);
                        }
                        inputs.extend(carry_out(&mut self.etcd, &mut self.published, command));
                    }
                }
            }
        }
    }

    fn step(&mut self, step: &Late) {
        self.now += secs(3);
        match step {
            Late::Put(key) => self.etcd.change(*key, true),
            Late::Delete(key) => self.etcd.change(*key, false),
            Late::Deliver(_) | Late::Lose => {
                let Some(from) = self.etcd.watch else { return };
                let count = if let Late::Deliver(count) = step { *count } else { 1 };
                let batch: Vec<_> = self.etcd.since(from).iter().take(count).cloned().collect();
                let Some(last) = batch.last() else { return };
                self.etcd.watch = Some(last.revision + 1);
                if let Late::Deliver(_) = step {
                    self.take(events(&batch));
                }
            }
            Late::Tick => self.take(Input::Tick),
            Late::Wanted => self.take(Input::Wanted),
            Late::Answer => {
                let etcd = &self.etcd;
                self.answered = self.answered.take().or(self.open.take().map(|question| match question {
                    Command::Prove { since, after } => etcd.prove(since, after),
                    Command::Look { after } => look(after, etcd.revision(), etcd.live.len() as i64),
                    other => panic!("{other:?}"),
                }));
            }
            Late::Arrive => {
                if let Some(answered) = self.answered.take() {
                    self.take(answered);
                }
            }
        }
    }

    fn is_in_doubt(&self) -> bool {
        matches!(&self.machine.state, State::Watching(watching) if watching.tally.is_in_doubt())
    }
}

proptest! {
    /// Answers and events may be late by any time.
    #[test]
    fn late_answers_and_events_never_differ(steps in late(), seed in any::<u64>()) {
        let mut slow = Slow::new(seed);
        for step in &steps {
            slow.step(step);
            prop_assert!(!slow.is_in_doubt());
            prop_assert_eq!(&slow.published.keys, &state_at(&slow.etcd, slow.published.revision));
        }
    }

    /// One event is lost and others follow all the time: a few late answers are enough to find the loss.
    #[test]
    fn a_lost_event_is_found_under_steady_writes(before in late(), is_put in any::<bool>(), ahead in any::<bool>()) {
        let mut slow = Slow::new(1);
        before.iter().for_each(|step| slow.step(step));
        let rest = [Late::Answer, Late::Arrive, Late::Deliver(1000), Late::Put(0), Late::Put(1), Late::Deliver(1000)];
        rest.iter().for_each(|step| slow.step(step));
        let loses = if is_put { Late::Put(1) } else { Late::Delete(1) };
        [loses, Late::Lose].iter().for_each(|step| slow.step(step));
        slow.lost = false;
        for _ in 0..MISSES + 2 {
            prop_assert!(!slow.lost);
            let arrive = if ahead { [Late::Deliver(9), Late::Arrive] } else { [Late::Arrive, Late::Deliver(9)] };
            let round = [Late::Tick, Late::Tick, Late::Tick, Late::Tick, Late::Put(0), Late::Answer];
            for step in round.iter().chain(&arrive) {
                slow.step(step);
                if slow.lost {
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it was not found");
    }
}
