//! Executes the machine's commands, and feeds it with events and the time.

use std::future::{Future, pending};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{Account, Session, Stream};
use super::machine::{Command, Fault, Header, Input, Known, Machine, Memory, Message, Past, Revision};
use super::options::EtcdOptions;
use super::publish::Publisher;
use super::saved::Kept;
use crate::reflector::Feed;

/// How often the machine gets the time.
const TICK: Duration = Duration::from_millis(250);

/// How often etcd is asked for its alarms.
const ASK_FOR_ALARMS_EVERY: Duration = Duration::from_secs(10);

/// Follows etcd for as long as it is polled.
pub(super) async fn run(options: EtcdOptions, feed: Feed) {
    let began = Instant::now();
    let mut machine = Machine::new(options.endpoints.len(), fastrand::u64(..));
    let mut driver = Driver::new(options, feed, began);
    if let Some(saved) = driver.publisher.load_copy().await {
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
                () = driver.publisher.wanted() => break Input::Wanted,
                account = &mut driver.account => driver.take_account(account),
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
    publisher: Publisher,
    session: Option<Session>,
    stream: Option<Stream>,
    /// The operation in progress, at most one; [`pending`] without one.
    operation: Operation,
    /// The request for alarms, for status pages, which runs beside the operation.
    account: Pin<Box<dyn Future<Output = Result<Account, Fault>> + Send>>,
    ask_for_alarms_at: Instant,
}

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The outcome of an operation.
enum Done {
    Connected(Box<Session>, Header, Past),
    Opened(Stream, Revision),
    Input(Input),
}

impl Driver {
    fn new(options: EtcdOptions, feed: Feed, began: Instant) -> Self {
        Self {
            began,
            publisher: Publisher::new(&options, feed),
            options,
            session: None,
            stream: None,
            operation: Box::pin(pending()),
            account: Box::pin(pending()),
            ask_for_alarms_at: began,
        }
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Close => {
                self.session = None;
                self.stream = None;
                self.publisher.drop_list();
                self.operation = Box::pin(pending());
                self.account = Box::pin(pending());
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
            Command::Prove { since, after } => {
                self.ask(move |session| async move { session.prove(since, after).await.map(Input::Proof) });
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
                self.publisher.begin(reason).await;
            }
            Command::Bring(entries) => self.publisher.bring(entries).await,
            Command::Commit(header) => self.publisher.commit(header).await,
            Command::NewEpoch => self.publisher.new_epoch(),
            Command::Apply { revision, events } => self.publisher.apply(revision, events).await,
            Command::Advance(revision) => self.publisher.advance(revision).await,
            Command::Proven { asked } => self.publisher.proven((self.began + asked).into_std()),
            Command::AuditHeld => self.publisher.audit_held(),
            Command::AuditDiffers => self.publisher.audit_differs(),
            Command::Live => self.publisher.live(),
            Command::Stale => self.publisher.stale(),
            Command::Disconnected(fault) => self.publisher.disconnected(fault),
        }
    }

    /// Converts the outcome of an operation into an input of the machine.
    fn finished(&mut self, done: Done) -> Input {
        self.operation = Box::pin(pending());
        let input = match done {
            Done::Connected(session, header, past) => {
                self.publisher.connected();
                self.session = Some(*session);
                self.ask_for_alarms();
                Input::Connected(header, past)
            }
            Done::Opened(stream, revision) => {
                self.stream = Some(stream);
                Input::Opened { revision }
            }
            Done::Input(input) => input,
        };
        if let Some(session) = &self.session {
            self.publisher.credentials_are_idle(session.has_idle_credentials());
        }
        input
    }

    fn ask_for_alarms(&mut self) {
        if let Some(session) = self.session.clone() {
            self.ask_for_alarms_at = Instant::now() + ASK_FOR_ALARMS_EVERY;
            self.account = Box::pin(session.account());
        }
    }

    fn take_account(&mut self, account: Result<Account, Fault>) {
        self.account = Box::pin(pending());
        self.publisher.take_account(account);
    }

    /// Asks for alarms when it is time, and keeps the copy on disk up to date.
    async fn tick(&mut self) {
        if Instant::now() >= self.ask_for_alarms_at {
            self.ask_for_alarms();
        }
        self.publisher.save().await;
    }

    fn connect(&mut self, endpoint: usize, memory: Option<Memory>) {
        let options = self.options.clone();
        let endpoint = options.endpoints.get(endpoint).cloned().unwrap_or_default();
        self.publisher.connecting(&endpoint);
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
        // A task of its own, so that it continues while a page is compiled. Dropping the set aborts it.
        let mut task = JoinSet::new();
        task.spawn(question(session));
        self.operation = Box::pin(async move {
            match task.join_next().await {
                Some(Ok(answer)) => Done::Input(answer.unwrap_or_else(Input::Fault)),
                Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime is shutting down; this future is never resumed.
                _ => pending().await,
            }
        });
    }
}
