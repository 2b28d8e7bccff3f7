//! Does what the machine says.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::EtcdOptions;
use super::client::{Cluster, Session, Stream};
use super::machine::{Command, Entry, Event, Fault, Input, Machine, Message, Revision};
use crate::key::{InvalidKey, Key};
use crate::reflector::{Change, Feed, Replacement};
use crate::store::SourceState;

/// How often the machine is told the time.
const TICK: Duration = Duration::from_millis(250);

/// Follows etcd for as long as it is polled.
pub(super) async fn run(options: EtcdOptions, feed: Feed) {
    let began = Instant::now();
    let mut machine = Machine::new(options.endpoints.len(), fastrand::u64(..));
    let mut driver = Driver::new(options, feed, began);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut input = Input::Start;
    loop {
        for command in machine.step(began.elapsed(), input) {
            driver.execute(command).await;
        }
        input = tokio::select! {
            done = &mut driver.operation => driver.finished(done),
            message = next_message(&mut driver.stream) => message.map_or_else(Input::Fault, Input::Message),
            _ = ticks.tick() => Input::Tick,
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
    /// The list that is being brought.
    replacement: Option<Replacement>,
    /// How many keys are not ours: of the list that is being brought, then of what is published.
    ignored: u64,
}

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of an operation.
enum Done {
    Connected(Box<Session>, Cluster),
    Opened(Stream, Revision),
    Input(Input),
}

impl Driver {
    fn new(options: EtcdOptions, feed: Feed, began: Instant) -> Self {
        Self {
            began,
            options,
            feed,
            session: None,
            stream: None,
            operation: Box::pin(pending()),
            replacement: None,
            ignored: 0,
        }
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Close => {
                self.session = None;
                self.stream = None;
                self.replacement = None;
                self.operation = Box::pin(pending());
            }
            Command::Wait(time) => {
                self.operation = Box::pin(async move {
                    sleep(time).await;
                    Done::Input(Input::Woke)
                });
            }
            Command::Connect(endpoint) => self.connect(endpoint),
            Command::List { at, after, limit } => {
                self.ask(move |session| async move { session.list(at, after, limit).await.map(Input::Page) });
            }
            Command::Watch { from } => self.watch(from),
            Command::Prove { after } => {
                self.ask(move |session| async move { session.prove(after).await.map(Input::Proof) });
            }
            Command::AskProgress => {
                if let Some(stream) = &mut self.stream {
                    stream.ask_progress().await;
                }
            }
            Command::Begin => {
                self.stream = None;
                self.ignored = 0;
                self.replacement = Some(self.feed.replace());
            }
            Command::Bring(entries) => self.bring(entries),
            Command::Commit(revision) => {
                if let Some(replacement) = self.replacement.take() {
                    self.feed.ignored_keys(self.ignored);
                    self.feed.commit(replacement, revision.unsigned_abs());
                }
            }
            Command::Apply { revision, events } => self.apply(revision, events),
            Command::Advance(revision) => self.feed.advance(revision.unsigned_abs()),
            Command::Proven { asked } => self.feed.proven((self.began + asked).into_std()),
            Command::Live => self.feed.state(SourceState::Live),
            Command::Stale => self.feed.state(SourceState::Stale),
            Command::Disconnected(reason) => self.feed.state(SourceState::Disconnected(reason)),
        }
    }

    /// What the machine is told when an operation is done.
    fn finished(&mut self, done: Done) -> Input {
        self.operation = Box::pin(pending());
        match done {
            Done::Connected(session, Cluster { id, revision }) => {
                self.session = Some(*session);
                Input::Connected { cluster: id, revision }
            }
            Done::Opened(stream, revision) => {
                self.stream = Some(stream);
                Input::Opened { revision }
            }
            Done::Input(input) => input,
        }
    }

    fn connect(&mut self, endpoint: usize) {
        let options = self.options.clone();
        self.operation = Box::pin(async move {
            let endpoint = options.endpoints.get(endpoint).map_or("", String::as_str);
            match Session::open(&options, endpoint).await {
                Ok((session, cluster)) => Done::Connected(Box::new(session), cluster),
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
        let answer = question(session);
        self.operation = Box::pin(async move { Done::Input(answer.await.unwrap_or_else(Input::Fault)) });
    }

    fn bring(&mut self, entries: Vec<Entry>) {
        for Entry { key, value, revision } in entries {
            match (self.key(&key), &mut self.replacement) {
                (Some(key), Some(replacement)) => replacement.put(key, revision.unsigned_abs(), value),
                (Some(_), None) => {}
                (None, _) => self.ignored += 1,
            }
        }
    }

    fn apply(&mut self, revision: Revision, events: Vec<Event>) {
        let mut changes = Vec::with_capacity(events.len());
        for Event { key, value, created, .. } in events {
            match self.key(&key) {
                Some(key) => changes.push(Change { key, value }),
                None if value.is_none() => self.ignored = self.ignored.saturating_sub(1),
                None if created => self.ignored += 1,
                None => {}
            }
        }
        self.feed.ignored_keys(self.ignored);
        self.feed.apply(revision.unsigned_abs(), changes);
    }

    /// The key below the prefix, if it is one of ours.
    fn key(&self, key: &[u8]) -> Option<Key> {
        let relative = key.strip_prefix(self.options.prefix.as_bytes())?;
        match Key::parse(relative) {
            Ok(key) => Some(key),
            Err(InvalidKey::Foreign) => None,
            Err(invalid) => {
                let key = String::from_utf8_lossy(relative);
                tracing::warn!(?key, %invalid, "a key that nobody could ask for is ignored");
                None
            }
        }
    }
}
