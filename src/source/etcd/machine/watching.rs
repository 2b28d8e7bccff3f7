//! An open watch: the changes that it has delivered, and the checks that it has lost none.

use super::audit::{Audit, Compared, PAUSES, PAUSES_UNPROVEN};
use super::exchange::{AuditPage, Command, Event, Fault, Look, Message, Proof, Time};
use super::index::Index;
use super::known::Revision;
use super::pace::{ASK_EVERY, DOUBTS, LOOK_EVERY, PROVE_AGAIN, PROVE_EVERY, REST, SILENCE};
use super::tally::{Answer, Comparison, Tally};
use crate::store::ErrorKind;

#[derive(Debug)]
pub(super) struct Watching {
    pub(super) since: Time,
    /// etcd's revision when the watch was opened.
    opened_at: Revision,
    /// The revision that is published.
    pub(super) applied: Revision,
    /// Whether the configuration was reported as live.
    live: bool,
    /// When the last message arrived.
    heard: Time,
    asked: Time,
    /// When the next proof is due.
    prove_at: Time,
    /// The number of proofs in a row that found changes which the watch has not delivered.
    doubts: u32,
    /// A reader waits for a proof that is asked for from now on.
    wanted: bool,
    /// When the next look for a waiting reader may begin.
    look_at: Time,
    /// A reader waits, and etcd has advanced: only a proof, which looks at every key, can show whether our keys
    /// changed.
    moved: bool,
    /// When the next proof for a waiting reader may begin.
    next_proof_at: Time,
    values: Values,
    /// The comparison of the numbers of keys.
    pub(super) tally: Tally,
    /// Changes up to this revision have been compared with those that etcd names.
    compared: Revision,
    /// When the next audit is due.
    pub(super) audit_at: Time,
    audit: Option<Audit>,
    /// The open question on the other connection, at most one.
    question: Option<Question>,
    /// Changes of a revision whose remaining fragments are still to come.
    held: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Look { asked: Time },
    Proof { asked: Time },
    Audit,
}

/// Whether the values have been read or compared since the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Proven,
    /// `withheld` is the newest proof, which is published once the values are proven.
    Unproven {
        withheld: Option<Time>,
    },
}

/// Why the watch cannot continue.
pub(super) enum Invalid {
    /// A change was lost: everything must be read again.
    Lost(Fault),
    /// etcd holds another value than expected: it has another history.
    Differs(Fault),
    /// The values cannot be read.
    Broken(Fault),
}

impl Invalid {
    fn because(kind: ErrorKind, reason: &str) -> Self {
        Self::Lost(Fault { kind, reason: reason.to_owned() })
    }
}

impl Watching {
    /// A watch that was opened at one revision, for `keys` at the revision `applied`.
    pub(super) fn new(
        now: Time,
        applied: Revision,
        opened_at: Revision,
        keys: i64,
        audit_at: Time,
        values: Values,
    ) -> Self {
        Self {
            since: now,
            opened_at,
            applied,
            live: false,
            heard: now,
            asked: now,
            prove_at: now + PROVE_EVERY,
            doubts: 0,
            wanted: false,
            look_at: now,
            moved: false,
            next_proof_at: now,
            values,
            tally: Tally::new(keys),
            compared: applied,
            audit_at,
            audit: None,
            question: None,
            held: Vec::new(),
        }
    }

    /// The first commands on a new watch, which check whether the configuration is already current. `wanted` if a
    /// reader waits for a proof.
    pub(super) fn begin(&mut self, now: Time, wanted: bool) -> Vec<Command> {
        let current = self.opened_at <= self.applied;
        let mut commands = if current { self.go_live() } else { Vec::new() };
        self.wanted = wanted && current;
        commands.extend(match current {
            true => self.ask(now),
            // Later changes may be outside of the prefix; only a proof can show that.
            false => self.prove(now),
        });
        commands
    }

    pub(super) fn message(&mut self, now: Time, message: Message, index: &mut Index) -> Result<Vec<Command>, Invalid> {
        self.heard = now;
        let mut last = self.held.last().map_or(self.applied, |event| event.revision);
        for event in message.events {
            if event.revision <= self.applied {
                continue;
            }
            if event.revision < last {
                return Err(Invalid::because(ErrorKind::Protocol, "etcd sent an event out of order"));
            }
            last = event.revision;
            self.held.push(event);
        }
        // All revisions of a fragment are complete except the last.
        let complete = match message.fragment {
            true => self.held.partition_point(|event| event.revision < last),
            false => self.held.len(),
        };
        let rest = self.held.split_off(complete);
        let events = std::mem::replace(&mut self.held, rest);
        let Some(newest) = events.last().map(|event| event.revision) else { return Ok(Vec::new()) };
        let (mut commands, mut agreed) = (Vec::new(), None);
        for events in events.chunk_by(|a, b| a.revision == b.revision) {
            for event in events {
                if let Some(audit) = &mut self.audit {
                    audit.touch(event);
                }
                // The index is not what etcd had: nothing of it is published.
                if !index.apply(event) {
                    return Err(Invalid::because(
                        ErrorKind::LostEvents,
                        "an event does not follow from the known state",
                    ));
                }
            }
            let revision = events[0].revision;
            agreed = self.tally.pass(revision, index.len()).or(agreed);
            commands.push(Command::Apply { revision, events: events.to_vec() });
        }
        self.applied = newest;
        self.doubts = 0;
        self.doubt(now)?;
        if let Some(asked) = agreed {
            self.moved = false;
            commands.extend(self.tell_proven(asked));
        }
        if newest >= self.opened_at {
            commands.extend(self.go_live());
        }
        Ok(commands)
    }

    pub(super) fn proof(&mut self, now: Time, proof: &Proof, index: &Index) -> Result<Vec<Command>, Invalid> {
        let asked = match self.question.take() {
            Some(Question::Proof { asked }) => asked,
            _ => now,
        };
        self.next_proof_at = now + rest(now, asked);
        let (revision, total) = (proof.header.revision, proof.total);
        let behind = index.is_behind(&proof.changed, self.applied);
        self.tally.overdue(behind);
        if !behind {
            self.compared = revision.min(self.applied);
        }
        // Events may have arrived while the proof was on its way: then only the counts at the proof's revision can be
        // compared.
        let still = self.applied == proof.after && self.held.is_empty();
        let told = self.tally.answer(Answer { asked, revision, total }, self.applied);
        let holds = match told {
            Comparison::Agrees => true,
            Comparison::Differs => false,
            Comparison::Later => still && !behind && !proof.has_news() && total == index.len(),
        };
        if holds {
            self.doubts = 0;
            self.heard = now;
            let mut commands = Vec::new();
            if revision > self.applied {
                (self.applied, self.compared) = (revision, revision);
                commands.push(Command::Advance(revision));
            }
            commands.extend(self.proven(now, asked));
            return Ok(commands);
        }
        self.doubts += u32::from(still && !proof.is_cut_short());
        self.prove_at = now + PROVE_AGAIN;
        self.doubt(now)?;
        Ok(Vec::new())
    }

    /// Repeats the question soon after an answer that differs from the known state; an error after too many of them.
    fn doubt(&mut self, now: Time) -> Result<(), Invalid> {
        if self.doubts >= DOUBTS || self.tally.is_lost() {
            return Err(Invalid::because(ErrorKind::LostEvents, "the watch missed a change"));
        }
        if self.tally.is_in_doubt() {
            self.prove_at = self.prove_at.min(now + PROVE_AGAIN);
        }
        Ok(())
    }

    fn proven(&mut self, now: Time, asked: Time) -> Vec<Command> {
        self.prove_at = now + PROVE_EVERY;
        self.tally.settle();
        self.moved = false;
        let mut commands: Vec<_> = self.tell_proven(asked).into_iter().collect();
        commands.extend(self.go_live());
        commands.extend(self.ask(now));
        commands
    }

    /// A proof is published once the values are proven too.
    fn tell_proven(&mut self, at: Time) -> Option<Command> {
        match &mut self.values {
            Values::Proven => Some(Command::Proven { asked: at }),
            Values::Unproven { withheld } => {
                *withheld = (*withheld).max(Some(at));
                None
            }
        }
    }

    /// Takes the answer to a look.
    pub(super) fn looked(&mut self, now: Time, look: &Look) -> Result<Vec<Command>, Invalid> {
        let Some(Question::Look { asked }) = self.question.take() else { return Ok(Vec::new()) };
        self.look_at = self.look_at.max(now + rest(now, asked));
        let answer = Answer { asked, revision: look.header.revision, total: look.total };
        let mut commands = Vec::new();
        match self.tally.answer(answer, self.applied) {
            Comparison::Agrees => {
                self.heard = now;
                self.moved = false;
                commands.extend(self.tell_proven(asked));
                commands.extend(self.go_live());
            }
            // Either a change was lost, or the watch is about to deliver it, or it was made outside of the prefix.
            Comparison::Differs | Comparison::Later => {
                self.doubt(now)?;
                self.moved = true;
            }
        }
        commands.extend(self.ask(now));
        Ok(commands)
    }

    /// Takes a page of the audit. If it completes the audit, `next` is when the next audit is due.
    pub(super) fn audited(
        &mut self,
        now: Time,
        page: AuditPage,
        index: &Index,
        next: Time,
    ) -> Result<Vec<Command>, Invalid> {
        self.question = None;
        let Some(audit) = &mut self.audit else { return Ok(Vec::new()) };
        let compared = match page {
            AuditPage::Keys { keys, bytes, more } => audit.compare(now, index, &keys, bytes, more),
            AuditPage::Compacted => {
                audit.renew(now, self.applied);
                Compared::More
            }
            AuditPage::Unwieldy(_) if audit.shorten(now) => Compared::More,
            AuditPage::Unwieldy(fault) => return Err(Invalid::Broken(fault)),
        };
        let mut commands = Vec::new();
        match compared {
            Compared::More => {}
            Compared::Held => {
                self.audit = None;
                self.audit_at = next;
                commands.push(Command::AuditHeld);
                if let Values::Unproven { withheld } = std::mem::replace(&mut self.values, Values::Proven) {
                    commands.extend(withheld.map(|asked| Command::Proven { asked }));
                    self.wanted |= withheld.is_none();
                }
            }
            Compared::Differs => {
                let reason = "a key or a value differs from etcd's: etcd has another history".to_owned();
                return Err(Invalid::Differs(Fault { kind: ErrorKind::HistoryChanged, reason }));
            }
        }
        commands.extend(self.ask(now));
        Ok(commands)
    }

    pub(super) fn tick(&mut self, now: Time) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.is_silent(now) && self.live {
            self.live = false;
            commands.push(Command::Stale);
        }
        if now.saturating_sub(self.asked) >= ASK_EVERY {
            self.asked = now;
            commands.push(Command::AskProgress);
        }
        commands.extend(self.ask(now));
        commands
    }

    /// A reader waits for a proof, and not only for the next regular one.
    pub(super) fn wanted(&mut self, now: Time) -> Vec<Command> {
        self.wanted = true;
        self.ask(now)
    }

    /// Asks the next question that is due, if none is open; or waits for the time of the next question that a reader
    /// waits for.
    pub(super) fn ask(&mut self, now: Time) -> Vec<Command> {
        if self.question.is_some() {
            return Vec::new();
        }
        // On some servers a live stream with a quiet prefix stays silent: then the proof decides.
        if now >= self.prove_at || self.is_silent(now) || (self.moved && now >= self.next_proof_at) {
            return self.prove(now);
        }
        if self.wanted && now >= self.look_at {
            return self.look(now);
        }
        if self.audit.is_none() && now >= self.audit_at && self.held.is_empty() {
            let pauses = if self.values == Values::Proven { PAUSES } else { PAUSES_UNPROVEN };
            self.audit = Some(Audit::new(now, self.applied, pauses));
        }
        if let Some(audit) = self.audit.as_mut().filter(|audit| now >= audit.next_at) {
            self.question = Some(Question::Audit);
            return vec![audit.ask(now)];
        }
        let waits = [
            self.wanted.then_some(self.look_at),
            self.moved.then_some(self.next_proof_at),
            self.audit.as_ref().map(|audit| audit.next_at),
        ];
        let next = waits.into_iter().flatten().min();
        next.map(|at| Command::Wait(at.saturating_sub(now))).into_iter().collect()
    }

    /// The answer serves all readers that wait.
    fn look(&mut self, now: Time) -> Vec<Command> {
        self.wanted = false;
        self.look_at = now + LOOK_EVERY;
        self.question = Some(Question::Look { asked: now });
        self.tally.ask(self.applied);
        vec![Command::Look { after: self.applied }]
    }

    fn prove(&mut self, now: Time) -> Vec<Command> {
        self.wanted = false;
        self.moved = false;
        self.question = Some(Question::Proof { asked: now });
        self.tally.ask(self.applied);
        vec![Command::Prove { since: self.compared, after: self.applied }]
    }

    fn is_silent(&self, now: Time) -> bool {
        now.saturating_sub(self.heard) >= SILENCE
    }

    fn go_live(&mut self) -> Vec<Command> {
        match std::mem::replace(&mut self.live, true) {
            true => Vec::new(),
            false => vec![Command::Live],
        }
    }
}

/// The time until which to pause after an answer, however many readers ask.
fn rest(now: Time, asked: Time) -> Time {
    (now.saturating_sub(asked) * REST).min(PROVE_EVERY)
}
