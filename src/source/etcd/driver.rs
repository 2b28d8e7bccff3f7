//! Does what the machine says.

use std::future::{Future, pending};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::EtcdOptions;
use super::client::{Account, Session, Stream};
use super::health::Health;
use super::machine::{
    Command, Entry, Event, Fault, Header, Input, Known, Machine, Memory, Message, Past, Put, Revision,
};
use super::saved::{Copy, Kept, Keys, Saved};
use crate::key::Key;
use crate::reflector::{Change, Feed, Replacement};
use crate::source::ignored::{Ignored, Said};
use crate::store::{ErrorKind, SourceState};

/// How often the machine is told the time.
const TICK: Duration = Duration::from_millis(250);

/// How often etcd is asked for its alarms.
const ASK_HOW_IT_IS_EVERY: Duration = Duration::from_secs(10);

/// Follows etcd for as long as it is polled.
pub(super) async fn run(options: EtcdOptions, feed: Feed) {
    let began = Instant::now();
    let mut machine = Machine::new(options.endpoints.len(), fastrand::u64(..));
    let mut driver = Driver::new(options, feed, began);
    if let Some(saved) = driver.load_copy().await {
        let known = |kept: &Kept| Known::new(kept.meta, &kept.value);
        machine.resume(saved.header, saved.keys.iter().map(|(key, kept)| (key.as_slice(), known(kept))));
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut input = Input::Start;
    loop {
        for command in machine.step(began.elapsed(), input) {
            driver.execute(command).await;
        }
        input = loop {
            tokio::select! {
                done = &mut driver.operation => break driver.finished(done),
                message = next_message(&mut driver.stream) => {
                    break message.map_or_else(Input::Fault, Input::Message);
                }
                () = driver.feed.wanted() => break Input::Wanted,
                account = &mut driver.asked_how_it_is => driver.told_how_it_is(account),
                _ = ticks.tick() => {
                    driver.tick().await;
                    break Input::Tick;
                }
            }
        };
    }
}

async fn next_message(stream: &mut Option<Stream>) -> Result<Message, Fault> {
    match stream {
        Some(stream) => stream.message().await,
        None => pending().await,
    }
}

struct Driver {
    began: Instant,
    options: EtcdOptions,
    feed: Feed,
    session: Option<Session>,
    stream: Option<Stream>,
    /// What is under way, never more than one thing; [`pending`] if nothing is.
    operation: Operation,
    /// The question that goes on beside it, for status pages.
    asked_how_it_is: Pin<Box<dyn Future<Output = Result<Account, Fault>> + Send>>,
    ask_how_it_is_at: Instant,
    health: Health,
    listing: Option<Listing>,
    /// The published keys that are not ours.
    ignored: Ignored,
    said: Said,
    copy: Option<Copy>,
}

/// The list that is being brought.
struct Listing {
    replacement: Replacement,
    ignored: Ignored,
    /// For the copy on disk, if there is to be one.
    keys: Keys,
}

impl Listing {
    fn new(replacement: Replacement) -> Self {
        Self { replacement, ignored: Ignored::default(), keys: Keys::new() }
    }
}

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of an operation.
enum Done {
    Connected(Box<Session>, Header, Past),
    Opened(Stream, Revision),
    Input(Input),
}

impl Driver {
    fn new(options: EtcdOptions, feed: Feed, began: Instant) -> Self {
        let copy = options.copy.clone().map(|directory| Copy::new(directory, options.prefix.clone()));
        Self {
            began,
            options,
            feed,
            session: None,
            stream: None,
            operation: Box::pin(pending()),
            asked_how_it_is: Box::pin(pending()),
            ask_how_it_is_at: began,
            health: Health::default(),
            listing: None,
            ignored: Ignored::default(),
            said: Said::default(),
            copy,
        }
    }

    /// Publishes what an earlier process has left on disk.
    async fn load_copy(&mut self) -> Option<Saved> {
        let saved = match self.copy.as_mut()?.read() {
            Ok(saved) => saved?,
            Err(reason) => {
                tracing::warn!(reason, "the saved configuration is not used");
                self.feed.report(|report| report.copy_error = Some(reason));
                return None;
            }
        };
        let revision = saved.header.revision.unsigned_abs();
        let mut replacement = self.feed.replace().await;
        let mut refused = Vec::new();
        for (key, kept) in saved.keys.iter() {
            let Some(key) = self.key(key) else {
                self.ignored.add(&self.options.prefix, key, &mut self.said);
                continue;
            };
            let modified = kept.meta.modified.unsigned_abs();
            match &kept.last_good {
                Some(good) => {
                    replacement.put(key.clone(), modified, good.clone()).await;
                    refused.push(Change { key, value: Some(kept.value.clone()) });
                }
                None => replacement.put(key, modified, kept.value.clone()).await,
            }
        }
        tracing::info!(revision, keys = saved.keys.len(), "serving the saved configuration until etcd is reached");
        self.feed.report(|report| report.from_saved_copy = true);
        self.show_ignored();
        self.feed.commit(replacement, revision).await;
        if !refused.is_empty() {
            self.feed.apply(revision, refused).await;
        }
        Some(saved)
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Close => {
                self.session = None;
                self.stream = None;
                self.listing = None;
                self.operation = Box::pin(pending());
                self.asked_how_it_is = Box::pin(pending());
            }
            Command::Wait(time) => {
                self.operation = Box::pin(async move {
                    sleep(time).await;
                    Done::Input(Input::Woke)
                });
            }
            Command::Connect { endpoint, memory } => self.connect(endpoint, memory),
            Command::List { at, after, limit } => {
                self.ask(move |session| async move { session.list(at, after, limit).await.map(Input::Page) });
            }
            Command::Watch { from } => self.watch(from),
            Command::Prove { after } => {
                self.ask(move |session| async move { session.prove(after).await.map(Input::Proof) });
            }
            Command::Look { after } => {
                self.ask(move |session| async move { session.look(after).await.map(Input::Looked) });
            }
            Command::Audit { at, after, limit } => {
                self.ask(move |session| async move { session.audit(at, after, limit).await.map(Input::Audited) });
            }
            Command::AskProgress => {
                if let Some(stream) = &mut self.stream {
                    stream.ask_progress().await;
                }
            }
            Command::Begin(reason) => {
                self.stream = None;
                self.listing = Some(Listing::new(self.feed.replace().await));
                self.feed.report(|report| *report.lists.entry(reason).or_default() += 1);
            }
            Command::Bring(entries) => self.bring(entries).await,
            Command::Commit(header) => self.commit(header).await,
            Command::NewEpoch => {
                tracing::warn!("etcd tells another history than before: it is taken over");
                self.feed.report(|report| report.epoch += 1);
            }
            Command::Apply { revision, events } => self.apply(revision, events).await,
            Command::Advance(revision) => {
                self.feed.advance(revision.unsigned_abs()).await;
                self.copy.iter_mut().for_each(|copy| copy.at(revision));
            }
            Command::Proven { asked } => self.feed.proven((self.began + asked).into_std()),
            Command::AuditHeld => self.feed.report(|report| report.audits += 1),
            Command::AuditDiffers => {
                tracing::warn!("a key or a value in etcd is not what is served: everything is read again");
                self.feed.report(|report| report.differences += 1);
            }
            Command::Live => {
                self.feed.report(|report| report.from_saved_copy = false);
                self.feed.state(SourceState::Live);
            }
            Command::Stale => self.feed.state(SourceState::Stale),
            Command::Disconnected(Fault { kind, reason }) => {
                self.feed.report(|report| {
                    report.anomalies += u64::from(kind == ErrorKind::LostEvents);
                    report.failed(kind, reason.clone());
                });
                self.feed.state(SourceState::Disconnected(reason));
            }
        }
    }

    /// What the machine is told when an operation is done.
    fn finished(&mut self, done: Done) -> Input {
        self.operation = Box::pin(pending());
        let input = match done {
            Done::Connected(session, header, past) => {
                self.feed.report(|report| report.connects += 1);
                self.session = Some(*session);
                self.ask_how_it_is();
                Input::Connected(header, past)
            }
            Done::Opened(stream, revision) => {
                self.stream = Some(stream);
                Input::Opened { revision }
            }
            Done::Input(input) => input,
        };
        if let Some(session) = &self.session
            && self.health.credentials_are_idle(session.has_idle_credentials())
        {
            self.show_health();
        }
        input
    }

    fn ask_how_it_is(&mut self) {
        if let Some(session) = self.session.clone() {
            self.ask_how_it_is_at = Instant::now() + ASK_HOW_IT_IS_EVERY;
            self.asked_how_it_is = Box::pin(session.account());
        }
    }

    fn told_how_it_is(&mut self, account: Result<Account, Fault>) {
        self.asked_how_it_is = Box::pin(pending());
        if self.health.told(account) {
            self.show_health();
        }
    }

    fn show_health(&mut self) {
        let health = &self.health;
        self.feed.report(|report| health.show(report));
    }

    /// Asks for alarms when it is time, and keeps the copy on disk up to date.
    async fn tick(&mut self) {
        if Instant::now() >= self.ask_how_it_is_at {
            self.ask_how_it_is();
        }
        let Some(copy) = &mut self.copy else { return };
        if let Some(outcome) = copy.tick().await {
            let error = outcome.err().map(|error| error.to_string());
            if let Some(error) = &error {
                tracing::warn!(error, "the configuration cannot be saved");
            }
            self.feed.report(|report| report.copy_error = error);
        }
    }

    fn connect(&mut self, endpoint: usize, memory: Option<Memory>) {
        let options = self.options.clone();
        let endpoint = options.endpoints.get(endpoint).cloned().unwrap_or_default();
        self.feed.report(|report| report.endpoint = Some(endpoint.clone()));
        self.operation = Box::pin(async move {
            match Session::open(&options, &endpoint, memory).await {
                Ok((session, header, past)) => Done::Connected(Box::new(session), header, past),
                Err(Fault { kind, reason }) => {
                    Done::Input(Input::Fault(Fault { kind, reason: format!("{endpoint}: {reason}") }))
                }
            }
        });
    }

    fn watch(&mut self, from: Revision) {
        let Some(session) = self.session.clone() else { return };
        self.operation = Box::pin(async move {
            match session.watch(from).await {
                Ok((stream, revision)) => Done::Opened(stream, revision),
                Err(fault) => Done::Input(Input::Fault(fault)),
            }
        });
    }

    fn ask<F>(&mut self, question: impl FnOnce(Session) -> F)
    where
        F: Future<Output = Result<Input, Fault>> + Send + 'static,
    {
        let Some(session) = self.session.clone() else { return };
        // A task of its own: it goes on while a page is compiled. Dropped, it ends.
        let mut task = JoinSet::new();
        task.spawn(question(session));
        self.operation = Box::pin(async move {
            match task.join_next().await {
                Some(Ok(answer)) => Done::Input(answer.unwrap_or_else(Input::Fault)),
                Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime ends, and so does this.
                _ => pending().await,
            }
        });
    }

    async fn bring(&mut self, entries: Vec<Entry>) {
        let Some(mut listing) = self.listing.take() else { return };
        for Entry { key, value, meta } in entries {
            match self.key(&key) {
                Some(ours) => listing.replacement.put(ours, meta.modified.unsigned_abs(), value.clone()).await,
                None => listing.ignored.add(&self.options.prefix, &key, &mut self.said),
            }
            if self.copy.is_some() {
                listing.keys.insert(key, Kept { meta, value, last_good: None });
            }
        }
        self.listing = Some(listing);
    }

    async fn commit(&mut self, header: Header) {
        let Some(Listing { replacement, ignored, mut keys }) = self.listing.take() else { return };
        self.ignored = ignored;
        self.show_ignored();
        self.feed.commit(replacement, header.revision.unsigned_abs()).await;
        self.look_for_webhooks();
        if let Some(mut copy) = self.copy.take() {
            for (key, kept) in &mut keys {
                kept.last_good = self.last_good(key, copy.keys().get(key));
            }
            copy.replace(header, keys);
            self.copy = Some(copy);
        }
    }

    async fn apply(&mut self, revision: Revision, events: Vec<Event>) {
        let mut changes = Vec::with_capacity(events.len());
        for Event { key: name, put, .. } in &events {
            match (self.key(name), put) {
                (Some(key), put) => changes.push(Change { key, value: put.as_ref().map(|put| put.value.clone()) }),
                (None, None) => self.ignored.remove(name),
                (None, Some(Put { version: 1, .. })) => self.ignored.add(&self.options.prefix, name, &mut self.said),
                (None, Some(_)) => {}
            }
        }
        if changes.len() < events.len() {
            self.show_ignored();
        }
        self.feed.apply(revision.unsigned_abs(), changes).await;
        self.look_for_webhooks();
        if let Some(mut copy) = self.copy.take() {
            for event in events {
                let meta = event.meta();
                let kept = event.put.zip(meta).map(|(put, meta)| {
                    let last_good = self.last_good(&event.key, copy.keys().get(&event.key));
                    Kept { meta, value: put.value, last_good }
                });
                copy.set(event.key, kept);
            }
            copy.at(revision);
            self.copy = Some(copy);
        }
    }

    /// The value that serves in place of the newest of a key, from what was kept of the key before.
    fn last_good(&self, key: &[u8], before: Option<&Kept>) -> Option<bytes::Bytes> {
        let key = self.key(key)?;
        let before = before.filter(|_| self.feed.is_serving_last_good(&key))?;
        Some(before.last_good.clone().unwrap_or_else(|| before.value.clone()))
    }

    /// The key below the prefix, if it is one of ours.
    fn key(&self, key: &[u8]) -> Option<Key> {
        let relative = key.strip_prefix(self.options.prefix.as_bytes())?;
        Key::parse(relative).ok()
    }

    fn look_for_webhooks(&mut self) {
        let counts = self.feed.counts();
        if self.health.holds(&self.options.prefix, counts.webhooks + counts.fenced, self.ignored.total()) {
            self.show_health();
        }
    }

    fn show_ignored(&mut self) {
        self.feed.ignored_keys(self.ignored.total(), self.ignored.list());
    }
}
