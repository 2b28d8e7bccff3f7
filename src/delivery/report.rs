//! Reports the attempts at one event to a history.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::base::lock::lock;
use crate::config::WebhookKey;
use crate::event::{Answer, Answered, DeliverError, DeliverErrorKind, EventId};
use crate::history::{Attempt, Entry, EntryDue, History, Outcome};

/// Reports the attempts at one event: one entry for each module that was tried.
///
/// The entries of an attempt are complete once the whole attempt is settled and each target has answered, or has not. Those
/// of an event whose sender waits are reported together, with the last attempt: then a crash cannot leave an event behind
/// that seems to wait for another attempt.
pub(crate) struct Reports {
    history: History,
    event: EventId,
    webhook: WebhookKey,
    /// The webhook's first module, for an attempt that reached none.
    module: Arc<str>,
    /// Whether the event is lost if nobody waits for the attempts any more.
    has_sender: bool,
    current: Mutex<Current>,
}

/// The attempt that is being made.
struct Current {
    number: u32,
    began: Instant,
    drafts: Vec<Arc<Draft>>,
    /// Those of earlier attempts that were not reported yet.
    before: Vec<Arc<Draft>>,
}

impl Reports {
    /// Reports of attempts that are made by the worker.
    pub(crate) fn of_worker(history: &History, event: EventId, webhook: &WebhookKey, module: Arc<str>) -> Self {
        Self::of(history, event, webhook, module, false)
    }

    /// Reports of attempts that are made while the event's sender waits. No other attempt follows once they are dropped.
    pub(crate) fn of_sender(history: &History, event: EventId, webhook: &WebhookKey, module: Arc<str>) -> Self {
        Self::of(history, event, webhook, module, true)
    }

    fn of(history: &History, event: EventId, webhook: &WebhookKey, module: Arc<str>, has_sender: bool) -> Self {
        let current = Current { number: 1, began: Instant::now(), drafts: Vec::new(), before: Vec::new() };
        let (history, webhook, current) = (history.clone(), webhook.clone(), Mutex::new(current));
        Self { history, event, webhook, module, has_sender, current }
    }

    /// Begins attempt number `number`.
    pub(crate) fn begin(&self, number: u32) {
        let mut current = self.current();
        let Current { drafts, before, .. } = &mut *current;
        before.append(drafts);
        (current.number, current.began) = (number, Instant::now());
    }

    /// A module is tried: the one of `item` in a chain.
    pub(super) fn step(&self, item: Option<usize>, module: &Arc<str>) -> Arc<Draft> {
        let mut current = self.current();
        let draft = self.draft(current.number, Instant::now(), item, module);
        current.drafts.push(Arc::clone(&draft));
        draft
    }

    /// The attempt has ended. `next` is the wait before the next one, and `error` that of the whole attempt.
    pub(crate) fn settle(&self, outcome: Outcome, next: Option<Duration>, error: Option<&DeliverError>) {
        let mut current = self.current();
        if current.drafts.is_empty() {
            let draft = self.draft(current.number, current.began, None, &self.module);
            draft.ended(error);
            current.drafts.push(draft);
        }
        let cut = match error.map(DeliverError::kind) {
            Some(DeliverErrorKind::Timeout) => "no answer in time",
            _ => "broken off, because another item had failed",
        };
        let next = next.map(|wait| SystemTime::now() + wait);
        current.settle(outcome, next, cut);
        if !(self.has_sender && outcome == Outcome::Waiting) {
            current.report();
        }
    }

    fn draft(&self, number: u32, began: Instant, item: Option<usize>, module: &Arc<str>) -> Arc<Draft> {
        let attempt = Box::new(Attempt {
            event: self.event,
            webhook: self.webhook.clone(),
            number,
            at: SystemTime::now().checked_sub(began.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
            duration: Duration::ZERO,
            module: Arc::clone(module),
            item: item.and_then(|item| u32::try_from(item).ok()),
            error: None,
            answer: None,
            outcome: Outcome::Waiting,
            next: None,
        });
        let state = State { attempt: Some(attempt), is_under_way: true, due: None, is_settled: false };
        Arc::new(Draft { history: self.history.clone(), began, state: Mutex::new(state) })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

/// The sender hung up, and the event is not processed without it.
impl Drop for Reports {
    fn drop(&mut self) {
        if self.has_sender {
            let mut current = self.current();
            current.settle(Outcome::Failed, None, "broken off, because the sender hung up");
            current.report();
        }
    }
}

impl Current {
    fn settle(&self, outcome: Outcome, next: Option<SystemTime>, cut: &'static str) {
        self.drafts.iter().for_each(|draft| draft.settle(outcome, next, cut));
    }

    fn report(&mut self) {
        self.before.drain(..).chain(self.drafts.drain(..)).for_each(|draft| draft.report());
    }
}

/// The entry of one module in one attempt.
pub(super) struct Draft {
    history: History,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    /// `None` once the history has it.
    attempt: Option<Box<Attempt>>,
    is_under_way: bool,
    /// While the target's answer may follow.
    due: Option<EntryDue>,
    is_settled: bool,
}

impl Draft {
    /// The module has taken the event, or has failed with `error`.
    pub(super) fn ended(&self, error: Option<&DeliverError>) {
        let error = error.map(|error| (error.kind(), error.to_string().into()));
        self.state().end(self.began, error);
    }

    /// `cut` is the error of a module that had not ended.
    fn settle(&self, outcome: Outcome, next: Option<SystemTime>, cut: &'static str) {
        let mut state = self.state();
        state.end(self.began, Some((DeliverErrorKind::Timeout, cut.into())));
        if let Some(attempt) = &mut state.attempt {
            (attempt.outcome, attempt.next) = (outcome, next);
        }
    }

    fn report(&self) {
        let mut state = self.state();
        state.is_settled = true;
        self.report_complete(&mut state);
    }

    fn report_complete(&self, state: &mut State) {
        if state.is_settled
            && state.due.is_none()
            && let Some(attempt) = state.attempt.take()
        {
            self.history.record(Entry::Attempt(attempt));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Answered for Draft {
    fn expect(&self) {
        self.state().due = Some(self.history.due());
    }

    fn answered(&self, answer: Option<Answer>) {
        let mut state = self.state();
        if let (Some(attempt), Some(answer)) = (&mut state.attempt, answer) {
            attempt.answer = Some(answer);
        }
        let due = state.due.take();
        self.report_complete(&mut state);
        // Once the entry is recorded.
        drop(due);
    }
}

impl State {
    fn end(&mut self, began: Instant, error: Option<(DeliverErrorKind, Box<str>)>) {
        if let Some(attempt) = &mut self.attempt
            && self.is_under_way
        {
            self.is_under_way = false;
            attempt.duration = began.elapsed();
            attempt.error = error;
        }
    }
}
