//! An open watch: what it has brought, and how it is kept honest.

use super::index::{Audit, Index};
use super::{
    ASK_EVERY, AUDIT_AGAIN, AUDIT_PAGE, AuditPage, Command, DOUBTS, Event, Fault, Message, PROVE_AGAIN, PROVE_EVERY,
    Proof, Revision, SILENCE, Time,
};
use crate::store::ErrorKind;

#[derive(Debug)]
pub(super) struct Watching {
    pub(super) since: Time,
    /// Where etcd was when the watch was opened.
    opened_at: Revision,
    /// What is published.
    pub(super) applied: Revision,
    /// Whether it has been said that the configuration is live.
    live: bool,
    /// When the last message came.
    heard: Time,
    asked: Time,
    /// When the next proof is due.
    prove_at: Time,
    /// How many proofs in a row found changes that the watch has not brought.
    doubts: u32,
    /// Somebody waits for a proof that is asked for from now on.
    wanted: bool,
    /// A proof that was asked for at a time and is good once this revision has been applied.
    awaited: Option<(Time, Revision)>,
    /// When the next audit is due.
    pub(super) audit_at: Time,
    audit: Option<Audit>,
    /// What was asked on the other connection, one thing at a time.
    question: Option<Question>,
    /// Changes of a revision whose rest is still to come.
    held: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Proof { asked: Time },
    Audit,
}

/// The watch cannot go on: everything must be read again.
pub(super) struct Untrue(pub(super) Fault);

impl Untrue {
    fn because(kind: ErrorKind, reason: &str) -> Self {
        Self(Fault { kind, reason: reason.to_owned() })
    }
}

impl Watching {
    pub(super) fn new(now: Time, applied: Revision, opened_at: Revision, audit_at: Time) -> Self {
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
            awaited: None,
            audit_at,
            audit: None,
            question: None,
            held: Vec::new(),
        }
    }

    /// The first commands on a fresh watch: is what is held current already? `wanted` if somebody waits for a proof.
    pub(super) fn begin(&mut self, now: Time, wanted: bool) -> Vec<Command> {
        let current = self.opened_at <= self.applied;
        let mut commands = if current { self.go_live() } else { Vec::new() };
        // What happened since may be elsewhere in etcd, and only a proof can say.
        if wanted || !current {
            commands.extend(self.prove(now));
        }
        commands
    }

    pub(super) fn message(&mut self, now: Time, message: Message, index: &mut Index) -> Result<Vec<Command>, Untrue> {
        self.heard = now;
        let mut last = self.held.last().map_or(self.applied, |event| event.revision);
        for event in message.events {
            if event.revision <= self.applied {
                continue;
            }
            if event.revision < last {
                return Err(Untrue::because(ErrorKind::Protocol, "etcd sent an event out of order"));
            }
            last = event.revision;
            self.held.push(event);
        }
        // Of a fragment all revisions are complete but the last.
        let complete = match message.fragment {
            true => self.held.partition_point(|event| event.revision < last),
            false => self.held.len(),
        };
        let rest = self.held.split_off(complete);
        let events = std::mem::replace(&mut self.held, rest);
        let Some(newest) = events.last().map(|event| event.revision) else { return Ok(Vec::new()) };
        for event in &events {
            if let Some(audit) = &mut self.audit {
                audit.touch(event);
            }
            // What it would be applied to is not what etcd had: nothing of it is published.
            if !index.apply(event) {
                return Err(Untrue::because(ErrorKind::LostEvents, "an event does not follow from what was known"));
            }
        }
        self.applied = newest;
        self.doubts = 0;

        let mut commands = Vec::new();
        commands.extend(
            events
                .chunk_by(|a, b| a.revision == b.revision)
                .map(|events| Command::Apply { revision: events[0].revision, events: events.to_vec() }),
        );
        if let Some((asked, _)) = self.awaited.take_if(|(_, revision)| *revision <= newest) {
            commands.push(Command::Proven { asked });
        }
        if newest >= self.opened_at {
            commands.extend(self.go_live());
        }
        Ok(commands)
    }

    pub(super) fn proof(&mut self, now: Time, proof: &Proof, index: &Index) -> Result<Vec<Command>, Untrue> {
        let asked = match self.question.take() {
            Some(Question::Proof { asked }) => asked,
            _ => now,
        };
        if self.applied != proof.after || !self.held.is_empty() {
            // Events came in while it was on its way, so that the counts cannot be compared. But once they have come up
            // to where the proof was made, what is published was true then.
            if self.applied < proof.header.revision {
                self.awaited = Some((asked, proof.header.revision));
                self.prove_at = now + PROVE_AGAIN;
                return Ok(Vec::new());
            }
            return Ok(self.proven(now, asked));
        }
        if proof.changed || proof.total != index.len() {
            self.doubts += 1;
            self.prove_at = now + PROVE_AGAIN;
            if self.doubts >= DOUBTS {
                return Err(Untrue::because(ErrorKind::LostEvents, "the watch missed a change"));
            }
            return Ok(Vec::new());
        }
        self.doubts = 0;
        self.heard = now;
        let mut commands = Vec::new();
        if proof.header.revision > self.applied {
            self.applied = proof.header.revision;
            commands.push(Command::Advance(self.applied));
        }
        commands.extend(self.proven(now, asked));
        Ok(commands)
    }

    fn proven(&mut self, now: Time, asked: Time) -> Vec<Command> {
        self.prove_at = now + PROVE_EVERY;
        // One that was asked for earlier has no more to tell.
        self.awaited = None;
        let mut commands = vec![Command::Proven { asked }];
        commands.extend(self.go_live());
        if self.wanted {
            commands.extend(self.prove(now));
        }
        commands
    }

    /// Takes a page of the audit. `next` is when the next audit is due once this one has held.
    pub(super) fn audited(
        &mut self,
        now: Time,
        page: AuditPage,
        index: &Index,
        next: Time,
    ) -> Result<Vec<Command>, Untrue> {
        self.question = None;
        let Some(audit) = &mut self.audit else { return Ok(Vec::new()) };
        let (keys, more) = match page {
            AuditPage::Keys { keys, more } => (keys, more),
            AuditPage::Compacted => {
                self.audit = None;
                self.audit_at = now + AUDIT_AGAIN;
                return Ok(Vec::new());
            }
        };
        let ended = !more || keys.is_empty();
        if !audit.compare(index, &keys) || (ended && !audit.finish(index)) {
            return Err(Untrue::because(ErrorKind::LostEvents, "the audit found a key that is not as in etcd"));
        }
        if !ended {
            return Ok(self.ask(now));
        }
        self.audit = None;
        self.audit_at = next;
        Ok(vec![Command::AuditHeld])
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

    /// Somebody waits for a proof: not for the next one that is due.
    pub(super) fn wanted(&mut self, now: Time) -> Vec<Command> {
        self.wanted = true;
        self.ask(now)
    }

    /// Asks the next question that is due, if none is open.
    fn ask(&mut self, now: Time) -> Vec<Command> {
        if self.question.is_some() {
            return Vec::new();
        }
        // A stream that lives has nothing to tell of a quiet prefix on some servers: the proof has the word.
        if now >= self.prove_at || self.is_silent(now) || self.wanted {
            return self.prove(now);
        }
        if self.audit.is_none() && now >= self.audit_at && self.held.is_empty() {
            self.audit = Some(Audit::new(self.applied));
        }
        let Some(audit) = &self.audit else { return Vec::new() };
        self.question = Some(Question::Audit);
        vec![Command::Audit { at: audit.at, after: audit.after.clone(), limit: AUDIT_PAGE }]
    }

    fn prove(&mut self, now: Time) -> Vec<Command> {
        self.wanted = false;
        self.question = Some(Question::Proof { asked: now });
        vec![Command::Prove { after: self.applied }]
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
